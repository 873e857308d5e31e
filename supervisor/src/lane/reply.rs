//! A finished request whose outputs still lie in the worker's response memory.

use crate::request::{ReplyTensor, RequestError};

/// The outputs of one request. Holds the slot until it is dropped.
#[derive(Debug)]
pub struct Reply {
    tensors: Vec<ReplyTensor>,
}

impl Reply {
    /// The wanted outputs in the order in which the client named them, or in the model's.
    pub fn tensors(&self) -> &[ReplyTensor] {
        &self.tensors
    }

    /// Copies output `i` to the end of `out`: exactly `tensors()[i].len` bytes. For BYTES the
    /// copy is checked to be whole elements.
    pub fn append(&self, i: usize, out: &mut Vec<u8>) -> Result<(), RequestError> {
        unimplemented!("{i} {out:?}")
    }
}
