// What the engine needs of libtorch and tch does not have: the signature of forward(), alias
// analysis, a call that leaks nothing when the model raises, process-wide settings.
// The Rust side is src/ffi.rs; the declarations there must match these.

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <torch/headeronly/version.h>

#include "signature.h"
#include "text.h"

using bulkhead::guarded;
using bulkhead::Model;

extern "C" {

struct BulkheadOutput {
  at::Tensor* tensor;  // Owned by the caller from here on.
  char* key;           // Null, or text that the caller frees.
};

void bulkhead_text_free(char* text) { bulkhead::free_text(text); }

// Onto the CPU if `cuda` is -1; below that every part onto the device that the file names for it.
char* bulkhead_model_load(const char* path, int cuda, Model** model) {
  return guarded([&] {
    std::optional<c10::Device> device;
    if (cuda == -1) device = c10::Device(c10::kCPU);
    if (cuda >= 0) device = c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(cuda));
    auto module = torch::jit::load(path, device);
    module.eval();
    *model = new Model(std::move(module));
  });
}

void bulkhead_model_free(Model* model) {
  // A destructor that throws has nobody to tell.
  bulkhead::free_text(guarded([&] { delete model; }));
}

char* bulkhead_model_describe(const Model* model, char** lines) {
  return guarded([&] { *lines = bulkhead::copy_text(bulkhead::describe(*model)); });
}

char* bulkhead_model_options(Model* model, bool inference_mode, bool optimized) {
  return guarded([&] {
    model->inference_mode = inference_mode;
    model->optimized = optimized;
  });
}

char* bulkhead_model_add_dict_key(Model* model, const char* key) {
  return guarded([&] { model->dict_keys.emplace_back(key); });
}

// Writes at most `room` outputs; `count` says how many.
char* bulkhead_model_run(Model* model, at::Tensor* const* inputs, size_t n, BulkheadOutput* outputs,
                         size_t room, size_t* count) {
  return guarded([&] {
    auto results = bulkhead::run(*model, inputs, n);
    if (results.size() > room)
      throw std::runtime_error("forward() returned " + std::to_string(results.size()) +
                               " outputs, more than " + std::to_string(room));
    std::vector<std::unique_ptr<at::Tensor>> tensors;
    for (auto& result : results)
      tensors.push_back(std::make_unique<at::Tensor>(std::move(result.tensor)));
    for (size_t i = 0; i < results.size(); ++i) {
      const std::string& key = results[i].key;
      outputs[i] = {tensors[i].release(), key.empty() ? nullptr : bulkhead::copy_text(key)};
    }
    *count = results.size();
  });
}

char* bulkhead_set_threads(int intra, int inter) {
  return guarded([&] {
    at::set_num_threads(intra);
    // May be set once in a process, so a repeat of the same number is not an error.
    if (at::get_num_interop_threads() != static_cast<size_t>(inter))
      at::set_num_interop_threads(inter);
  });
}

char* bulkhead_disable_cudnn() {
  return guarded([] { at::globalContext().setUserEnabledCuDNN(false); });
}

char* bulkhead_version() {
  // One text, or null if there is no memory for a copy.
  return strdup(TORCH_VERSION);
}

// libtorch_cuda registers itself while it is loaded; it stays for the life of the process.
char* bulkhead_load_cuda() {
  return guarded([] {
    if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr)
      throw std::runtime_error(dlerror());
  });
}
}
