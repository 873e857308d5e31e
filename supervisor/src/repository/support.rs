//! What is done with each field of a `config.pbtxt`: honoured, warned of by name, or refused by
//! name. A test compares the table with the message definition, so that no field can be forgotten;
//! one that is not in the table would be refused.

use std::collections::BTreeSet;
use std::fmt;

use prost_reflect::{DynamicMessage, Value};

use super::manifest::Warning;

/// What happens if a file sets the field. Below a field that is warned of or refused, nothing is
/// looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    Honoured,
    /// Answers are right without it; the reason says what is missed.
    Warned(&'static str),
    /// Without it answers would be wrong, or not what the model's owner relies on.
    Refused(&'static str),
}

use Support::{Honoured, Refused, Warned};

const NO_BATCHES: &str = "requests are not gathered into batches yet; each runs alone";
const FORMAT: &str = "bytes are passed on as they come; their layout is not checked";
const RUNTIME: &str = "the server chooses the runtime of an engine itself";
const OWN_CHOICE: &str = "the engine runs with its own optimizations";

/// Dotted fields of `ModelConfig`.
pub const TABLE: &[(&str, Support)] = &[
    ("name", Honoured),
    ("platform", Honoured),
    ("backend", Honoured),
    ("runtime", Warned(RUNTIME)),
    ("default_model_filename", Honoured),
    ("cc_model_filenames", Refused("one file per GPU generation is not supported")),
    ("version_policy", Honoured),
    ("version_policy.latest", Honoured),
    ("version_policy.latest.num_versions", Honoured),
    ("version_policy.all", Honoured),
    ("version_policy.specific", Honoured),
    ("version_policy.specific.versions", Honoured),
    ("max_batch_size", Honoured),
    ("input", Honoured),
    ("input.name", Honoured),
    ("input.data_type", Honoured),
    ("input.dims", Honoured),
    ("input.reshape", Honoured),
    ("input.reshape.shape", Honoured),
    ("input.optional", Honoured),
    ("input.format", Warned(FORMAT)),
    ("input.allow_ragged_batch", Refused("ragged batches are not supported")),
    ("input.is_shape_tensor", Refused("shape tensors are not supported")),
    ("input.is_non_linear_format_io", Refused("only linear tensors are supported")),
    ("output", Honoured),
    ("output.name", Honoured),
    ("output.data_type", Honoured),
    ("output.dims", Honoured),
    ("output.reshape", Honoured),
    ("output.reshape.shape", Honoured),
    ("output.label_filename", Warned("results are not classified yet; labels are not read")),
    ("output.is_shape_tensor", Refused("shape tensors are not supported")),
    ("output.is_non_linear_format_io", Refused("only linear tensors are supported")),
    ("batch_input", Refused("tensors made from a whole batch are not supported")),
    ("batch_output", Refused("tensors scattered over a whole batch are not supported")),
    ("instance_group", Honoured),
    ("instance_group.name", Honoured),
    ("instance_group.kind", Honoured),
    ("instance_group.count", Honoured),
    ("instance_group.gpus", Honoured),
    ("instance_group.passive", Refused("instances that never run are not supported")),
    ("instance_group.host_policy", Warned("workers are not bound to host resources by name")),
    ("instance_group.profile", Warned("optimization profiles belong to another engine")),
    ("instance_group.rate_limiter", Warned("executions are not limited by shared resources")),
    ("instance_group.secondary_devices", Refused("secondary devices are not supported")),
    ("dynamic_batching", Warned(NO_BATCHES)),
    ("sequence_batching", Refused("sequences are not supported")),
    ("ensemble_scheduling", Refused("ensembles are not supported")),
    ("optimization", Honoured),
    ("optimization.graph", Warned(OWN_CHOICE)),
    ("optimization.priority", Warned("all models have the same priority on a device")),
    ("optimization.cuda", Warned(OWN_CHOICE)),
    ("optimization.execution_accelerators", Warned("the model runs without an accelerator")),
    ("optimization.input_pinned_memory", Warned("the server chooses where tensors lie")),
    ("optimization.output_pinned_memory", Warned("the server chooses where tensors lie")),
    ("optimization.gather_kernel_buffer_threshold", Warned(OWN_CHOICE)),
    ("optimization.eager_batching", Warned(NO_BATCHES)),
    ("model_warmup", Warned("the worker warms up with samples of its own")),
    ("model_operations", Refused("libraries of custom operators are not loaded")),
    ("model_transaction_policy", Honoured),
    (
        "model_transaction_policy.decoupled",
        Refused("a request with any number of replies is not supported"),
    ),
    ("model_repository_agents", Refused("agents that check or change a model are not run")),
    ("response_cache", Honoured),
    ("response_cache.enable", Warned("replies are not cached; every request runs")),
    ("parameters", Honoured),
    ("parameters.string_value", Honoured),
    ("metric_tags", Warned("metrics do not carry tags of the model's own")),
    ("model_metrics", Warned("metrics do not have buckets of the model's own")),
];

/// Fields that keep a model from being loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusals(pub Vec<Warning>);

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&list.join("; "))
    }
}

