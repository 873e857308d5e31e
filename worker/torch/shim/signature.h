// What can be learned from a module without running it, as lines of tab-separated fields:
//   argument <name> <class> <default|required> <type>
//   returns  <class> <type>
//   field    <class> <name, empty if none> <type>      (one for each element of a returned tuple)
//   keeps    <yes|no>
// Classes: tensor, optional, number, dict, list, tuple, any, other.
#pragma once

#include <torch/csrc/jit/ir/alias_analysis.h>
#include <torch/csrc/jit/passes/constant_propagation.h>
#include <torch/csrc/jit/passes/inliner.h>

#include <functional>
#include <unordered_set>

#include "model.h"

namespace bulkhead {

inline const char* class_of(const c10::TypePtr& type) {
  switch (type->kind()) {
    case c10::TypeKind::TensorType:
      return "tensor";
    case c10::TypeKind::OptionalType:
      return type->isSubtypeOf(*c10::OptionalType::ofTensor()) ? "optional" : "other";
    case c10::TypeKind::IntType:
    case c10::TypeKind::FloatType:
    case c10::TypeKind::BoolType:
    case c10::TypeKind::NumberType:
      return "number";
    case c10::TypeKind::DictType: {
      const auto& dict = type->expectRef<c10::DictType>();
      bool tensors = dict.getKeyType()->kind() == c10::TypeKind::StringType &&
                     dict.getValueType()->kind() == c10::TypeKind::TensorType;
      return tensors ? "dict" : "other";
    }
    case c10::TypeKind::ListType:
      return "list";
    case c10::TypeKind::TupleType:
      return "tuple";
    case c10::TypeKind::AnyType:
    case c10::TypeKind::UnionType:
      return "any";
    default:
      return "other";
  }
}

inline std::string describe_returns(const c10::TypePtr& type) {
  std::string lines = std::string("returns\t") + class_of(type) + "\t" + type->repr_str() + "\n";
  const auto tuple = type->cast<c10::TupleType>();
  if (!tuple) return lines;
  const auto& schema = tuple->schema();
  for (size_t i = 0; i < tuple->elements().size(); ++i) {
    const auto& element = tuple->elements()[i];
    const std::string name = schema ? schema->arguments().at(i).name() : "";
    lines += std::string("field\t") + class_of(element) + "\t" + name + "\t" + element->repr_str() +
             "\n";
  }
  return lines;
}

inline void for_each_node(torch::jit::Block* block,
                          const std::function<void(torch::jit::Node*)>& visit) {
  for (torch::jit::Node* node : block->nodes()) {
    visit(node);
    for (torch::jit::Block* inner : node->blocks()) for_each_node(inner, visit);
  }
}

// Modules are run in evaluation mode, so what they do only while training does not count
// (batch normalisation counts its batches in place there).
inline void assume_evaluation(std::shared_ptr<torch::jit::Graph>& graph) {
  std::vector<torch::jit::Node*> reads;
  for_each_node(graph->block(), [&](torch::jit::Node* node) {
    if (node->kind() != c10::prim::GetAttr || node->s(c10::attr::name) != "training") return;
    const auto owner = node->input()->type()->cast<c10::ClassType>();
    if (owner && owner->is_module()) reads.push_back(node);
  });
  for (torch::jit::Node* node : reads) {
    torch::jit::WithInsertPoint here(node);
    node->output()->replaceAllUsesWith(graph->insertConstant(false));
    node->destroy();
  }
  torch::jit::ConstantPropagation(graph);
}

// Values that may be memory from outside the call: arguments, attributes, parts of containers.
inline std::vector<torch::jit::Value*> values_from_outside(torch::jit::Graph& graph) {
  std::vector<torch::jit::Value*> values(graph.inputs().begin(), graph.inputs().end());
  static const std::unordered_set<std::string> readers = {
      "prim::GetAttr",    "prim::ListUnpack", "prim::TupleUnpack", "prim::TupleIndex",
      "aten::__getitem__", "aten::get",        "aten::values",      "aten::items"};
  for_each_node(graph.block(), [&](torch::jit::Node* node) {
    if (readers.count(node->kind().toQualString()) != 0)
      values.insert(values.end(), node->outputs().begin(), node->outputs().end());
  });
  return values;
}

// A task may still run when the call is over.
inline bool has_tasks(torch::jit::Graph& graph) {
  bool found = false;
  for_each_node(graph.block(), [&](torch::jit::Node* node) {
    found = found || node->kind() == c10::prim::fork || node->kind() == c10::prim::awaitable;
  });
  return found;
}

// Whether a call may write to its inputs or keep them beyond its end: true if any memory that
// was there before the call may be written, or if the graph cannot be analysed.
inline bool may_keep_inputs(const Model& model) {
  try {
    auto graph = model.forward.graph()->copy();
    torch::jit::Inline(*graph);
    assume_evaluation(graph);
    torch::jit::AliasDb aliases(graph);
    for (torch::jit::Value* value : values_from_outside(*graph))
      if (aliases.hasWriters(value)) return true;
    return has_tasks(*graph);
  } catch (const std::exception&) {
    return true;
  }
}

inline std::string describe(const Model& model) {
  const auto& schema = model.forward.function().getSchema();
  std::string lines;
  for (size_t i = 1; i < schema.arguments().size(); ++i) {
    const auto& argument = schema.arguments()[i];
    lines += "argument\t" + argument.name() + "\t" + class_of(argument.type()) + "\t" +
             (argument.default_value() ? "default" : "required") + "\t" +
             argument.type()->repr_str() + "\n";
  }
  for (const auto& result : schema.returns()) lines += describe_returns(result.type());
  return lines + "keeps\t" + (may_keep_inputs(model) ? "yes" : "no") + "\n";
}

}  // namespace bulkhead
