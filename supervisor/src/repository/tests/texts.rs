//! What a `config.pbtxt` says, good and bad.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use shared::id::{ModelName, ModelVersion};
use shared::tensor::DataType;

use crate::repository::*;

fn read(text: &str) -> Result<Manifest, ManifestError> {
    read_manifest(text, &ModelName::new("m").unwrap(), ModelFile::Unknown)
}

fn good(text: &str) -> Manifest {
    read(text).unwrap_or_else(|error| panic!("{error}"))
}

/// As people write them for Triton: braces, brackets, comments, quotes of both kinds.
const RESNET: &str = r#"
# An image classifier.
name: "m"
platform: "pytorch_libtorch"
max_batch_size: 32
input [
  {
    name: "INPUT__0"
    data_type: TYPE_FP32
    format: FORMAT_NCHW
    dims: [ 3, 224, 224 ]
  }
]
output [
  { name: 'OUTPUT__0' data_type: TYPE_FP32 dims: [ 1000 ] label_filename: "labels.txt" }
]
instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] }, { kind: KIND_CPU } ]
version_policy: { specific: { versions: [ 1, 3 ] } }
dynamic_batching {
  preferred_batch_size: [ 8, 16 ]
  max_queue_delay_microseconds: 500
  priority_levels: 2
  default_priority_level: 2
  default_queue_policy { timeout_action: DELAY max_queue_size: 10 }
  priority_queue_policy { key: 1 value: { default_timeout_microseconds: 7 } }
}
parameters: { key: "INFERENCE_MODE" value: { string_value: "true" } }
parameters { key: "gpu_memory_limit_mib" value { string_value: "512" } }
"#;

#[test]
fn an_image_classifier() {
    let manifest = good(RESNET);
    assert_eq!(manifest.engine, EngineKind::Torch);
    assert_eq!((&*manifest.platform, manifest.max_batch_size), ("pytorch_libtorch", 32));
    assert_eq!(manifest.filename.as_deref(), Some("model.pt"));
    let input = &manifest.input_specs(View::Client)[0];
    assert_eq!((&*input.name, input.dtype), ("INPUT__0", Some(DataType::Fp32)));
    assert_eq!(input.dims.as_deref(), Some(&[-1, 3, 224, 224][..]));
    assert_eq!(manifest.outputs[0].label_filename.as_deref(), Some("labels.txt"));
    let kinds: Vec<_> = manifest.instance_groups.iter().map(|g| (g.kind, g.count)).collect();
    assert_eq!(kinds, [(InstanceKind::Gpu, 2), (InstanceKind::Cpu, 1)]);
    let seats = |instances| -> Vec<_> {
        manifest.seats(instances).into_iter().map(|seat| (seat.kind, seat.gpus)).collect()
    };
    let gpu = |gpu| (InstanceKind::Gpu, vec![gpu]);
    let cpu = || (InstanceKind::Cpu, vec![]);
    assert_eq!(seats(None), [gpu(0), gpu(0), gpu(1), gpu(1), cpu()]);
    assert_eq!(seats(Some(1)), [gpu(0)]);
    assert_eq!(seats(Some(6)), [gpu(0), gpu(0), gpu(1), gpu(1), cpu(), gpu(0)]);
    let versions = [1, 3].map(|n| ModelVersion::new(n).unwrap());
    assert_eq!(manifest.version_policy, VersionPolicy::Specific(versions.into()));
    let parameters = [("INFERENCE_MODE", "true"), ("gpu_memory_limit_mib", "512")]
        .map(|(k, v)| (k.into(), v.into()));
    assert_eq!(manifest.parameters, BTreeMap::<String, String>::from(parameters));
    let warned: Vec<_> = manifest.warnings.iter().map(|w| &*w.field).collect();
    assert_eq!(warned, ["dynamic_batching", "input.format", "output.label_filename"]);
}

#[test]
fn batching_is_kept_for_when_requests_are_batched() {
    let batching = good(RESNET).dynamic_batching.unwrap();
    assert_eq!(batching.preferred_batch_sizes, [8, 16].into());
    assert_eq!(batching.max_queue_delay, Duration::from_micros(500));
    assert_eq!((batching.priority_levels, batching.default_priority_level), (2, 2));
    assert_eq!(batching.default_queue_policy.timeout_action, TimeoutAction::Delay);
    assert_eq!(batching.default_queue_policy.max_queue_size, 10);
    assert_eq!(batching.priority_queue_policies[&1].default_timeout, Duration::from_micros(7));
}

