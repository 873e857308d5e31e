//! The first runs of a model, on zeros, before it serves.
//!
//! They make the framework optimise and allocate, and teach the engine the types and shapes of
//! its outputs. On a device one more run, with the largest batch, shows how much memory the model needs.
//! They run outside the rings, so that nothing of them can be seen by a client.

use std::time::{Duration, Instant};

use proto::control::WarmupExtent;
use shared::id::RequestId;
use shared::limits::{MAX_TENSORS, TENSOR_ALIGN};
use shared::tensor::{DataType, Shape, TensorSpec};

use crate::engine::{Engine, EngineError, InputView, Outputs, PlaceError, Placed, PlannedOutput};
use crate::engine::{Request, Schema};
use crate::pump::exhaustion::Exhaustion;
use crate::pump::place::{layout, split};

const RUNS: usize = 3;
/// Inputs larger than this are not worth making up.
const MAX_BYTES: usize = 256 << 20;

/// What came of it.
#[derive(Debug)]
pub struct Warmed {
    pub outcome: Warmup,
    /// The largest batch and why it could not be run, if that was tried and failed.
    pub too_large: Option<(u32, EngineError)>,
    pub extent: WarmupExtent,
    /// What the device was seen to have memory for; `None` without one.
    pub exhaustion: Option<Exhaustion>,
}

/// How the first runs went; none of it keeps the model from serving, but for a device that is lost.
#[derive(Clone, Debug, PartialEq)]
pub enum Warmup {
    Done(Duration),
    /// A needed input has no known type or shape, or a huge one.
    Skipped {
        input: String,
    },
    Failed(EngineError),
}

/// Runs the engine a few times. Free dimensions are 1, the batch at last `max_batch_size` if there is a
/// device; inputs that may be left out are.
pub fn warm_up(engine: &mut dyn Engine, max_batch_size: u32) -> Warmed {
    let schema = engine.schema();
    let mut exhaustion = engine.on_device().map(|_| Exhaustion::default());
    let outcome = first_runs(engine, &schema, exhaustion.as_mut());
    let mut warmed = Warmed { outcome, too_large: None, extent: WarmupExtent::Partial, exhaustion };
    let (Warmup::Done(_), Some(exhaustion)) = (&warmed.outcome, &mut warmed.exhaustion) else {
        return warmed;
    };
    let is_run = match max_batch_size {
        0 | 1 => true,
        rows => match Zeros::all(&schema, rows) {
            Err(_) => false,
            Ok(zeros) => match run(engine, &schema, &zeros, Some(exhaustion)) {
                Ok(()) => true,
                Err(error) => {
                    warmed.too_large = Some((rows, error));
                    false
                }
            },
        },
    };
    if is_run && !is_open(&schema, max_batch_size > 0) {
        warmed.extent = WarmupExtent::Largest;
    }
    warmed
}

fn first_runs(
    engine: &mut dyn Engine,
    schema: &Schema,
    mut exhaustion: Option<&mut Exhaustion>,
) -> Warmup {
    let zeros = match Zeros::all(schema, 1) {
        Ok(zeros) => zeros,
        Err(input) => return Warmup::Skipped { input },
    };
    let start = Instant::now();
    for _ in 0..RUNS {
        if let Err(error) = run(engine, schema, &zeros, exhaustion.as_deref_mut()) {
            return Warmup::Failed(error);
        }
    }
    Warmup::Done(start.elapsed())
}

fn run(
    engine: &mut dyn Engine,
    schema: &Schema,
    zeros: &[Zeros],
    exhaustion: Option<&mut Exhaustion>,
) -> Result<(), EngineError> {
    let inputs: Vec<InputView<'_>> = zeros.iter().map(Zeros::view).collect();
    let request = Request { id: NOBODY, inputs: &inputs, wanted: wanted(schema) };
    let mut outputs = HeapOutputs::new(request.wanted);
    engine.infer(&request, &mut outputs)?;
    engine.settle()?;
    if let Some(exhaustion) = exhaustion {
        exhaustion.answered(&inputs);
    }
    Ok(())
}

/// Requests are numbered from below.
const NOBODY: RequestId = RequestId(u64::MAX);

/// Whether a request may be larger than one whose open dimensions are 1, the batch excepted.
fn is_open(schema: &Schema, batches: bool) -> bool {
    let may_grow = |spec: &TensorSpec| {
        let is_open = |dims: &Vec<i64>| dims.iter().skip(batches.into()).any(|&dim| dim < 0);
        // An element of BYTES is of any length, and what was left out may be given.
        spec.optional
            || spec.dtype == Some(DataType::Bytes)
            || spec.dims.as_ref().is_none_or(is_open)
    };
    schema.inputs.iter().any(may_grow)
}

