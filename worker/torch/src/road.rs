//! How the tensors of a request get to where the model runs, and its outputs back.

use std::ffi::c_int;

use shared::tensor::{DataType, Shape};
use tch::Tensor;

use crate::cuda::Gpu;
use crate::ffi::TorchError;
use crate::streams::Streams;
use crate::tensors::{self, ViewError};

#[derive(Debug)]
pub(crate) enum Road {
    /// On the CPU: a request is computed where its bytes lie.
    Host,
    /// To a device and back, one step after the other.
    InTurn(Gpu),
    /// To a device and back, each way beside the computation.
    Beside(Gpu, Streams),
}

/// Whether a model runs on streams of ours. It must not if it starts tasks, whose threads know nothing of
/// them, or keeps its inputs; nor if it spreads over devices, each of which has streams of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manners {
    Plain,
    Odd,
}

impl Road {
    /// Once the model is loaded, on the thread that will run it.
    pub(crate) fn new(gpu: Option<Gpu>, manners: Manners) -> Result<Self, TorchError> {
        let Some(gpu) = gpu else { return Ok(Self::Host) };
        match (gpu.only(), manners) {
            (Some(ordinal), Manners::Plain) => {
                let streams = Streams::new(c_int::from(ordinal))?;
                Ok(Self::Beside(gpu, streams))
            }
            (Some(_), Manners::Odd) | (None, Manners::Plain | Manners::Odd) => {
                Ok(Self::InTurn(gpu))
            }
        }
    }

    pub(crate) fn gpu(&self) -> Option<&Gpu> {
        match self {
            Self::Host => None,
            Self::InTurn(gpu) | Self::Beside(gpu, _) => Some(gpu),
        }
    }

    /// Writes a tensor into `bytes`, or begins to.
    ///
    /// # Safety
    /// On the road beside, tensor and bytes stay until the request was settled.
    pub(crate) unsafe fn write(
        &self,
        tensor: &Tensor,
        what: (DataType, Shape),
        bytes: &mut [u8],
    ) -> Result<(), ViewError> {
        match self {
            Self::Host | Self::InTurn(_) => tensors::write(tensor, what, bytes),
            Self::Beside(_, streams) => {
                // SAFETY: the bytes stay and are the request's until it was settled.
                let place = unsafe { tensors::place(what, bytes) }?;
                let Some(mut place) = place else { return Ok(()) };
                // SAFETY: the caller's promise.
                let begun = unsafe { streams.download(tensor, &mut place) };
                begun.map_err(|error| ViewError::Torch(error.0))
            }
        }
    }
}
