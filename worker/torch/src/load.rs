//! From a [`LoadSpec`] to an engine: settings of the process, the file, its names, one run on
//! zeros if the outputs can be known in no other way.

use std::io;
use std::path::Path;

use proto::control::{Device, LoadSpec};
use shared::tensor::TensorSpec;
use tch::Tensor;
use worker::engine::{Engine, LoadError};

use crate::cuda::{self, Gpu};
use crate::engine::{Copies, Flight, TorchEngine};
use crate::ffi::{self, TorchError};
use crate::message::{self, Memory};
use crate::model::{Model, ModelOutput};
use crate::names::{
    InputRule, Inputs, OutputRule, Outputs, learn_outputs, resolve_inputs, resolve_outputs,
};
use crate::options::{Cudnn, Options};
use crate::road::{Manners, Road};
use crate::schema::{Returns, Signature};
use crate::tensors;

/// The engine's [`worker::engine::Loader`]; warnings go to the worker's log.
pub fn load(spec: &LoadSpec) -> Result<Box<dyn Engine>, LoadError> {
    load_with(spec, &mut |warning| worker::telemetry::warning(format_args!("{warning}")))
}

/// Loads a model and reports what its configuration asks for and the engine does not do.
pub fn load_with(
    spec: &LoadSpec,
    warn: &mut dyn FnMut(&str),
) -> Result<Box<dyn Engine>, LoadError> {
    let options = Options::from_spec(spec)?;
    options.warnings.iter().for_each(|warning| warn(warning));
    check_types(spec)?;
    let gpu = cuda::enable(spec, warn)?;
    let engine = build(spec, &options, gpu.clone(), warn);
    match (engine, gpu) {
        (Ok(engine), _) => Ok(Box::new(engine)),
        (Err(error), Some(gpu)) => Err(gpu.judge_load(error)),
        (Err(error), None) => Err(error),
    }
}

fn build(
    spec: &LoadSpec,
    options: &Options,
    gpu: Option<Gpu>,
    warn: &mut dyn FnMut(&str),
) -> Result<TorchEngine, LoadError> {
    prepare_process(options)?;
    let device = gpu.as_ref().map_or(tch::Device::Cpu, Gpu::first);
    // A model that spreads itself says in its file what goes where.
    let onto = (!matches!(spec.device, Device::Spread(_))).then_some(device);
    let (model, signature) = open(spec, onto, options)?;
    let named = |error: crate::names::NameError| LoadError::Permanent(error.to_string());
    let inputs = resolve_inputs(&signature.arguments, &spec.inputs).map_err(named)?;
    let outputs = resolve_outputs(&signature.returns, &spec.outputs).map_err(named)?;
    if let Some(warning) = left_out(&signature.returns, &outputs) {
        warn(&warning);
    }
    let (copies, manners) = if signature.keeps_inputs {
        (Copies::Always, Manners::Odd)
    } else {
        (Copies::Never, Manners::Plain)
    };
    let mut engine = Loading { model, device, inputs, outputs };
    engine.prepare()?;
    let road = Road::new(gpu, manners)
        .map_err(|error| load_error("the device's streams cannot be had", &error))?;
    Ok(engine.finish(road, copies, options))
}

fn check_types(spec: &LoadSpec) -> Result<(), LoadError> {
    let refused = |spec: &&TensorSpec| spec.dtype.is_some_and(|dtype| !tensors::supports(dtype));
    let tensor = spec.inputs.iter().chain(&spec.outputs).find(refused);
    match tensor.and_then(|tensor| Some((&tensor.name, tensor.dtype?))) {
        None => Ok(()),
        Some((name, dtype)) => Err(LoadError::Permanent(format!(
            "tensor {name:?}: type {dtype} is not supported by TorchScript models"
        ))),
    }
}

/// Sets what libtorch keeps for the whole process.
fn prepare_process(options: &Options) -> Result<(), LoadError> {
    ffi::set_threads(options.intra_threads, options.inter_threads)
        .map_err(|error| load_error("the number of threads cannot be set", &error))?;
    if options.cudnn == Cudnn::Disabled {
        ffi::disable_cudnn().map_err(|error| load_error("cuDNN cannot be disabled", &error))?;
    }
    Ok(())
}

fn open(
    spec: &LoadSpec,
    device: Option<tch::Device>,
    options: &Options,
) -> Result<(Model, Signature), LoadError> {
    let path = spec.folder.join(&spec.filename);
    check_file(&path)?;
    let what = format!("{} is not a TorchScript file that libtorch can load", path.display());
    let fail = |error: TorchError| load_error(&what, &error);
    let mut model = Model::load(&path, device).map_err(fail)?;
    model.set_options(options.inference_mode, options.optimizer).map_err(fail)?;
    let lines = model.describe().map_err(fail)?;
    let signature = Signature::parse(&lines)
        .map_err(|error| LoadError::Permanent(format!("{}: {error}", path.display())))?;
    Ok((model, signature))
}