/// All outputs; whatever comes if none are known yet.
fn wanted(schema: &Schema) -> u64 {
    match schema.outputs.len() {
        0 | MAX_TENSORS.. => u64::MAX,
        outputs => (1 << outputs) - 1,
    }
}

/// A tensor of zeros; for BYTES these are empty elements.
struct Zeros {
    index: u32,
    dtype: DataType,
    shape: Shape,
    memory: AlignedBytes,
}

impl Zeros {
    /// For every input that is needed, with so many rows where the first dimension is open; the error is
    /// the input that none can be made for.
    fn all(schema: &Schema, rows: u32) -> Result<Vec<Self>, String> {
        let needed = schema.inputs.iter().zip(0_u32..).filter(|(spec, _)| !spec.optional);
        needed
            .map(|(spec, index)| Self::new(index, spec, rows).ok_or_else(|| spec.name.clone()))
            .collect()
    }

    fn new(index: u32, spec: &TensorSpec, rows: u32) -> Option<Self> {
        let dims = spec.dims.as_ref()?.iter().enumerate();
        let dims = dims.map(|(at, &dim)| {
            let open = if at == 0 { rows.into() } else { 1 };
            u64::try_from(dim).unwrap_or(open)
        });
        let shape = Shape::new(&dims.collect::<Vec<_>>()).ok()?;
        let dtype = spec.dtype?;
        // An empty BYTES element is four bytes of length.
        let size = dtype.size().unwrap_or(4);
        let len = usize::try_from(shape.elements()).ok()?.checked_mul(size)?;
        let memory = (len <= MAX_BYTES).then(|| AlignedBytes::new(len))?;
        Some(Self { index, dtype, shape, memory })
    }

    fn view(&self) -> InputView<'_> {
        let Self { index, dtype, shape, .. } = *self;
        InputView { index, dtype, shape, bytes: self.memory.bytes() }
    }
}

/// Outputs that nobody reads.
struct HeapOutputs {
    wanted: u64,
    memory: AlignedBytes,
}

impl HeapOutputs {
    fn new(wanted: u64) -> Self {
        Self { wanted, memory: AlignedBytes::new(0) }
    }
}

impl Outputs for HeapOutputs {
    fn place(&mut self, plan: &[PlannedOutput]) -> Result<Placed<'_>, PlaceError> {
        let layout = layout(plan, self.wanted)?;
        self.memory = AlignedBytes::new(layout.total);
        Ok(Placed { bytes: split(self.memory.bytes_mut(), &layout.tensors) })
    }
}

