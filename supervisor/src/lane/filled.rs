//! The inputs of one request in memory: those of a slot, or on their way from one to another.

use shared::memory::OwnObject;
use shared::ring::producer::SlotBytes;
use shared::tensor::TensorDesc;

use crate::health::{Fingerprint, Watchlist};

/// A slot's bytes, what lies in them, and the memory object of inputs that do not fit. Whoever has
/// it has the slot: the lease, then the lane while the worker has the request, then the reply, or
/// the lease again if the worker ended.
#[derive(Debug)]
pub(super) struct Filled {
    pub(super) bytes: SlotBytes,
    pub(super) tensors: Vec<TensorDesc>,
    pub(super) object: Option<OwnObject>,
}

/// A request's inputs without a slot, between two workers.
#[derive(Debug)]
pub struct Stash {
    pub(super) tensors: Vec<TensorDesc>,
    pub(super) memory: Memory,
}

#[derive(Debug)]
pub(super) enum Memory {
    /// Copied out of the slot, one tensor after the other without padding.
    Copied(Vec<u8>),
    /// The object goes to the next worker as it is: the last one could only read it.
    Object(OwnObject),
}

impl Filled {
    pub(super) fn new(bytes: SlotBytes) -> Self {
        Self { bytes, tensors: Vec::new(), object: None }
    }

    /// The bytes of input `i`.
    pub(super) fn input_mut(&mut self, i: usize) -> &mut [u8] {
        let TensorDesc { offset, len, .. } = self.tensors[i];
        let memory = match &mut self.object {
            Some(object) => object.bytes_mut(),
            None => self.bytes.data_mut(),
        };
        &mut memory[offset..offset + len]
    }

    /// Bytes of all inputs together.
    pub(super) fn len(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.len).sum()
    }

    /// Takes as long as it takes to read all bytes.
    pub(super) fn fingerprint(&mut self, watchlist: &Watchlist, wanted: u64) -> Fingerprint {
        let mut prints = watchlist.prints(wanted);
        for i in 0..self.tensors.len() {
            let desc = self.tensors[i];
            prints.input(&desc, self.input_mut(i));
        }
        prints.finish()
    }

    /// Takes the inputs out and leaves an empty slot.
    pub(super) fn stash(&mut self) -> Stash {
        let memory = match self.object.take() {
            Some(object) => Memory::Object(object),
            None => {
                let mut copied = Vec::with_capacity(self.len());
                for i in 0..self.tensors.len() {
                    copied.extend_from_slice(self.input_mut(i));
                }
                Memory::Copied(copied)
            }
        };
        Stash { tensors: std::mem::take(&mut self.tensors), memory }
    }
}
