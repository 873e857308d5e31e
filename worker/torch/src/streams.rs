//! Three streams of a device: a request is copied in on one, computed on another and copied out on the
//! third, so that a request can be copied in while the one before it is computed.
//!
//! Whoever begins a copy here promises that its memory stays; whoever cannot wait for the promise to be
//! kept drops nothing, since what a lost device is asked to give back ends the process.

use std::ffi::c_int;
use std::ptr::{self, NonNull};

use tch::Tensor;
use torch_sys::C_tensor;

use crate::ffi::{self, RawStreams, TorchError};

/// Not `Send`: its middle stream is the current one of the thread that made it.
#[derive(Debug)]
pub(crate) struct Streams {
    raw: NonNull<RawStreams>,
}

impl Streams {
    /// -1 is the CPU, where everything is done at once.
    pub(crate) fn new(ordinal: c_int) -> Result<Self, TorchError> {
        let mut raw = ptr::null_mut();
        // SAFETY: `raw` is a place for one pointer.
        let answer = unsafe { ffi::bulkhead_streams_new(ordinal, &raw mut raw) };
        // SAFETY: the answer is fresh from the shim.
        unsafe { ffi::check(answer) }?;
        let raw = NonNull::new(raw).expect("the shim sets the pointer when it reports success");
        Ok(Self { raw })
    }

    /// Begins to copy a tensor to the device.
    ///
    /// # Safety
    /// The memory of `view` stays mapped and as it is until the copy is done: [`Streams::settle`] has
    /// returned for the request that it belongs to, or the device was synchronised. It may change sooner
    /// only if nobody looks at the copy.
    pub(crate) unsafe fn upload(&self, view: &Tensor) -> Result<Tensor, TorchError> {
        let mut copy: *mut C_tensor = ptr::null_mut();
        // SAFETY: both are alive, the view is only read, and `copy` is a place for one pointer; its memory
        // is the caller's promise.
        let answer = unsafe {
            ffi::bulkhead_streams_upload(self.raw.as_ptr(), view.as_ptr(), &raw mut copy)
        };
        // SAFETY: the answer is fresh from the shim.
        unsafe { ffi::check(answer) }?;
        // SAFETY: on success the shim has made this tensor for us alone, and it is adopted once.
        Ok(unsafe { Tensor::from_ptr(copy) })
    }

    /// After the last upload of a request.
    pub(crate) fn uploaded(&self) -> Result<(), TorchError> {
        // SAFETY: the streams are alive.
        let answer = unsafe { ffi::bulkhead_streams_uploaded(self.raw.as_ptr()) };
        // SAFETY: the answer is fresh from the shim.
        unsafe { ffi::check(answer) }
    }

    /// Before a request is computed.
    pub(crate) fn enter(&self, inputs: &[Option<Tensor>]) -> Result<(), TorchError> {
        let inputs: Vec<*mut C_tensor> = inputs
            .iter()
            .map(|input| input.as_ref().map_or(ptr::null_mut(), |t| t.as_ptr().cast_mut()))
            .collect();
        // SAFETY: the streams are alive, and there are as many pointers as are named, each null or a
        // live tensor.
        let answer = unsafe {
            ffi::bulkhead_streams_enter(self.raw.as_ptr(), inputs.as_ptr(), inputs.len())
        };
        // SAFETY: the answer is fresh from the shim.
        unsafe { ffi::check(answer) }
    }

    /// After a request was computed, before the first download.
    pub(crate) fn leave(&self) -> Result<(), TorchError> {
        // SAFETY: the streams are alive.
        let answer = unsafe { ffi::bulkhead_streams_leave(self.raw.as_ptr()) };
        // SAFETY: the answer is fresh from the shim.
        unsafe { ffi::check(answer) }
    }

    /// Begins to copy a tensor into `place`, which is one of the CPU.
    ///
    /// # Safety
    /// As of [`Streams::upload`], for the memory of both.
    pub(crate) unsafe fn download(
        &self,
        from: &Tensor,
        place: &mut Tensor,
    ) -> Result<(), TorchError> {
        let place = place.as_mut_ptr();
        // SAFETY: all three are alive, the source is only read, and `place` is borrowed mutably; their
        // memory is the caller's promise.
        let answer =
            unsafe { ffi::bulkhead_streams_download(self.raw.as_ptr(), from.as_ptr(), place) };
        // SAFETY: the answer is fresh from the shim.
        unsafe { ffi::check(answer) }
    }

    /// Waits until everything of the request that was left is done.
    pub(crate) fn settle(&self) -> Result<(), TorchError> {
        // SAFETY: the streams are alive.
        let answer = unsafe { ffi::bulkhead_streams_settle(self.raw.as_ptr()) };
        // SAFETY: the answer is fresh from the shim.
        unsafe { ffi::check(answer) }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `bulkhead_streams_new` and is freed here only.
        unsafe { ffi::bulkhead_streams_free(self.raw.as_ptr()) }
    }
}
