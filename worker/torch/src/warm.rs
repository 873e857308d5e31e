//! libtorch, ready to be copied.

use crate::ffi;

/// Loads and runs a small model that is made here, so that what libtorch builds at its first use is
/// built: operators, the interpreter, the reader of model files. On the CPU alone and with one
/// thread: a copy would wait for ever for threads that it does not have, and libtorch remembers for
/// good what it was told of devices before `libtorch_cuda` was loaded.
pub fn warm() -> Result<(), String> {
    ffi::warm().map_err(|error| error.to_string())
}