#[test]
fn the_least_that_a_file_can_say() {
    let manifest = good("backend: \"echo\"");
    assert_eq!((manifest.engine, &*manifest.platform), (EngineKind::Echo, "echo"));
    assert_eq!((manifest.filename.as_deref(), manifest.max_batch_size), (None, 0));
    assert_eq!((manifest.seats(None).len(), manifest.inputs.len()), (1, 0));
    assert_eq!(manifest.version_policy, VersionPolicy::Latest(1));
    assert_eq!(good("backend: \"pytorch\"").platform, "pytorch");
    assert_eq!(
        good("backend: \"pytorch\" version_policy { all {} }").version_policy,
        VersionPolicy::All
    );
    assert_eq!(Manifest::of_torch_file().platform, "pytorch_libtorch");
    let empty = read_manifest("", &ModelName::new("m").unwrap(), ModelFile::TorchScript);
    assert_eq!(empty, Ok(Manifest::of_torch_file()));
}

#[test]
fn a_reshape_is_seen_by_the_model_only() {
    let manifest = good(
        r#"backend: "echo" max_batch_size: 4
           input { name: "a" data_type: TYPE_STRING dims: [ 1 ] reshape: { shape: [ ] } }
           input { name: "b" data_type: TYPE_BF16 dims: [ -1, 6 ] reshape { shape: [ -1, 2, 3 ] } optional: true }
           output { name: "c" }"#,
    );
    let dims = |view| manifest.input_specs(view).into_iter().map(|s| s.dims.unwrap()).collect();
    let (client, model): (Vec<_>, Vec<_>) = (dims(View::Client), dims(View::Model));
    assert_eq!(client, [vec![-1, 1], vec![-1, -1, 6]]);
    assert_eq!(model, [vec![-1], vec![-1, -1, 2, 3]]);
    let specs = manifest.input_specs(View::Model);
    assert_eq!((specs[0].dtype, specs[1].optional), (Some(DataType::Bytes), true));
    let learned = &manifest.output_specs(View::Client)[0];
    assert_eq!((learned.dtype, learned.dims.as_deref()), (None, None));
}

/// What is added to a file that is otherwise good, and what is said of it.
const BAD: &[(&str, &str)] = &[
    ("name: \"other\"", "the name in the file is \"other\", that of the folder is m"),
    (
        "platform: \"tensorrt_plan\"",
        "no engine for platform \"tensorrt_plan\": supported are platform \"pytorch_libtorch\" and \
         backend \"pytorch\" or \"echo\"",
    ),
    (
        "platform: \"pytorch_libtorch\"",
        "platform \"pytorch_libtorch\" and backend \"echo\" are different engines",
    ),
    ("max_batch_size: -1", "max_batch_size: -1 is not from 0 (no batches) to 1048576"),
    ("input { data_type: TYPE_FP32 dims: 1 }", "input.name: it is missing"),
    ("input [ { name: \"x\" }, { name: \"x\" } ]", "input \"x\": name: two tensors have this name"),
    ("input { name: \"a\\nb\" }", "input \"a\\nb\": name: a name may not hold control characters"),
    (
        "output { name: \"x\" dims: [ 4, 0 ] }",
        "output \"x\": dims: 0 is neither a size of at least 1 nor -1",
    ),
    (
        "output { name: \"x\" dims: [ -2 ] }",
        "output \"x\": dims: -2 is neither a size of at least 1 nor -1",
    ),
    (
        "input { name: \"x\" dims: [ 1,1,1,1,1,1,1,1,1,1,1,1,1 ] }",
        "input \"x\": dims: 13 dimensions; at most 12 are possible",
    ),
    (
        "input { name: \"x\" dims: [ 9223372036854775807, 2 ] }",
        "input \"x\": dims: the number of elements overflows",
    ),
    (
        "input { name: \"x\" data_type: TYPE_FP32 dims: [ 1099511627776 ] }",
        "input \"x\": dims: a tensor may have at most 4294967296 bytes, this one has more",
    ),
    (
        "input { name: \"x\" dims: [ 4 ] reshape { shape: [ 2, 3 ] } }",
        "input \"x\": reshape: [2, 3] does not hold as many elements as [4]",
    ),
    (
        "input { name: \"x\" dims: [ -1, 4 ] reshape { shape: [ 4, -1 ] } }",
        "input \"x\": reshape: [4, -1] does not hold as many elements as [-1, 4]",
    ),
    (
        "input { name: \"x\" reshape { shape: [ ] } }",
        "input \"x\": reshape: [] does not hold as many elements as []",
    ),
    (
        "default_model_filename: \"../../etc/passwd\"",
        "default_model_filename: \"../../etc/passwd\" is not the name of a file in a version's folder",
    ),
    (
        "default_model_filename: \"..\"",
        "default_model_filename: \"..\" is not the name of a file in a version's folder",
    ),
    ("instance_group { count: -1 }", "instance_group.count: -1 is not from 1 to 64"),
    (
        "instance_group [ { count: 60 }, { count: 5 } ]",
        "instance_group: 65 instances in all; at most 64 are possible",
    ),
    (
        "instance_group { kind: KIND_CPU gpus: 0 }",
        "instance_group.gpus: a group of KIND_CPU cannot name GPUs",
    ),
    ("instance_group { gpus: -1 }", "instance_group.gpus: -1 is not a device number"),
    ("instance_group { kind: 9 }", "instance_group.kind: 9 is not a kind"),
    ("version_policy { latest {} }", "version_policy.latest.num_versions: it must be at least 1"),
    (
        "version_policy { specific { versions: [ 0 ] } }",
        "version_policy.specific.versions: 0 is not a version",
    ),
    ("version_policy { specific {} }", "version_policy.specific.versions: it names no version"),
    (
        "dynamic_batching { preferred_batch_size: 4 }",
        "dynamic_batching.preferred_batch_size: 4 is not from 1 to max_batch_size, which is 0",
    ),
    (
        "dynamic_batching { priority_levels: 2 }",
        "dynamic_batching.default_priority_level: 0 is not from 1 to priority_levels, which is 2",
    ),
    (
        "dynamic_batching { priority_queue_policy { key: 3 value {} } }",
        "dynamic_batching.priority_queue_policy: 3 is not from 1 to priority_levels, which is 0",
    ),
    ("ensemble_scheduling {}", "unsupported: ensemble_scheduling: ensembles are not supported"),
    (
        "input { name: \"x\" allow_ragged_batch: true }",
        "unsupported: input.allow_ragged_batch: ragged batches are not supported",
    ),
    (
        "inputs { name: \"x\" }",
        "line 2: field 'inputs' not found for message 'ModelConfig' (in `inputs { name: \"x\" }`)",
    ),
];

