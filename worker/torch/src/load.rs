//! From a [`LoadSpec`] to an engine: settings of the process, the file, its names, one run on
//! zeros if the outputs can be known in no other way.

use std::io;
use std::path::Path;

use proto::control::{Device, LoadSpec};
use shared::tensor::TensorSpec;
use tch::Tensor;
use worker::engine::{Engine, LoadError};

use crate::engine::{Copies, TorchEngine};
use crate::ffi::{self, TorchError};
use crate::message;
use crate::model::{Model, ModelOutput};
use crate::names::{
    InputRule, Inputs, OutputRule, Outputs, learn_outputs, resolve_inputs, resolve_outputs,
};
use crate::options::{Cudnn, Options};
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
    let device = prepare_process(spec.device, &options)?;
    let (model, signature) = open(spec, device, &options)?;
    let named = |error: crate::names::NameError| LoadError::Permanent(error.to_string());
    let inputs = resolve_inputs(&signature.arguments, &spec.inputs).map_err(named)?;
    let outputs = resolve_outputs(&signature.returns, &spec.outputs).map_err(named)?;
    if let Some(warning) = left_out(&signature.returns, &outputs) {
        warn(&warning);
    }
    let copies = if signature.keeps_inputs { Copies::Always } else { Copies::Never };
    let mut engine = Loading { model, device, inputs, outputs };
    engine.prepare()?;
    Ok(Box::new(engine.finish(copies, &options)))
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

/// Sets what libtorch keeps for the whole process; CUDA first, since later is too late.
fn prepare_process(device: Device, options: &Options) -> Result<tch::Device, LoadError> {
    let device = match device {
        Device::Cpu => tch::Device::Cpu,
        Device::Cuda(ordinal) => crate::cuda::enable(ordinal)?,
        Device::Spread(_) => crate::cuda::enable(0)?,
    };
    ffi::set_threads(options.intra_threads, options.inter_threads)
        .map_err(|error| load_error("the number of threads cannot be set", &error))?;
    if options.cudnn == Cudnn::Disabled {
        ffi::disable_cudnn().map_err(|error| load_error("cuDNN cannot be disabled", &error))?;
    }
    Ok(device)
}

fn open(
    spec: &LoadSpec,
    device: tch::Device,
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
    if message::is_out_of_memory(&error.0) {
        LoadError::Transient(message)
    } else {
        LoadError::Permanent(message)
    }
}

fn left_out(returns: &Returns, outputs: &Outputs) -> Option<String> {
    let Returns::Tuple(fields) = returns else { return None };
    let (returned, named) = (fields.len(), outputs.specs.len());
    (named < returned).then(|| {
        format!("forward() returns {returned} outputs, of which the configuration names {named}")
    })
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
            self.outputs = self.discover().map_err(|why| {
                LoadError::Permanent(format!(
                    "forward() returns {type_name}, so its outputs must be named in the \
                     configuration: {why}"
                ))
            })?;
        }
        Ok(())
    }

    /// Runs the model once on zeros to see what it returns.
    fn discover(&mut self) -> Result<Outputs, String> {
        let mut zeros: Vec<Option<Tensor>> = Vec::new();
        zeros.resize_with(self.inputs.arity(), || None);
        for (index, spec) in self.inputs.specs.iter().enumerate().filter(|(_, s)| !s.optional) {
            zeros[self.inputs.position(index)] = Some(self.zeros(spec)?);
        }
        let zeros: Vec<Option<&Tensor>> = zeros.iter().map(Option::as_ref).collect();
        let results = self.model.run(&zeros).map_err(|error| {
            format!("a run on zeros failed with {}", message::headline(&error.0))
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

    fn finish(self, copies: Copies, options: &Options) -> TorchEngine {
        let promised = self.outputs.specs.iter().map(|spec| spec.dtype).collect();
        TorchEngine {
            model: self.model,
            device: self.device,
            inputs: self.inputs,
            outputs: self.outputs,
            promised,
            copies,
            after_run: options.after_run,
        }
    }
}
