//! The functions of `shim/shim.cc` as they are, and the one place that reads their texts.

use std::ffi::{CStr, c_char, c_int};

use torch_sys::C_tensor;

/// A loaded module, known to C++ only.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct RawModel {
    _private: [u8; 0],
}

/// The streams of a device, known to C++ only.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct RawStreams {
    _private: [u8; 0],
}

/// One output of a call; both pointers belong to whoever receives them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawOutput {
    pub(crate) tensor: *mut C_tensor,
    /// Null unless the model returned a dict.
    pub(crate) key: *mut c_char,
}

unsafe extern "C" {
    fn bulkhead_text_free(text: *mut c_char);
    pub(crate) fn bulkhead_model_load(
        path: *const c_char,
        cuda: c_int,
        model: *mut *mut RawModel,
    ) -> *mut c_char;
    pub(crate) fn bulkhead_model_free(model: *mut RawModel);
    pub(crate) fn bulkhead_model_describe(
        model: *const RawModel,
        lines: *mut *mut c_char,
    ) -> *mut c_char;
    pub(crate) fn bulkhead_model_options(
        model: *mut RawModel,
        inference_mode: bool,
        optimized: bool,
    ) -> *mut c_char;
    pub(crate) fn bulkhead_model_add_dict_key(
        model: *mut RawModel,
        key: *const c_char,
    ) -> *mut c_char;
    pub(crate) fn bulkhead_model_run(
        model: *mut RawModel,
        inputs: *const *mut C_tensor,
        n: usize,
        outputs: *mut RawOutput,
        room: usize,
        count: *mut usize,
    ) -> *mut c_char;
    pub(crate) fn bulkhead_streams_new(
        ordinal: c_int,
        streams: *mut *mut RawStreams,
    ) -> *mut c_char;
    pub(crate) fn bulkhead_streams_free(streams: *mut RawStreams);
    pub(crate) fn bulkhead_streams_upload(
        streams: *mut RawStreams,
        view: *const C_tensor,
        copy: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn bulkhead_streams_uploaded(streams: *mut RawStreams) -> *mut c_char;
    pub(crate) fn bulkhead_streams_enter(
        streams: *mut RawStreams,
        inputs: *const *mut C_tensor,
        n: usize,
    ) -> *mut c_char;
    pub(crate) fn bulkhead_streams_leave(streams: *mut RawStreams) -> *mut c_char;
    pub(crate) fn bulkhead_streams_download(
        streams: *mut RawStreams,
        from: *const C_tensor,
        place: *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn bulkhead_streams_settle(streams: *mut RawStreams) -> *mut c_char;
    fn bulkhead_device_settings(settings: *const c_char) -> *mut c_char;
    fn bulkhead_device_total(ordinal: c_int, bytes: *mut u64) -> *mut c_char;
    fn bulkhead_device_peak(ordinal: c_int, bytes: *mut u64) -> *mut c_char;
    fn bulkhead_device_register(start: *const u8, bytes: usize, only_read: bool) -> *mut c_char;
    safe fn bulkhead_device_synchronize(ordinal: c_int) -> *mut c_char;
    safe fn bulkhead_set_threads(intra: c_int, inter: c_int) -> *mut c_char;
    safe fn bulkhead_disable_cudnn() -> *mut c_char;
    safe fn bulkhead_empty_cuda_cache() -> *mut c_char;
    safe fn bulkhead_load_cuda() -> *mut c_char;
    safe fn bulkhead_warm() -> *mut c_char;
    safe fn bulkhead_version() -> *mut c_char;
}

/// What a C++ exception said, as it came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TorchError(pub(crate) String);

/// Turns a shim function's answer into a result.
///
/// # Safety
/// `answer` is null or a text of the shim that nobody else frees.
pub(crate) unsafe fn check(answer: *mut c_char) -> Result<(), TorchError> {
    // SAFETY: the caller's promise is the one that `take_text` asks for.
    match unsafe { take_text(answer) } {
        None => Ok(()),
        Some(message) => Err(TorchError(message)),
    }
}

/// Copies a text of the shim and frees it; `None` for null.
///
/// # Safety
/// `text` is null or a text of the shim that nobody else frees.
pub(crate) unsafe fn take_text(text: *mut c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the shim's texts end in a zero byte, and this one is alive until it is freed below.
    let copied = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    // SAFETY: the text came from the shim, is freed here only, and no reference to it is left.
    unsafe { bulkhead_text_free(text) };
    Some(copied)
}

/// Sets how many threads one operation, and operations side by side, may use. The second number
/// can be set once in a process only.
pub(crate) fn set_threads(intra: u16, inter: u16) -> Result<(), TorchError> {
    let answer = bulkhead_set_threads(intra.into(), inter.into());
    // SAFETY: the answer is fresh from the shim.
    unsafe { check(answer) }
}

pub(crate) fn disable_cudnn() -> Result<(), TorchError> {
    let answer = bulkhead_disable_cudnn();
    // SAFETY: the answer is fresh from the shim.
    unsafe { check(answer) }
}

/// Gives memory that libtorch keeps for later back to the device; CUDA must have been loaded.
pub(crate) fn empty_cuda_cache() -> Result<(), TorchError> {
    let answer = bulkhead_empty_cuda_cache();
    // SAFETY: the answer is fresh from the shim.
    unsafe { check(answer) }
}

/// Tells the allocator of devices how to go about it; an error once it has been used.
pub(crate) fn set_allocator(settings: &CStr) -> Result<(), TorchError> {
    // SAFETY: the settings are a live zero-terminated text.
    let answer = unsafe { bulkhead_device_settings(settings.as_ptr()) };
    // SAFETY: the answer is fresh from the shim.
    unsafe { check(answer) }
}

/// Bytes that a device has.
pub(crate) fn device_total(ordinal: u16) -> Result<u64, TorchError> {
    let mut bytes = 0;
    // SAFETY: `bytes` is a place for one number.
    let answer = unsafe { bulkhead_device_total(ordinal.into(), &raw mut bytes) };
    // SAFETY: the answer is fresh from the shim.
    unsafe { check(answer) }?;
    Ok(bytes)
}

/// Most bytes of a device that the allocator held at once; an error if it was never used there.
pub(crate) fn device_peak(ordinal: u16) -> Result<u64, TorchError> {
    let mut bytes = 0;
    // SAFETY: `bytes` is a place for one number.
    let answer = unsafe { bulkhead_device_peak(ordinal.into(), &raw mut bytes) };
    // SAFETY: the answer is fresh from the shim.
    unsafe { check(answer) }?;
    Ok(bytes)
}

/// Waits for all that a device was asked to do; an error if it cannot do anything any more. -1 is the CPU.
pub(crate) fn synchronize(ordinal: c_int) -> Result<(), TorchError> {
    let answer = bulkhead_device_synchronize(ordinal);
    // SAFETY: the answer is fresh from the shim.
    unsafe { check(answer) }
}

/// Whether a device may write to pages that are registered with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registered {
    ReadOnly,
    Writable,
}

/// Pins pages for the life of the process, so that devices copy from and to them by themselves.
///
/// # Safety
/// The pages are mapped, and stay so until the process ends or no device is used any more.
pub(crate) unsafe fn register(
    start: *const u8,
    bytes: usize,
    access: Registered,
) -> Result<(), TorchError> {
    let only_read = access == Registered::ReadOnly;
    // SAFETY: the caller's promise; nothing is read or written.
    let answer = unsafe { bulkhead_device_register(start, bytes, only_read) };
    // SAFETY: the answer is fresh from the shim.
    unsafe { check(answer) }
}

/// Loads `libtorch_cuda.so` for the life of the process.
pub(crate) fn load_cuda() -> Result<(), TorchError> {
    let answer = bulkhead_load_cuda();
    // SAFETY: the answer is fresh from the shim.
    unsafe { check(answer) }
}

/// Of the libtorch whose headers this was built with, as `2.11.0`.
pub(crate) fn version() -> String {
    // SAFETY: the text is fresh from the shim.
    unsafe { take_text(bulkhead_version()) }.unwrap_or_default()
}

/// Makes, writes, reads and runs a small model in memory.
pub(crate) fn warm() -> Result<(), TorchError> {
    let answer = bulkhead_warm();
    // SAFETY: the answer is fresh from the shim.
    unsafe { check(answer) }
}
