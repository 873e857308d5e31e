//! What goes wrong, and that the engine answers the next request all the same.

use shared::limits::MAX_ERROR_BYTES;
use shared::tensor::DataType;
use worker::engine::{EngineError, LoadError};

use crate::support::{DOUBLE, Draft, Loaded, fp32, given, model};

#[test]
fn on_the_cpu_there_is_no_device_and_nothing_overlaps() {
    let mut model = model(DOUBLE).load();
    assert_eq!(model.engine.on_device(), None);
    assert!(!model.engine.overlaps());
    model.engine.trim();
    model.engine.settle().unwrap();
    still_answers(&mut model);
}

fn still_answers(model: &mut Loaded) {
    assert_eq!(model.infer(&[fp32(&[1], &[1.0])]).unwrap()[0].fp32(), [2.0]);
}

#[test]
fn an_exception_is_the_requests_error() {
    let source = "def forward(self, x):\n    assert bool(x.sum() >= 0), \"the sum is negative\"\n    \
                  return x * 2\n";
    let mut model = model(source).load();
    for _ in 0..3 {
        let error = model.infer(&[fp32(&[1], &[-1.0])]).unwrap_err();
        let EngineError::Model(message) = error else { panic!("{error:?}") };
        let first = message.lines().next().unwrap();
        assert!(first.contains("the sum is negative"), "{message}");
        assert!(message.len() <= MAX_ERROR_BYTES && !message.contains("frame #"), "{message}");
        still_answers(&mut model);
    }
}

#[test]
fn a_failed_call_keeps_nothing_of_its_inputs() {
    // It writes to its input, so that every call is given a copy.
    let source =
        "def forward(self, x):\n    x.add_(1)\n    assert bool(x.sum() < 0)\n    return x\n";
    let mut model = model(source).load();
    let megabytes = 4;
    let x = given(DataType::Uint8, &[megabytes << 20], &vec![1; 4 << 20]);
    let before = resident_megabytes();
    for _ in 0..50 {
        assert!(model.infer_views(&[x.view(0)], 1).is_err());
    }
    let grown = resident_megabytes().saturating_sub(before);
    assert!(grown < 25 * megabytes, "{grown} MiB more after 50 calls");
}

fn resident_megabytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn a_shape_that_the_model_cannot_take_is_told_in_one_line() {
    let mut model = model("def forward(self, x):\n    return x.matmul(x.t())\n").load();
    let error = model.infer(&[fp32(&[1, 1, 2], &[1.0, 2.0])]).unwrap_err();
    let EngineError::Model(message) = error else { panic!("{error:?}") };
    assert!(message.lines().next().unwrap().contains("t()"), "{message}");
}

#[test]
fn memory_that_cannot_be_had_is_told_apart() {
    let source = "def forward(self, x):\n    if bool(x.sum() < 0):\n        \
                  return x.repeat(10000000000000)\n    return x * 2\n";
    let mut model = model(source).load();
    let error = model.infer(&[fp32(&[1], &[-1.0])]).unwrap_err();
    assert!(matches!(error, EngineError::OutOfMemory(_)), "{error:?}");
    still_answers(&mut model);
}

#[test]
fn inputs_must_be_the_ones_that_the_model_has() {
    let mut model = model(DOUBLE).load();
    let x = fp32(&[1], &[1.0]);
    let mut refused = |views: &[worker::engine::InputView<'_>]| {
        let error = model.infer_views(views, 1).unwrap_err();
        let EngineError::InvalidInput(message) = error else { panic!("{error:?}") };
        message
    };
    assert_eq!(refused(&[]), "input \"x\" is missing");
    assert_eq!(refused(&[x.view(0), x.view(0)]), "input \"x\" is given twice");
    assert_eq!(refused(&[x.view(1)]), "there is no input 1; the model has 1");
    let text = given(DataType::Bytes, &[1], &[1, 0, 0, 0, b'a']);
    let message = refused(&[text.view(0)]);
    assert_eq!(message, "input \"x\": type BYTES is not supported by TorchScript models");
    still_answers(&mut model);
}

#[test]
fn a_file_that_is_missing_or_broken_is_named() {
    let missing = Draft::empty().refused();
    assert!(missing.contains("model.pt cannot be read: No such file"), "{missing}");
    let broken = Draft::empty();
    std::fs::write(broken.spec.folder.join("model.pt"), b"PK\x03\x04 not a model").unwrap();
    let message = broken.refused();
    assert!(message.contains("model.pt is not a TorchScript file that libtorch can load: "));
    let folder = Draft::empty();
    std::fs::create_dir(folder.spec.folder.join("model.pt")).unwrap();
    assert!(folder.refused().ends_with("model.pt is not a file"));
    let cut = model(DOUBLE);
    let path = cut.spec.folder.join("model.pt");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(cut.refused().contains("is not a TorchScript file"));
}

#[test]
fn a_model_without_forward_is_refused() {
    let message = model("def other(self, x):\n    return x\n").refused();
    assert!(message.contains("forward"), "{message}");
}

#[test]
fn without_cuda_libraries_a_cuda_model_is_refused() {
    let mut draft = model(DOUBLE);
    draft.spec.device = proto::control::Device::Cuda(99);
    match draft.try_load().map(drop).unwrap_err() {
        // No library, or no such device; without any device a repeat may find one.
        LoadError::Permanent(message) | LoadError::Transient(message) => {
            assert!(message.contains("CUDA"), "{message}");
        }
        other @ (LoadError::DeviceOutOfMemory(_) | LoadError::DeviceFault(_)) => panic!("{other}"),
    }
}

#[test]
fn parameters_are_checked_and_unknown_ones_warned_about() {
    let message = model(DOUBLE).parameter("INFERENCE_MODE", "perhaps").refused();
    assert_eq!(message, "parameter INFERENCE_MODE must be true or false, not \"perhaps\"");
    let draft = model(DOUBLE)
        .parameter("INFERENCE_MODE", "false")
        .parameter("DISABLE_OPTIMIZED_EXECUTION", "true")
        .parameter("DISABLE_CUDNN", "true")
        .parameter("ENABLE_CACHE_CLEANING", "true")
        .parameter("COLOUR", "blue");
    let mut loaded = draft.load();
    assert_eq!(tch::get_num_interop_threads(), 1);
    let expected = "parameter COLOUR is not known to the TorchScript engine and has no effect";
    assert_eq!(loaded.warnings, [expected]);
    still_answers(&mut loaded);
}
