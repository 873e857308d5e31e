//! A loaded module as an owned value: load, ask, run.

use std::ffi::{CString, c_char, c_int};
use std::path::Path;
use std::ptr::{self, NonNull};

use shared::limits::MAX_TENSORS;
use tch::Tensor;
use torch_sys::C_tensor;

use crate::ffi::{self, RawModel, RawOutput, TorchError};

/// A TorchScript module in evaluation mode. Not `Send`: libtorch's settings are per thread.
#[derive(Debug)]
pub(crate) struct Model {
    raw: NonNull<RawModel>,
}

#[derive(Debug)]
pub(crate) struct ModelOutput {
    pub(crate) tensor: Tensor,
    /// `None` unless the model returned a dict.
    pub(crate) key: Option<String>,
}

impl Model {
    /// Onto the device, or with each part on the one that the file names for it.
    pub(crate) fn load(path: &Path, device: Option<tch::Device>) -> Result<Self, TorchError> {
        let path = c_text(path.as_os_str().as_encoded_bytes())?;
        let mut raw = ptr::null_mut();
        // SAFETY: the path is a live zero-terminated text and `raw` is a place for one pointer.
        let answer = unsafe { ffi::bulkhead_model_load(path.as_ptr(), onto(device), &raw mut raw) };
        // SAFETY: the answer is fresh from the shim.
        unsafe { ffi::check(answer) }?;
        let raw = NonNull::new(raw).expect("the shim sets the pointer when it reports success");
        Ok(Self { raw })
    }

    /// The lines that `shim/signature.h` documents.
    pub(crate) fn describe(&self) -> Result<String, TorchError> {
        let mut lines: *mut c_char = ptr::null_mut();
        // SAFETY: the model is alive and only read, and `lines` is a place for one pointer.
        let answer = unsafe { ffi::bulkhead_model_describe(self.raw.as_ptr(), &raw mut lines) };
        // SAFETY: the answer is fresh from the shim.
        unsafe { ffi::check(answer) }?;
        // SAFETY: on success the shim has left a text here that is ours.
        Ok(unsafe { ffi::take_text(lines) }.unwrap_or_default())
    }

    pub(crate) fn set_options(
        &mut self,
        inference_mode: InferenceMode,
        optimizer: Optimizer,
    ) -> Result<(), TorchError> {
        let inference = inference_mode == InferenceMode::On;
        let optimized = optimizer == Optimizer::On;
        // SAFETY: the model is alive and borrowed mutably.
        let answer =
            unsafe { ffi::bulkhead_model_options(self.raw.as_ptr(), inference, optimized) };
        // SAFETY: the answer is fresh from the shim.
        unsafe { ffi::check(answer) }
    }

    /// Makes the next input of [`Model::run`] the value of `key` in forward's only argument.
    pub(crate) fn add_dict_key(&mut self, key: &str) -> Result<(), TorchError> {
        let key = c_text(key.as_bytes())?;
        // SAFETY: the model is alive and borrowed mutably; the key is a live text that is copied.
        let answer = unsafe { ffi::bulkhead_model_add_dict_key(self.raw.as_ptr(), key.as_ptr()) };
        // SAFETY: the answer is fresh from the shim.
        unsafe { ffi::check(answer) }
    }

    /// Calls `forward()`. There must be as many inputs as arguments (or dict keys); `None` is one
    /// that is left at its default.
    pub(crate) fn run(
        &mut self,
        inputs: &[Option<&Tensor>],
    ) -> Result<Vec<ModelOutput>, TorchError> {
        let inputs: Vec<*mut C_tensor> = inputs
            .iter()
            .map(|input| input.map_or(ptr::null_mut(), |tensor| tensor.as_ptr().cast_mut()))
            .collect();
        let empty = RawOutput { tensor: ptr::null_mut(), key: ptr::null_mut() };
        let mut outputs = [empty; MAX_TENSORS];
        let mut count = 0;
        // SAFETY: the model is alive and borrowed mutably; `inputs` holds as many pointers as are
        // named, each null or a live tensor that is only read; `outputs` has room for as many as
        // are named, and `count` is a place for one number.
        let answer = unsafe {
            ffi::bulkhead_model_run(
                self.raw.as_ptr(),
                inputs.as_ptr(),
                inputs.len(),
                outputs.as_mut_ptr(),
                outputs.len(),
                &raw mut count,
            )
        };
        // SAFETY: the answer is fresh from the shim.
        unsafe { ffi::check(answer) }?;
        Ok(outputs.iter().take(count).map(adopt).collect())
    }
}

/// Takes over an output that the shim has just written.
fn adopt(output: &RawOutput) -> ModelOutput {
    // SAFETY: the shim has made this tensor with `new` for us alone, and it is adopted once.
    let tensor = unsafe { Tensor::from_ptr(output.tensor) };
    // SAFETY: the key is null or a text of the shim for us alone, and it is taken once.
    let key = unsafe { ffi::take_text(output.key) };
    ModelOutput { tensor, key }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `bulkhead_model_load` and is freed here only.
        unsafe { ffi::bulkhead_model_free(self.raw.as_ptr()) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InferenceMode {
    On,
    Off,
}

/// The graph executor's optimisations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Optimizer {
    On,
    Off,
}

/// As `bulkhead_model_load` counts.
fn onto(device: Option<tch::Device>) -> c_int {
    match device {
        Some(tch::Device::Cuda(ordinal)) => c_int::try_from(ordinal).unwrap_or(c_int::MAX),
        Some(tch::Device::Cpu | tch::Device::Mps | tch::Device::Vulkan) => -1,
        None => -2,
    }
}

fn c_text(bytes: &[u8]) -> Result<CString, TorchError> {
    CString::new(bytes).map_err(|_| TorchError("a name holds a zero byte".to_owned()))
}

#[cfg(test)]
mod tests;
