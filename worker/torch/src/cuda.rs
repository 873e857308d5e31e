//! Turns CUDA on in a process that was linked without it.
//!
//! libtorch asks once whether CUDA is there and keeps the answer, so this must come before
//! anything else that could ask.

use worker::engine::LoadError;

use crate::ffi;
use crate::message::headline;

/// Loads `libtorch_cuda.so` and checks that `ordinal` exists.
pub(crate) fn enable(ordinal: u16) -> Result<tch::Device, LoadError> {
    ffi::load_cuda().map_err(|error| {
        LoadError::Permanent(format!("CUDA cannot be used: {}", headline(&error.0)))
    })?;
    let count = tch::Cuda::device_count();
    if count <= 0 {
        // The driver may still be starting, or the device may come back.
        return Err(LoadError::Transient("CUDA sees no device".to_owned()));
    }
    if i64::from(ordinal) >= count {
        let message = format!("there is no CUDA device {ordinal}; CUDA sees {count}");
        return Err(LoadError::Permanent(message));
    }
    Ok(tch::Device::Cuda(usize::from(ordinal)))
}
