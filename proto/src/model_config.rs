//! Triton's `ModelConfig` as messages, generated from `model_config.proto`, and as descriptors,
//! with which the text format is read and each field can be named.

pub use generated::*;
use prost_reflect::{DescriptorPool, MessageDescriptor};

mod generated {
    include!(concat!(env!("OUT_DIR"), "/inference.rs"));
}

/// The descriptor of `ModelConfig`.
pub fn descriptor() -> MessageDescriptor {
    static FILE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/model_config.bin"));
    let pool = DescriptorPool::decode(FILE).expect("the build script wrote valid descriptors");
    pool.get_message_by_name("inference.ModelConfig").expect("the file defines it")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that stand in files and on the wire of others; a slip in ours would go unseen.
    #[test]
    fn field_numbers_are_the_public_ones() {
        let config = descriptor();
        for (name, number) in [
            ("name", 1),
            ("platform", 2),
            ("version_policy", 3),
            ("max_batch_size", 4),
            ("input", 5),
            ("output", 6),
            ("instance_group", 7),
            ("default_model_filename", 8),
            ("cc_model_filenames", 9),
            ("metric_tags", 10),
            ("dynamic_batching", 11),
            ("optimization", 12),
            ("sequence_batching", 13),
            ("parameters", 14),
            ("ensemble_scheduling", 15),
            ("model_warmup", 16),
            ("backend", 17),
            ("model_operations", 18),
            ("model_transaction_policy", 19),
            ("batch_input", 20),
            ("batch_output", 21),
            ("model_repository_agents", 23),
            ("response_cache", 24),
            ("runtime", 25),
            ("model_metrics", 26),
        ] {
            let field = config.get_field_by_name(name).map(|f| f.number());
            assert_eq!(field, Some(number), "{name}");
        }
        assert_eq!(config.fields().count(), 25);
    }
}