/// Looks up every field that the message sets; warnings if none of them is refused.
pub(super) fn review(config: &DynamicMessage) -> Result<Vec<Warning>, Refusals> {
    let mut review = Review::default();
    review.message(config, "");
    if review.refused.is_empty() {
        Ok(review.warned.into_iter().collect())
    } else {
        Err(Refusals(review.refused.into_iter().collect()))
    }
}

fn support(field: &str) -> Support {
    let row = TABLE.iter().find(|(name, _)| *name == field);
    row.map_or(Refused("this server does not know it"), |(_, support)| *support)
}

#[derive(Default)]
struct Review {
    warned: BTreeSet<Warning>,
    refused: BTreeSet<Warning>,
}

impl Review {
    /// As deep as the message definition, which does not contain itself.
    fn message(&mut self, message: &DynamicMessage, at: &str) {
        for (descriptor, value) in message.fields() {
            let dot = if at.is_empty() { "" } else { "." };
            let field = format!("{at}{dot}{}", descriptor.name());
            match support(&field) {
                Honoured => self.below(value, &field),
                Warned(reason) => {
                    self.warned.insert(Warning { field, reason });
                }
                Refused(reason) => {
                    self.refused.insert(Warning { field, reason });
                }
            }
        }
    }

    fn below(&mut self, value: &Value, field: &str) {
        if let Some(message) = value.as_message() {
            self.message(message, field);
        }
        for value in value.as_list().unwrap_or_default() {
            self.below(value, field);
        }
        for value in value.as_map().into_iter().flat_map(|map| map.values()) {
            self.below(value, field);
        }
    }
}

#[cfg(test)]
mod tests {
    use prost_reflect::MessageDescriptor;
    use proto::model_config;

    use super::*;
    use crate::repository::pbtxt;

    /// All fields that a review can meet: those of honoured messages.
    fn reachable(message: &MessageDescriptor, at: &str, found: &mut BTreeSet<String>) {
        for field in message.fields() {
            let path = format!("{at}{}", field.name());
            if let (Honoured, Some(inner)) = (support(&path), content(&field)) {
                reachable(&inner, &format!("{path}."), found);
            }
            found.insert(path);
        }
    }

    fn content(field: &prost_reflect::FieldDescriptor) -> Option<MessageDescriptor> {
        let message = field.kind().as_message()?.clone();
        if !field.is_map() {
            return Some(message);
        }
        message.map_entry_value_field().kind().as_message().cloned()
    }

    #[test]
    fn every_field_of_the_definition_is_in_the_table_once_and_no_other() {
        let mut defined = BTreeSet::new();
        reachable(&model_config::descriptor(), "", &mut defined);
        let listed: BTreeSet<String> = TABLE.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(listed, defined);
        assert_eq!(listed.len(), TABLE.len());
    }

    #[test]
    fn what_is_warned_of_and_what_is_refused_is_named() {
        let review = |text: &str| review(&pbtxt::parse(text).unwrap());
        let warned = review(
            "dynamic_batching {} optimization { cuda { graphs: true } } response_cache {}
             instance_group [{ host_policy: \"a\" }, { host_policy: \"b\" }]
             input { name: \"x\" format: FORMAT_NCHW }",
        );
        let fields: Vec<String> = warned.unwrap().into_iter().map(|w| w.field).collect();
        assert_eq!(
            fields,
            ["dynamic_batching", "input.format", "instance_group.host_policy", "optimization.cuda"]
        );
        let refused = review("sequence_batching {} model_transaction_policy { decoupled: true }");
        assert_eq!(
            refused.unwrap_err().to_string(),
            "model_transaction_policy.decoupled: a request with any number of replies is not \
             supported; sequence_batching: sequences are not supported"
        );
    }

    #[test]
    fn a_field_that_says_its_default_changes_nothing() {
        let text = "model_transaction_policy { decoupled: false } response_cache { enable: false }";
        assert_eq!(review(&pbtxt::parse(text).unwrap()), Ok(Vec::new()));
    }
}
