//! The first runs of a model, on zeros, before it serves.
//!
//! They make the framework optimise and allocate, and teach the engine the types and shapes of
//! its outputs. They run outside the rings, so that nothing of them can be seen by a client.

use std::time::{Duration, Instant};

use shared::limits::{MAX_TENSORS, TENSOR_ALIGN};
use shared::tensor::{DataType, Shape, TensorSpec};

use crate::engine::{Engine, EngineError, InputView, Outputs, PlaceError, Placed, PlannedOutput};
use crate::engine::{Request, Schema};
use crate::pump::place::{layout, split};

const RUNS: usize = 3;
/// Inputs larger than this are not worth making up.
const MAX_BYTES: usize = 256 << 20;

/// How it went; none of it keeps the model from serving.
#[derive(Clone, Debug, PartialEq)]
pub enum Warmup {
    Done(Duration),
    /// A needed input has no known type or shape, or a huge one.
    Skipped {
        input: String,
    },
    Failed(EngineError),
}

/// Runs the engine a few times. Free dimensions are 1; inputs that may be left out are.
pub fn warm_up(engine: &mut dyn Engine) -> Warmup {
    let schema = engine.schema();
    let needed = schema.inputs.iter().zip(0_u32..).filter(|(spec, _)| !spec.optional);
    let mut zeros = Vec::new();
    for (spec, index) in needed {
        let Some(input) = Zeros::new(index, spec) else {
            return Warmup::Skipped { input: spec.name.clone() };
        };
        zeros.push(input);
    }
    let inputs: Vec<InputView<'_>> = zeros.iter().map(Zeros::view).collect();
    let request = Request { inputs: &inputs, wanted: wanted(&schema) };
    let start = Instant::now();
    for _ in 0..RUNS {
        if let Err(error) = engine.infer(&request, &mut HeapOutputs::new(request.wanted)) {
            return Warmup::Failed(error);
        }
    }
    Warmup::Done(start.elapsed())
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
    fn new(index: u32, spec: &TensorSpec) -> Option<Self> {
        let dims = spec.dims.as_ref()?.iter().map(|&dim| u64::try_from(dim).unwrap_or(1));
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

    /// Says how many inputs it saw; fails if told so.
    struct Probe {
        inputs: Vec<TensorSpec>,
        runs: usize,
        fails: bool,
    }

    impl Engine for Probe {
        fn schema(&self) -> Schema {
            Schema { inputs: self.inputs.clone(), outputs: Vec::new() }
        }

        fn build(&self) -> String {
            "probe".into()
        }

        fn infer(
            &mut self,
            request: &Request<'_>,
            outputs: &mut dyn Outputs,
        ) -> Result<(), EngineError> {
            self.runs += 1;
            if self.fails {
                return Err(EngineError::Model("zeros".into()));
            }
            let input = request.inputs[0];
            assert!(input.bytes.as_ptr().addr().is_multiple_of(TENSOR_ALIGN));
            let InputView { index, dtype, shape, bytes } = input;
            let plan = [PlannedOutput { index, dtype, shape, len: bytes.len() }];
            outputs.place(&plan)?.bytes[0].copy_from_slice(bytes);
            Ok(())
        }
    }

    fn probe(dtype: Option<DataType>, dims: &[i64]) -> Probe {
        let tensor = |dtype, optional| TensorSpec {
            name: "x".into(),
            dtype,
            dims: Some(dims.to_vec()),
            optional,
        };
        Probe { inputs: vec![tensor(dtype, false), tensor(None, true)], runs: 0, fails: false }
    }

    #[test]
    fn known_inputs_are_run_with_free_dimensions_of_one() {
        let mut engine = probe(Some(DataType::Fp32), &[-1, 3, 224, 224]);
        assert!(matches!(warm_up(&mut engine), Warmup::Done(_)));
        assert_eq!(engine.runs, RUNS);
        let mut engine = probe(Some(DataType::Bytes), &[2]);
        assert!(matches!(warm_up(&mut engine), Warmup::Done(_)));
    }

    #[test]
    fn unknown_and_huge_inputs_are_not_run() {
        let skipped = Warmup::Skipped { input: "x".into() };
        assert_eq!(warm_up(&mut probe(None, &[1])), skipped);
        assert_eq!(warm_up(&mut probe(Some(DataType::Fp64), &[1 << 40])), skipped);
    }

    #[test]
    fn a_failure_ends_the_warm_up() {
        let mut engine = Probe { fails: true, ..probe(Some(DataType::Fp32), &[1]) };
        assert_eq!(warm_up(&mut engine), Warmup::Failed(EngineError::Model("zeros".into())));
        assert_eq!(engine.runs, 1);
    }
}