/// Zero bytes on the heap whose start is aligned as in a slot.
struct AlignedBytes {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBytes {
    fn new(len: usize) -> Self {
        let memory = vec![0; len + TENSOR_ALIGN];
        let start = memory.as_ptr().addr().next_multiple_of(TENSOR_ALIGN) - memory.as_ptr().addr();
        Self { memory, start, len }
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::DeviceUse;
    use crate::pump::exhaustion::Verdict;

    /// Notes the rows that it saw; fails if told so.
    struct Probe {
        inputs: Vec<TensorSpec>,
        rows: Vec<u64>,
        fails_from: u64,
        device: Option<DeviceUse>,
    }

    impl Engine for Probe {
        fn schema(&self) -> Schema {
            Schema { inputs: self.inputs.clone(), outputs: Vec::new() }
        }

        fn build(&self) -> String {
            "probe".into()
        }

        fn on_device(&self) -> Option<DeviceUse> {
            self.device
        }

        fn infer(
            &mut self,
            request: &Request<'_>,
            outputs: &mut dyn Outputs,
        ) -> Result<(), EngineError> {
            let input = request.inputs[0];
            let rows = input.shape.dims().first().copied().unwrap_or(1);
            self.rows.push(rows);
            if rows >= self.fails_from {
                return Err(EngineError::DeviceOutOfMemory("zeros".into()));
            }
            assert!(input.bytes.as_ptr().addr().is_multiple_of(TENSOR_ALIGN));
            let InputView { index, dtype, shape, bytes } = input;
            let plan = [PlannedOutput { index, dtype, shape, len: bytes.len() }];
            outputs.place(&plan)?.bytes[0].copy_from_slice(bytes);
            Ok(())
        }
    }

    fn input(dtype: Option<DataType>, dims: &[i64]) -> TensorSpec {
        TensorSpec { name: "x".into(), dtype, dims: Some(dims.to_vec()), optional: false }
    }

    fn probe(dtype: Option<DataType>, dims: &[i64]) -> Probe {
        let optional = TensorSpec { optional: true, ..input(None, dims) };
        let inputs = vec![input(dtype, dims), optional];
        Probe { inputs, rows: Vec::new(), fails_from: u64::MAX, device: None }
    }

    fn on_device(inputs: Vec<TensorSpec>) -> Probe {
        let device = Some(DeviceUse { allocator_limit: None, peak: 0 });
        Probe { inputs, rows: Vec::new(), fails_from: u64::MAX, device }
    }

    #[test]
    fn known_inputs_are_run_with_free_dimensions_of_one() {
        let mut engine = probe(Some(DataType::Fp32), &[-1, 3, 224, 224]);
        assert!(matches!(warm_up(&mut engine, 8).outcome, Warmup::Done(_)));
        assert_eq!(engine.rows, [1; RUNS]);
        let mut engine = probe(Some(DataType::Bytes), &[2]);
        assert!(matches!(warm_up(&mut engine, 0).outcome, Warmup::Done(_)));
    }

    #[test]
    fn unknown_and_huge_inputs_are_not_run() {
        let skipped = Warmup::Skipped { input: "x".into() };
        assert_eq!(warm_up(&mut probe(None, &[1]), 0).outcome, skipped);
        assert_eq!(warm_up(&mut probe(Some(DataType::Fp64), &[1 << 40]), 0).outcome, skipped);
    }

    #[test]
    fn a_failure_ends_the_warm_up() {
        let mut engine =
            Probe { fails_from: 1, ..on_device(vec![input(Some(DataType::Fp32), &[-1])]) };
        let warmed = warm_up(&mut engine, 8);
        let error = EngineError::DeviceOutOfMemory("zeros".into());
        assert_eq!(warmed.outcome, Warmup::Failed(error));
        assert_eq!((engine.rows, warmed.extent), (vec![1], WarmupExtent::Partial));
    }

    #[test]
    fn the_largest_batch_is_run_on_a_device_and_counts_as_answered() {
        let image = input(Some(DataType::Uint8), &[-1, 4]);
        let mut engine = on_device(vec![image]);
        let warmed = warm_up(&mut engine, 8);
        assert_eq!(engine.rows, [1, 1, 1, 8]);
        assert_eq!((warmed.extent, warmed.too_large), (WarmupExtent::Largest, None));
        let mut exhaustion = warmed.exhaustion.unwrap();
        let zeros = Zeros::new(0, &input(Some(DataType::Uint8), &[8, 4]), 1).unwrap();
        let verdicts = [(); 3].map(|()| exhaustion.ran_out(&[zeros.view()]));
        assert_eq!(verdicts, [Verdict::GoOn, Verdict::GoOn, Verdict::End]);
    }

    #[test]
    fn a_batch_that_does_not_fit_is_told_and_no_failure() {
        let image = input(Some(DataType::Uint8), &[-1, 4]);
        let mut engine = Probe { fails_from: 8, ..on_device(vec![image]) };
        let warmed = warm_up(&mut engine, 8);
        assert!(matches!(warmed.outcome, Warmup::Done(_)));
        assert_eq!(warmed.extent, WarmupExtent::Partial);
        assert_eq!(warmed.too_large, Some((8, EngineError::DeviceOutOfMemory("zeros".into()))));
    }

    #[test]
    fn a_peak_is_the_largest_only_if_nothing_is_open() {
        let extent =
            |inputs, max_batch_size| warm_up(&mut on_device(inputs), max_batch_size).extent;
        let fp32 = |dims: &[i64]| input(Some(DataType::Fp32), dims);
        assert_eq!(extent(vec![fp32(&[4, 4])], 0), WarmupExtent::Largest);
        assert_eq!(extent(vec![fp32(&[-1, 4])], 1), WarmupExtent::Largest);
        assert_eq!(extent(vec![fp32(&[-1, 4])], 0), WarmupExtent::Partial);
        assert_eq!(extent(vec![fp32(&[-1, -1])], 4), WarmupExtent::Partial);
        assert_eq!(extent(vec![input(Some(DataType::Bytes), &[-1, 1])], 4), WarmupExtent::Partial);
        let optional = TensorSpec { optional: true, ..fp32(&[-1, 4]) };
        assert_eq!(extent(vec![fp32(&[-1, 4]), optional], 4), WarmupExtent::Partial);
        assert_eq!(extent(vec![fp32(&[-1, 1 << 25])], 4), WarmupExtent::Partial, "too many bytes");
    }
}
