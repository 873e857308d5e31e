//! The `parameters` of a model's configuration that concern libtorch. Pure.

use proto::control::LoadSpec;
use worker::engine::LoadError;

use crate::model::{InferenceMode, Optimizer};

/// Most threads that a parameter may ask for.
const MAX_THREADS: u16 = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) inference_mode: InferenceMode,
    pub(crate) optimizer: Optimizer,
    pub(crate) cudnn: Cudnn,
    pub(crate) after_run: AfterRun,
    /// Threads within one operation.
    pub(crate) intra_threads: u16,
    /// Threads for operations side by side.
    pub(crate) inter_threads: u16,
    /// What the configuration asks for and this engine does not do, each naming its parameter.
    pub(crate) warnings: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cudnn {
    Enabled,
    Disabled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterRun {
    KeepCache,
    EmptyCudaCache,
}

impl Options {
    pub(crate) fn from_spec(spec: &LoadSpec) -> Result<Self, LoadError> {
        let mut options = Self {
            inference_mode: InferenceMode::On,
            optimizer: Optimizer::On,
            cudnn: Cudnn::Enabled,
            after_run: AfterRun::KeepCache,
            intra_threads: spec.threads.max(1),
            inter_threads: 1,
            warnings: Vec::new(),
        };
        for (key, value) in &spec.parameters {
            options.apply(key, value).map_err(LoadError::Permanent)?;
        }
        Ok(options)
    }

    fn apply(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "INFERENCE_MODE" if !flag(key, value)? => self.inference_mode = InferenceMode::Off,
            "DISABLE_OPTIMIZED_EXECUTION" if flag(key, value)? => self.optimizer = Optimizer::Off,
            "DISABLE_CUDNN" if flag(key, value)? => self.cudnn = Cudnn::Disabled,
            "ENABLE_CACHE_CLEANING" if flag(key, value)? => {
                self.after_run = AfterRun::EmptyCudaCache;
            }
            "INFERENCE_MODE"
            | "DISABLE_OPTIMIZED_EXECUTION"
            | "DISABLE_CUDNN"
            | "ENABLE_CACHE_CLEANING" => {}
            "INTRA_OP_THREAD_COUNT" => self.intra_threads = threads(key, value)?,
            "INTER_OP_THREAD_COUNT" => self.inter_threads = threads(key, value)?,
            _ => self.warnings.push(format!(
                "parameter {key} is not known to the TorchScript engine and has no effect"
            )),
        }
        Ok(())
    }
}

fn flag(key: &str, value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("parameter {key} must be true or false, not {value:?}")),
    }
}

fn threads(key: &str, value: &str) -> Result<u16, String> {
    value
        .parse()
        .ok()
        .filter(|count| (1..=MAX_THREADS).contains(count))
        .ok_or_else(|| format!("parameter {key} must be 1 to {MAX_THREADS}, not {value:?}"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proto::control::Device;

    use super::*;

    fn options(parameters: &[(&str, &str)]) -> Result<Options, LoadError> {
        Options::from_spec(&LoadSpec {
            engine: "pytorch".to_owned(),
            folder: PathBuf::new(),
            filename: String::new(),
            device: Device::Cpu,
            device_memory: None,
            threads: 2,
            max_batch_size: 0,
            inputs: Vec::new(),
            outputs: Vec::new(),
            parameters: parameters
                .iter()
                .map(|&(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        })
    }

    #[test]
    fn defaults_follow_the_spec() {
        let options = options(&[("DISABLE_CUDNN", "false")]).unwrap();
        assert_eq!(options.inference_mode, InferenceMode::On);
        assert_eq!((options.intra_threads, options.inter_threads), (2, 1));
        assert_eq!(options.cudnn, Cudnn::Enabled);
        assert!(options.warnings.is_empty());
    }

    #[test]
    fn parameters_are_honoured() {
        let options = options(&[
            ("INFERENCE_MODE", "FALSE"),
            ("DISABLE_OPTIMIZED_EXECUTION", "1"),
            ("ENABLE_CACHE_CLEANING", "true"),
            ("INTRA_OP_THREAD_COUNT", "3"),
            ("INTER_OP_THREAD_COUNT", "4"),
        ])
        .unwrap();
        assert_eq!(options.inference_mode, InferenceMode::Off);
        assert_eq!(options.optimizer, Optimizer::Off);
        assert_eq!(options.after_run, AfterRun::EmptyCudaCache);
        assert_eq!((options.intra_threads, options.inter_threads), (3, 4));
    }

    #[test]
    fn a_bad_value_names_the_parameter_and_the_value() {
        let error = options(&[("INTRA_OP_THREAD_COUNT", "0")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "parameter INTRA_OP_THREAD_COUNT must be 1 to 1024, not \"0\""
        );
        let error = options(&[("INFERENCE_MODE", "maybe")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "parameter INFERENCE_MODE must be true or false, not \"maybe\""
        );
    }

    #[test]
    fn an_unknown_parameter_is_warned_about_by_name() {
        let options = options(&[("ENABLE_WEIGHT_SHARING", "true")]).unwrap();
        assert!(options.warnings[0].contains("ENABLE_WEIGHT_SHARING"), "{:?}", options.warnings);
    }
}
