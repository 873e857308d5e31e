// Writes a TorchScript file from source text, so that tests need no Python. An object of its own:
// nothing in the worker refers to it, so that the linker leaves it out of the worker.

#include <torch/script.h>

#include "text.h"

extern "C" char* bulkhead_test_define(const char* source, const char* path) {
  return bulkhead::guarded([&] {
    torch::jit::Module module("tested");
    module.register_attribute("training", c10::BoolType::get(), true);
    module.register_buffer("total", torch::zeros({}));
    module.define(source);
    module.save(path);
  });
}
