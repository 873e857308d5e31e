//! The engine: a loaded module, the names that its tensors go by, and one run of it.
//!
//! What a run shows and nobody configured is learned: types and ranks of outputs after the first
//! run, number and keys of a list's or dict's outputs from one run on zeros while loading, so that
//! names never change once the model is loaded.

use shared::tensor::{DataType, Shape, TensorSpec};
use tch::Tensor;
use worker::engine::{
    Engine, EngineError, InputView, Outputs as Reply, PlannedOutput, Request, Schema,
};

use crate::ffi;
use crate::message::engine_error;
use crate::model::{Model, ModelOutput};
use crate::names::{Inputs, OutputRule, Outputs};
use crate::options::AfterRun;
use crate::tensors::{self, View, ViewError};

#[derive(Debug)]
pub(crate) struct TorchEngine {
    pub(crate) model: Model,
    pub(crate) device: tch::Device,
    pub(crate) inputs: Inputs,
    pub(crate) outputs: Outputs,
    /// What the configuration promises about each output.
    pub(crate) promised: Vec<Option<DataType>>,
    pub(crate) copies: Copies,
    pub(crate) after_run: AfterRun,
}

/// What the module is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copies {
    /// Views of the request's bytes.
    Never,
    /// Copies of its own, because it may write to its inputs or keep them.
    Always,
}

/// An output that is asked for, computed and not yet written.
struct Chosen<'a> {
    tensor: &'a Tensor,
    plan: PlannedOutput,
}

impl Engine for TorchEngine {
    fn build(&self) -> String {
        format!("libtorch {}", ffi::version())
    }

    fn schema(&self) -> Schema {
        Schema { inputs: self.inputs.specs.clone(), outputs: self.outputs.specs.clone() }
    }

    fn infer(&mut self, request: &Request<'_>, reply: &mut dyn Reply) -> Result<(), EngineError> {
        let _no_grad = tch::no_grad_guard();
        let arguments = self.arguments(request.inputs)?;
        let results = self.run(&arguments);
        let answered = results.and_then(|results| self.answer(&results, request, reply));
        if self.after_run == AfterRun::EmptyCudaCache && self.device.is_cuda() {
            drop(arguments);
            // Only memory is at stake, and the request has its answer.
            drop(ffi::empty_cuda_cache());
        }
        answered
    }
}

