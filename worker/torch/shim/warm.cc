// What every model needs of libtorch at its first use, used once. For processes that are copied
// afterwards: nothing here may start a thread or ask for a device.

#include <ATen/Parallel.h>

#include <sstream>

#include "model.h"
#include "signature.h"
#include "text.h"

namespace {

constexpr const char* kSource = R"(
def forward(self, x):
    y = torch.relu(torch.conv2d(x, self.kernel, None, [1, 1], [1, 1]))
    y = torch.batch_norm(y, None, None, self.mean, self.variance, False, 0.1, 1e-5, False)
    y = torch.max_pool2d(y, [2, 2])
    y = torch.flatten(y, 1)
    y = torch.matmul(y, self.weight) + 1.0
    return torch.softmax(y, 1)
)";

std::string written() {
  torch::jit::Module module("warm");
  module.register_attribute("training", c10::BoolType::get(), false);
  module.register_buffer("kernel", torch::ones({2, 1, 3, 3}));
  module.register_buffer("mean", torch::zeros({2}));
  module.register_buffer("variance", torch::ones({2}));
  module.register_buffer("weight", torch::ones({32, 4}));
  module.define(kSource);
  std::ostringstream file;
  module.save(file);
  return file.str();
}

}  // namespace

extern "C" char* bulkhead_warm() {
  return bulkhead::guarded([] {
    at::set_num_threads(1);
    std::istringstream file(written());
    auto module = torch::jit::load(file, c10::Device(c10::kCPU));
    module.eval();
    bulkhead::Model model(std::move(module));
    bulkhead::describe(model);
    at::Tensor input = torch::ones({1, 1, 8, 8});
    at::Tensor* inputs[] = {&input};
    // The first runs observe, a later one is compiled.
    for (int run = 0; run < 3; ++run)
      bulkhead::run(model, inputs, 1);
  });
}