#[test]
fn each_bad_value_is_named_with_its_field() {
    for (text, message) in BAD {
        let error = read(&format!("backend: \"echo\"\n{text}")).unwrap_err();
        assert_eq!(error.to_string(), *message, "{text}");
    }
    let none = read("max_batch_size: 1").unwrap_err();
    assert_eq!(none, ManifestError::NoEngine);
    let unknown = read("backend: \"onnxruntime\"").unwrap_err().to_string();
    assert!(unknown.starts_with("no engine for backend \"onnxruntime\""), "{unknown}");
}

#[test]
fn no_error_is_as_long_as_the_file() {
    let long = "x".repeat(100_000);
    for text in [
        format!("name: \"{long}\""),
        format!("backend: \"{long}\""),
        format!("backend: \"echo\" default_model_filename: \"/{long}\""),
        format!("backend: \"echo\" input [ {{ name: \"{long}\" }}, {{ name: \"{long}\" }} ]"),
        format!("backend: {long}"),
        format!("{long}: 1"),
        format!("input {{ data_type: {long} }}"),
    ] {
        let error = read(&text).unwrap_err().to_string();
        assert!(error.len() < 500, "{}", &error[..500]);
    }
}

#[test]
fn too_many_tensors_are_refused() {
    let many: String = (0..65).map(|i| format!("input {{ name: \"x{i}\" }}\n")).collect();
    let error = read(&format!("backend: \"echo\"\n{many}")).unwrap_err().to_string();
    assert_eq!(error, "input: 65 tensors; at most 64 are possible");
}

proptest! {
    #[test]
    fn any_numbers_are_taken_or_refused(
        batch in any::<i32>(),
        dims in proptest::collection::vec(any::<i64>(), 0..14),
        shape in proptest::collection::vec(-1..5_i64, 0..4),
        count in any::<i32>(),
        versions in proptest::collection::vec(any::<i64>(), 0..4),
    ) {
        let _manifest_or_error = read(&format!(
            "backend: \"echo\" max_batch_size: {batch} instance_group {{ count: {count} }}
             input {{ name: \"x\" dims: {dims:?} reshape {{ shape: {shape:?} }} }}
             version_policy {{ specific {{ versions: {versions:?} }} }}"
        ));
    }
}
