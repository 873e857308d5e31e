//! The road beside, on the CPU: every step is made as on a device, and is done at once. What is shown is
//! which tensors go where and how long they are kept; that copies overlap only a device can show.

use std::ffi::{CStr, CString, c_char};

use proto::control::DeviceMemory;
use shared::id::RequestId;
use shared::tensor::{DataType, Shape};
use worker::engine::{
    EngineError, InputView, Outputs as Reply, PlaceError, Placed, PlannedOutput, Request,
};

use super::*;
use crate::streams::Streams;

unsafe extern "C" {
    fn bulkhead_test_define(source: *const c_char, path: *const c_char) -> *mut c_char;
}

/// As on a device, of which the model may have a kilobyte.
fn beside(source: &str) -> TorchEngine {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pt");
    let source = CString::new(source).unwrap();
    let text = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: both are live zero-terminated texts.
    let error = unsafe { bulkhead_test_define(source.as_ptr(), text.as_ptr()) };
    if !error.is_null() {
        // SAFETY: an error is a zero-terminated text, which is leaked here.
        panic!("{}", unsafe { CStr::from_ptr(error) }.to_string_lossy());
    }
    let spec = LoadSpec {
        engine: "pytorch".into(),
        folder: folder.path().into(),
        filename: "model.pt".into(),
        device: Device::Cpu,
        device_memory: None,
        threads: 1,
        max_batch_size: 0,
        inputs: vec![],
        outputs: vec![],
        parameters: std::collections::BTreeMap::new(),
    };
    let options = Options::from_spec(&spec).unwrap();
    let device = Some(tch::Device::Cpu);
    let (model, signature) = open(&spec, device, &options).unwrap();
    let inputs = resolve_inputs(&signature.arguments, &spec.inputs).unwrap();
    let outputs = resolve_outputs(&signature.returns, &spec.outputs).unwrap();
    let engine = Loading { model, device: tch::Device::Cpu, inputs, outputs };
    let memory = DeviceMemory { quota: 1024, segments: proto::control::Segments::Fixed };
    let road = Road::Beside(Gpu::nowhere(memory), Streams::new(-1).unwrap());
    engine.finish(road, Copies::Never, &options)
}

#[derive(Default)]
struct Bytes(Vec<Vec<u8>>);

impl Reply for Bytes {
    fn place(&mut self, plan: &[PlannedOutput]) -> Result<Placed<'_>, PlaceError> {
        self.0 = plan.iter().map(|output| vec![0xAA; output.len]).collect();
        Ok(Placed { bytes: self.0.iter_mut().map(Vec::as_mut_slice).collect() })
    }
}

impl Bytes {
    fn numbers(&self, output: usize) -> Vec<f32> {
        let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
        self.0[output].chunks_exact(4).map(number).collect()
    }
}

#[repr(align(64))]
struct Slot([u8; 8]);

fn slot(numbers: [f32; 2]) -> Slot {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    Slot(bytes.try_into().unwrap())
}

impl Slot {
    fn view(&self) -> [InputView<'_>; 1] {
        let shape = Shape::new(&[2]).unwrap();
        [InputView { index: 0, dtype: DataType::Fp32, shape, bytes: &self.0 }]
    }
}

fn request<'a>(id: u64, inputs: &'a [InputView<'a>]) -> Request<'a> {
    Request { id: RequestId(id), inputs, wanted: u64::MAX }
}

fn run(engine: &mut TorchEngine, id: u64, slot: &Slot) -> Result<Bytes, EngineError> {
    let mut reply = Bytes::default();
    engine.infer(&request(id, &slot.view()), &mut reply)?;
    engine.settle()?;
    Ok(reply)
}

const TWICE: &str = "def forward(self, x):\n    return x * 2\n";

#[test]
fn a_request_goes_in_and_out() {
    let mut engine = beside("def forward(self, x):\n    return x, x.sum(), x.size(0), x.flip(0)\n");
    assert!(engine.overlaps() && engine.on_device().is_some());
    let reply = run(&mut engine, 1, &slot([1.0, 2.0])).unwrap();
    assert_eq!((reply.numbers(0), reply.numbers(1)), (vec![1.0, 2.0], vec![3.0]));
    assert_eq!(
        (reply.0[2].as_slice(), reply.numbers(3)),
        (&2_i64.to_le_bytes()[..], vec![2.0, 1.0])
    );
}

#[test]
fn a_prefetched_request_is_run_as_it_was_then_and_no_other() {
    let mut engine = beside(TWICE);
    let (first, mut second) = (slot([1.0, 2.0]), slot([3.0, 4.0]));
    engine.prefetch(&request(2, &second.view()));
    // Nobody writes there before it was answered; that is how what was prefetched can be told here.
    second = slot([9.0, 9.0]);
    assert_eq!(run(&mut engine, 2, &second).unwrap().numbers(0), [6.0, 8.0]);
    assert_eq!(run(&mut engine, 3, &second).unwrap().numbers(0), [18.0, 18.0], "used up");
    engine.prefetch(&request(4, &second.view()));
    assert_eq!(run(&mut engine, 5, &first).unwrap().numbers(0), [2.0, 4.0]);
    assert_eq!(run(&mut engine, 4, &first).unwrap().numbers(0), [2.0, 4.0], "dropped");
}

#[test]
fn what_cannot_be_prefetched_fails_when_it_is_run() {
    let mut engine = beside(TWICE);
    engine.prefetch(&request(1, &[]));
    let error = engine.infer(&request(1, &[]), &mut Bytes::default()).unwrap_err();
    assert_eq!(error, EngineError::InvalidInput("input \"x\" is missing".into()));
    assert_eq!(run(&mut engine, 2, &slot([1.0, 1.0])).unwrap().numbers(0), [2.0, 2.0]);
}

#[test]
fn an_exception_is_the_requests_error_and_leaves_nothing_behind() {
    let source = "def forward(self, x):\n    assert bool(x.sum() >= 0), \"CUDA out of memory\"\n    \
                  return x * 2\n";
    let mut engine = beside(source);
    let error = run(&mut engine, 1, &slot([-1.0, 0.0])).map(drop).unwrap_err();
    let EngineError::DeviceOutOfMemory(text) = error else { panic!("{error:?}") };
    assert!(text.contains("1024 bytes") && text.contains("gpu_memory_limit"), "{text}");
    assert_eq!(run(&mut engine, 2, &slot([1.0, 1.0])).unwrap().numbers(0), [2.0, 2.0]);
}

#[test]
fn a_sign_that_is_still_to_be_applied_comes_out_applied() {
    let source = "def forward(self, x):\n    return torch.imag(torch.conj(torch.complex(x, x)))\n";
    let reply = run(&mut beside(source), 1, &slot([1.0, -2.0])).unwrap();
    assert_eq!(reply.numbers(0), [-1.0, 2.0]);
}
