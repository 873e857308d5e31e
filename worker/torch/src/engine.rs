//! The engine: a loaded module, the names that its tensors go by, and one run of it.
//!
//! What a run shows and nobody configured is learned: types and ranks of outputs after the first
//! run, number and keys of a list's or dict's outputs from one run on zeros while loading, so that
//! names never change once the model is loaded.

use shared::id::RequestId;
use shared::tensor::{DataType, Shape, TensorSpec};
use tch::Tensor;
use worker::engine::{
    Arenas, DeviceUse, Engine, EngineError, InputView, Outputs as Reply, PlannedOutput, Request,
    Schema,
};

use crate::cuda::{self, Gpu};
use crate::ffi::{self, TorchError};
use crate::message::engine_error;
use crate::model::{Model, ModelOutput};
use crate::names::{Inputs, OutputRule, Outputs};
use crate::options::AfterRun;
use crate::road::Road;
use crate::streams::Streams;
use crate::tensors::{self, View, ViewError};

#[derive(Debug)]
pub(crate) struct TorchEngine {
    pub(crate) model: Model,
    pub(crate) device: tch::Device,
    pub(crate) road: Road,
    pub(crate) inputs: Inputs,
    pub(crate) outputs: Outputs,
    /// What the configuration promises about each output.
    pub(crate) promised: Vec<Option<DataType>>,
    pub(crate) copies: Copies,
    pub(crate) after_run: AfterRun,
    pub(crate) flight: Flight,
}

/// What a device may still read and write. It is here, and not on the stack, so that it is kept when the
/// device is lost: a pump forgets an engine whose device is.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    inputs: Vec<Option<Tensor>>,
    results: Vec<ModelOutput>,
    ahead: Option<Ahead>,
}

/// The inputs of a request that was prefetched.
#[derive(Debug)]
struct Ahead {
    request: RequestId,
    inputs: Vec<Option<Tensor>>,
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
        let answered = match self.road {
            Road::Host | Road::InTurn(_) => self.infer_in_turn(request, reply),
            Road::Beside(..) => self.begin(request, reply),
        };
        answered.map_err(|error| self.judge(error))
    }

    fn on_device(&self) -> Option<DeviceUse> {
        self.road.gpu().map(Gpu::used)
    }

    fn trim(&mut self) {
        if let Some(gpu) = self.road.gpu() {
            gpu.trim();
        }
    }

    fn adopt(&mut self, memory: &Arenas) {
        if self.road.gpu().is_some() {
            cuda::adopt(memory);
        }
    }

    fn overlaps(&self) -> bool {
        matches!(self.road, Road::Beside(..))
    }

    fn prefetch(&mut self, request: &Request<'_>) {
        let Road::Beside(_, streams) = &self.road else { return };
        let _no_grad = tch::no_grad_guard();
        let inputs = self.upload(streams, request.inputs).ok();
        self.flight.ahead = inputs.map(|inputs| Ahead { request: request.id, inputs });
    }

    fn settle(&mut self) -> Result<(), EngineError> {
        let Road::Beside(_, streams) = &self.road else { return Ok(()) };
        match streams.settle() {
            Ok(()) => {
                self.land();
                self.clean_cache();
                Ok(())
            }
            Err(error) => Err(self.judge(raised(&error))),
        }
    }
}

impl TorchEngine {
    fn infer_in_turn(
        &mut self,
        request: &Request<'_>,
        reply: &mut dyn Reply,
    ) -> Result<(), EngineError> {
        let arguments = self.arguments(request.inputs, |input| self.argument(input))?;
        let tensors: Vec<Option<&Tensor>> =
            arguments.iter().map(|argument| argument.as_ref().map(Argument::tensor)).collect();
        let results = self.model.run(&tensors).map_err(|error| raised(&error));
        let answered = results.and_then(|results| self.answer(&results, request, reply));
        drop(arguments);
        self.clean_cache();
        answered
    }

    /// Has everything of a request done by the device, and waits only where the model itself does.
    fn begin(&mut self, request: &Request<'_>, reply: &mut dyn Reply) -> Result<(), EngineError> {
        let Road::Beside(_, streams) = &self.road else { return Ok(()) };
        let ahead = self.flight.ahead.take().filter(|ahead| ahead.request == request.id);
        self.flight.inputs = match ahead {
            Some(ahead) => ahead.inputs,
            None => self.upload(streams, request.inputs)?,
        };
        streams.enter(&self.flight.inputs).map_err(|error| raised(&error))?;
        let tensors: Vec<Option<&Tensor>> = self.flight.inputs.iter().map(Option::as_ref).collect();
        let results = self.model.run(&tensors).map_err(|error| raised(&error))?;
        let left = streams.leave().map_err(|error| raised(&error));
        let answered = left.and_then(|()| self.answer(&results, request, reply));
        self.flight.results = results;
        answered
    }

    /// What an error means on this road. Unless the device is lost, nothing of the request is under way
    /// any more.
    fn judge(&mut self, error: EngineError) -> EngineError {
        let Some(gpu) = self.road.gpu() else { return error };
        let judged = gpu.judge(error);
        if !matches!(judged, EngineError::DeviceFault(_)) {
            self.land();
        }
        judged
    }

    fn land(&mut self) {
        self.flight.inputs.clear();
        self.flight.results.clear();
    }

    fn clean_cache(&self) {
        if let (AfterRun::EmptyCudaCache, Some(gpu)) = (self.after_run, self.road.gpu()) {
            gpu.trim();
        }
    }

    /// Begins to copy the inputs to the device.
    fn upload(
        &self,
        streams: &Streams,
        inputs: &[InputView<'_>],
    ) -> Result<Vec<Option<Tensor>>, EngineError> {
        let arguments = self.arguments(inputs, |input| {
            let view = tensors::view(input)?;
            // SAFETY: the inputs of a request stay as they are until it was settled, or answered with an
            // error before which the device was synchronised (`Engine::overlaps`). One that was prefetched
            // and has expired is never run, and its copy is dropped.
            let copy = unsafe { streams.upload(view.tensor()) };
            copy.map_err(|error| ViewError::Torch(error.0))
        })?;
        streams.uploaded().map_err(|error| raised(&error))?;
        Ok(arguments)
    }

    /// What is made of each input, at its position in `forward()`; `None` where one is left out.
    fn arguments<'a, T>(
        &self,
        inputs: &[InputView<'a>],
        make: impl Fn(&InputView<'a>) -> Result<T, ViewError>,
    ) -> Result<Vec<Option<T>>, EngineError> {
        let mut arguments: Vec<Option<T>> = Vec::new();
        arguments.resize_with(self.inputs.arity(), || None);
        for input in inputs {
            let (position, spec) = self.input(input.index)?;
            let argument = make(input).map_err(|error| refused(spec, &error))?;
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

    fn check_complete<T>(&self, arguments: &[Option<T>]) -> Result<(), EngineError> {
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
            // SAFETY: the bytes of a reply are its own until the request was settled, and what was
            // computed is kept in `Flight` until then (`Engine::overlaps`).
            let written = unsafe { self.road.write(output.tensor, (dtype, shape), bytes) };
            written.map_err(|error| not_written(&error))?;
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

fn raised(error: &TorchError) -> EngineError {
    engine_error(&error.0)
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