impl TorchEngine {
    /// The inputs at their positions in `forward()`, `None` where one is left out.
    fn arguments<'a>(
        &self,
        inputs: &[InputView<'a>],
    ) -> Result<Vec<Option<Argument<'a>>>, EngineError> {
        let mut arguments: Vec<Option<Argument<'a>>> = Vec::new();
        arguments.resize_with(self.inputs.arity(), || None);
        for input in inputs {
            let (position, spec) = self.input(input.index)?;
            let argument = self.argument(input).map_err(|error| refused(spec, &error))?;
            if arguments[position].replace(argument).is_some() {
                let message = format!("input {:?} is given twice", spec.name);
                return Err(EngineError::InvalidInput(message));
            }
        }
        self.check_complete(&arguments)?;
        Ok(arguments)
    }

    fn input(&self, index: u32) -> Result<(usize, &TensorSpec), EngineError> {
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        let spec = self.inputs.specs.get(at).ok_or_else(|| {
            let known = self.inputs.specs.len();
            EngineError::InvalidInput(format!("there is no input {index}; the model has {known}"))
        })?;
        Ok((self.inputs.position(at), spec))
    }

    fn argument<'a>(&self, input: &InputView<'a>) -> Result<Argument<'a>, ViewError> {
        let view = tensors::view(input)?;
        let owned = if self.device.is_cuda() {
            view.tensor().f_to_device(self.device)
        } else if self.copies == Copies::Always {
            view.tensor().f_detach_copy()
        } else {
            return Ok(Argument::View(view));
        };
        owned.map(Argument::Owned).map_err(|error| ViewError::Torch(tensors::text_of(error)))
    }

    fn check_complete(&self, arguments: &[Option<Argument<'_>>]) -> Result<(), EngineError> {
        let missing = self.inputs.specs.iter().enumerate().find(|&(index, spec)| {
            !spec.optional && arguments[self.inputs.position(index)].is_none()
        });
        match missing {
            None => Ok(()),
            Some((_, spec)) => {
                Err(EngineError::InvalidInput(format!("input {:?} is missing", spec.name)))
            }
        }
    }

    fn run(&mut self, arguments: &[Option<Argument<'_>>]) -> Result<Vec<ModelOutput>, EngineError> {
        let tensors: Vec<Option<&Tensor>> =
            arguments.iter().map(|argument| argument.as_ref().map(Argument::tensor)).collect();
        self.model.run(&tensors).map_err(|error| engine_error(&error.0))
    }

    fn answer(
        &mut self,
        results: &[ModelOutput],
        request: &Request<'_>,
        reply: &mut dyn Reply,
    ) -> Result<(), EngineError> {
        let chosen = self.choose(results, request)?;
        let plan: Vec<PlannedOutput> = chosen.iter().map(|output| output.plan).collect();
        let placed = reply.place(&plan)?;
        for (output, bytes) in chosen.iter().zip(placed.bytes) {
            let PlannedOutput { dtype, shape, .. } = output.plan;
            tensors::write(output.tensor, (dtype, shape), bytes)
                .map_err(|error| not_written(&error))?;
        }
        self.learn(&plan);
        Ok(())
    }

    fn choose<'a>(
        &self,
        results: &'a [ModelOutput],
        request: &Request<'_>,
    ) -> Result<Vec<Chosen<'a>>, EngineError> {
        let mut chosen = Vec::with_capacity(results.len());
        for (index, spec) in (0_u32..).zip(&self.outputs.specs) {
            if request.wants(index) {
                let position = position_of(index);
                let result = self.find(results, position, &spec.name)?;
                let plan = plan(index, result, self.promised[position])
                    .map_err(|why| EngineError::Model(format!("output {:?}: {why}", spec.name)))?;
                chosen.push(Chosen { tensor: &result.tensor, plan });
            }
        }
        Ok(chosen)
    }

    fn find<'a>(
        &self,
        results: &'a [ModelOutput],
        output: usize,
        name: &str,
    ) -> Result<&'a ModelOutput, EngineError> {
        let found = match &self.outputs.rule {
            OutputRule::Positions(positions) => results.get(positions[output]),
            OutputRule::DictKeys => results.iter().find(|r| r.key.as_deref() == Some(name)),
            OutputRule::Unknown(_) => None,
        };
        found.ok_or_else(|| EngineError::Model(missing_output(results, name)))
    }

    fn learn(&mut self, plan: &[PlannedOutput]) {
        for output in plan {
            let spec = &mut self.outputs.specs[position_of(output.index)];
            spec.dtype.get_or_insert(output.dtype);
            spec.dims.get_or_insert_with(|| vec![-1; output.shape.dims().len()]);
        }
    }
}

/// A value for `forward()`.
#[derive(Debug)]
enum Argument<'a> {
    View(View<'a>),
    Owned(Tensor),
}

impl Argument<'_> {
    fn tensor(&self) -> &Tensor {
        match self {
            Self::View(view) => view.tensor(),
            Self::Owned(tensor) => tensor,
        }
    }
}

fn refused(spec: &TensorSpec, error: &ViewError) -> EngineError {
    match error {
        ViewError::Torch(text) => engine_error(&format!("input {:?}: {text}", spec.name)),
        ViewError::Type(_)
        | ViewError::Length { .. }
        | ViewError::Alignment(_)
        | ViewError::Bool => EngineError::InvalidInput(format!("input {:?}: {error}", spec.name)),
    }
}

fn not_written(error: &ViewError) -> EngineError {
    match error {
        ViewError::Torch(text) => engine_error(text),
        ViewError::Type(_)
        | ViewError::Length { .. }
        | ViewError::Alignment(_)
        | ViewError::Bool => EngineError::Model(format!("an output cannot be written: {error}")),
    }
}

fn plan(
    index: u32,
    result: &ModelOutput,
    promised: Option<DataType>,
) -> Result<PlannedOutput, String> {
    let (dtype, shape) = tensors::describe(&result.tensor)?;
    if let Some(promised) = promised
        && promised != dtype
    {
        return Err(format!("the model returned {dtype}, the configuration says {promised}"));
    }
    Ok(PlannedOutput { index, dtype, shape, len: byte_len(dtype, shape)? })
}

fn byte_len(dtype: DataType, shape: Shape) -> Result<usize, String> {
    match shape.byte_len(dtype) {
        Ok(Some(len)) => Ok(len),
        Ok(None) => Err(format!("type {dtype} has no fixed size")),
        Err(error) => Err(error.to_string()),
    }
}

fn missing_output(results: &[ModelOutput], name: &str) -> String {
    let keys: Vec<&str> = results.iter().filter_map(|result| result.key.as_deref()).collect();
    if keys.is_empty() {
        format!("output {name:?} is not among the {} that the model returned", results.len())
    } else {
        format!("the model returned no output {name:?}; it returned {}", keys.join(", "))
    }
}

fn position_of(index: u32) -> usize {
    usize::try_from(index).expect("an index of an output fits")
}
