// A loaded TorchScript module and one call of its forward().
#pragma once

#include <torch/script.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace bulkhead {

using c10::IValue;

struct Model {
  torch::jit::Module module;
  torch::jit::Method forward;
  // Taken for an argument that a request leaves out, by position (self not counted).
  std::vector<IValue> absent;
  // Keys of the dict that is forward's only argument; empty if forward takes plain arguments.
  std::vector<std::string> dict_keys;
  bool inference_mode = true;
  bool optimized = true;

  explicit Model(torch::jit::Module loaded)
      : module(std::move(loaded)), forward(forward_of(module)) {
    const auto& arguments = forward.function().getSchema().arguments();
    for (size_t i = 1; i < arguments.size(); ++i)
      absent.push_back(arguments[i].default_value().value_or(IValue()));
  }

  static torch::jit::Method forward_of(const torch::jit::Module& module) {
    auto method = module.find_method("forward");
    if (!method) throw std::runtime_error("the module has no forward() method");
    return *method;
  }
};

struct Output {
  at::Tensor tensor;
  std::string key;  // Empty unless the model returned a dict.
};

inline std::string type_of(const IValue& value) {
  return value.isNone() ? "None" : value.type()->repr_str();
}

inline std::runtime_error no_output(const std::string& type, size_t position) {
  return std::runtime_error("output " + std::to_string(position) + " of forward() has type " +
                            type + "; an output must be a dense tensor or a number");
}

inline at::Tensor as_tensor(const IValue& value, size_t position) {
  if (value.isTensor() && value.toTensor().defined()) {
    // Sparse and nested tensors have no rows to copy, and no sizes either in part.
    if (value.toTensor().layout() == at::kStrided && !value.toTensor().is_nested())
      return value.toTensor();
    throw no_output(c10::str(value.toTensor().layout(), " Tensor"), position);
  }
  if (value.isBool()) return at::scalar_tensor(value.toBool(), at::kBool);
  if (value.isInt()) return at::scalar_tensor(value.toInt(), at::kLong);
  if (value.isDouble()) return at::scalar_tensor(value.toDouble(), at::kDouble);
  throw no_output(type_of(value), position);
}

inline std::vector<Output> flatten(const IValue& result) {
  std::vector<Output> outputs;
  if (result.isTuple()) {
    for (const auto& element : result.toTupleRef().elements())
      outputs.push_back({as_tensor(element, outputs.size()), ""});
  } else if (result.isList()) {
    for (const auto& element : result.toListRef())
      outputs.push_back({as_tensor(element, outputs.size()), ""});
  } else if (result.isGenericDict()) {
    for (const auto& entry : result.toGenericDict()) {
      if (!entry.key().isString())
        throw std::runtime_error("forward() returned a dict whose keys are not strings");
      outputs.push_back({as_tensor(entry.value(), outputs.size()), entry.key().toStringRef()});
    }
  } else {
    outputs.push_back({as_tensor(result, 0), ""});
  }
  return outputs;
}

// Each input stands at its position in forward(), or at that of its key if forward() takes a dict;
// null is one that was left out.
inline std::vector<IValue> arguments_of(const Model& model, at::Tensor* const* inputs, size_t n) {
  std::vector<IValue> arguments;
  if (model.dict_keys.empty()) {
    arguments.reserve(n + 1);
    for (size_t i = 0; i < n; ++i)
      arguments.push_back(inputs[i] != nullptr ? IValue(*inputs[i]) : model.absent.at(i));
    return arguments;
  }
  c10::Dict<std::string, at::Tensor> dict;
  for (size_t i = 0; i < n; ++i)
    if (inputs[i] != nullptr) dict.insert(model.dict_keys.at(i), *inputs[i]);
  arguments.emplace_back(std::move(dict));
  return arguments;
}

inline std::vector<Output> run(Model& model, at::Tensor* const* inputs, size_t n) {
  c10::InferenceMode inference_mode(model.inference_mode);
  at::NoGradGuard no_grad;
  torch::jit::GraphOptimizerEnabledGuard optimizer(model.optimized);
  return flatten(model.forward(arguments_of(model, inputs, n)));
}

}  // namespace bulkhead