/// libtorch's own words about a file that it cannot open do not say why.
fn check_file(path: &Path) -> Result<(), LoadError> {
    let file = std::fs::File::open(path).and_then(|file| file.metadata());
    match file {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(LoadError::Permanent(format!("{} is not a file", path.display()))),
        Err(error) => {
            let message = format!("model file {} cannot be read: {error}", path.display());
            let kind = error.kind();
            if matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) {
                Err(LoadError::Permanent(message))
            } else {
                Err(LoadError::Transient(message))
            }
        }
    }
}

fn load_error(what: &str, error: &TorchError) -> LoadError {
    let message = format!("{what}: {}", message::readable(&error.0));
    match message::ran_out(&error.0) {
        Some(Memory::Device) => LoadError::DeviceOutOfMemory(message),
        Some(Memory::Host) => LoadError::Transient(message),
        None => LoadError::Permanent(message),
    }
}

fn left_out(returns: &Returns, outputs: &Outputs) -> Option<String> {
    let Returns::Tuple(fields) = returns else { return None };
    let (returned, named) = (fields.len(), outputs.specs.len());
    (named < returned).then(|| {
        format!("forward() returns {returned} outputs, of which the configuration names {named}")
    })
}

/// Why a model's outputs cannot be known.
struct Hidden {
    why: String,
    memory: Option<Memory>,
}

impl From<String> for Hidden {
    fn from(why: String) -> Self {
        let memory = message::ran_out(&why);
        Self { why, memory }
    }
}

/// A model whose outputs may still be unknown.
struct Loading {
    model: Model,
    device: tch::Device,
    inputs: Inputs,
    outputs: Outputs,
}

impl Loading {
    fn prepare(&mut self) -> Result<(), LoadError> {
        if self.inputs.rule == InputRule::DictKeys {
            for spec in &self.inputs.specs {
                self.model
                    .add_dict_key(&spec.name)
                    .map_err(|error| load_error("an input's name cannot be used", &error))?;
            }
        }
        if let OutputRule::Unknown(type_name) = &self.outputs.rule {
            let type_name = type_name.clone();
            self.outputs = self.discover().map_err(|Hidden { why, memory }| {
                let message = format!(
                    "forward() returns {type_name}, so its outputs must be named in the \
                     configuration: {why}"
                );
                match memory {
                    Some(Memory::Device) => LoadError::DeviceOutOfMemory(message),
                    Some(Memory::Host) | None => LoadError::Permanent(message),
                }
            })?;
        }
        Ok(())
    }

    /// Runs the model once on zeros to see what it returns.
    fn discover(&mut self) -> Result<Outputs, Hidden> {
        let mut zeros: Vec<Option<Tensor>> = Vec::new();
        zeros.resize_with(self.inputs.arity(), || None);
        for (index, spec) in self.inputs.specs.iter().enumerate().filter(|(_, s)| !s.optional) {
            zeros[self.inputs.position(index)] = Some(self.zeros(spec)?);
        }
        let zeros: Vec<Option<&Tensor>> = zeros.iter().map(Option::as_ref).collect();
        let results = self.model.run(&zeros).map_err(|error| {
            let why = format!("a run on zeros failed with {}", message::headline(&error.0));
            Hidden { why, memory: message::ran_out(&error.0) }
        })?;
        let keys: Vec<Option<String>> =
            results.into_iter().map(|ModelOutput { key, .. }| key).collect();
        Ok(learn_outputs(&keys))
    }

    /// Zeros in the configured shape, with 1 for every dimension of any size.
    fn zeros(&self, spec: &TensorSpec) -> Result<Tensor, String> {
        let (Some(dtype), Some(dims)) = (spec.dtype, &spec.dims) else {
            return Err(format!("type and shape of input {:?} are not known", spec.name));
        };
        let dims: Vec<i64> = dims.iter().map(|&dim| if dim < 0 { 1 } else { dim }).collect();
        let zeros = tensors::zeros(dtype, &dims).map_err(|error| error.to_string())?;
        zeros.f_to_device(self.device).map_err(tensors::text_of)
    }

    fn finish(self, road: Road, copies: Copies, options: &Options) -> TorchEngine {
        let promised = self.outputs.specs.iter().map(|spec| spec.dtype).collect();
        TorchEngine {
            model: self.model,
            device: self.device,
            road,
            inputs: self.inputs,
            outputs: self.outputs,
            promised,
            copies,
            after_run: options.after_run,
            flight: Flight::default(),
        }
    }
}

#[cfg(test)]
mod tests;
