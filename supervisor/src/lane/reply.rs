//! A finished request whose outputs still lie in the worker's response memory.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use shared::elements;
use shared::limits::{MAX_ERROR_BYTES, MAX_TENSOR_BYTES};
use shared::memory::ForeignObject;
use shared::ring::layout::{Place, ResponseDescriptor, Status};
use shared::ring::table::Violation;
use shared::tensor::{DataType, TensorDesc};
use shared::text::clean_lines;

use super::filled::Filled;
use super::transport::{Lane, accept, slot_of};
use crate::request::{ReplyTensor, RequestError, What};

/// A completion that fits a request in flight; the rest of it is not checked yet. Holds the slot.
#[derive(Debug)]
pub struct Completed {
    lane: Arc<Lane>,
    slot: u16,
    /// Given back before the slot is released.
    filled: Option<Filled>,
    descriptor: ResponseDescriptor,
    object: Option<OwnedFd>,
}

/// What the caller expects of a reply.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// How many outputs the model has.
    pub known: u32,
    /// Those that were asked for, a bit each.
    pub wanted: u64,
    /// Their indices in the order in which they were asked for; empty for all in the model's order.
    pub order: Vec<u32>,
}

/// The outputs of one request. Holds the slot until it is dropped.
#[derive(Debug)]
pub struct Reply {
    completed: Completed,
    object: Option<ForeignObject>,
    descs: Vec<TensorDesc>,
    tensors: Vec<ReplyTensor>,
}

impl Completed {
    pub(super) fn new(
        lane: Arc<Lane>,
        filled: Filled,
        descriptor: ResponseDescriptor,
        object: Option<OwnedFd>,
    ) -> Self {
        Self { lane, slot: slot_of(&filled.bytes), filled: Some(filled), descriptor, object }
    }

    /// Whether the engine has seen the request, as the worker says.
    pub fn was_run(&self) -> bool {
        match self.descriptor.status {
            Status::Ok | Status::InvalidInput | Status::Model | Status::OutOfMemory => true,
            Status::Expired => false,
        }
    }

    /// Time in the engine, as the worker says.
    pub fn compute_time(&self) -> Duration {
        Duration::from_nanos(self.descriptor.compute_nanos)
    }

    /// Checks what the worker wrote. `name` gives the tensor that the client sees for an output:
    /// its index and what the worker said of it.
    pub fn into_reply(
        mut self,
        expected: &Outputs,
        name: impl Fn(&TensorDesc) -> Result<ReplyTensor, RequestError>,
    ) -> Result<Reply, RequestError> {
        match self.read(expected) {
            Ok(Ok((object, descs))) => {
                let tensors = descs.iter().map(name).collect::<Result<_, _>>()?;
                Ok(Reply { completed: self, object, descs, tensors })
            }
            Ok(Err(error)) => Err(error),
            Err(violation) => {
                self.lane.violated(violation);
                let message = format!("the worker broke the protocol and was ended: {violation}");
                Err(RequestError::new(What::WorkerDied, message))
            }
        }
    }

    #[expect(clippy::type_complexity, reason = "a violation, or an error, or what was read")]
    fn read(
        &mut self,
        expected: &Outputs,
    ) -> Result<Result<(Option<ForeignObject>, Vec<TensorDesc>), RequestError>, Violation> {
        let what = match self.descriptor.status {
            Status::Ok => return self.outputs(expected).map(Ok),
            Status::InvalidInput => What::Invalid,
            Status::Model => What::Model,
            Status::OutOfMemory => What::OutOfMemory,
            Status::Expired => What::QueueTimeout,
        };
        Ok(Err(RequestError::new(what, self.message()?)))
    }

    /// The worker's message, made harmless: bounded, valid UTF-8, without control characters.
    fn message(&self) -> Result<String, Violation> {
        let len = self.descriptor.message_len as usize;
        if len > MAX_ERROR_BYTES.min(self.lane.responses.slot_bytes()) {
            return Err(Violation::Message);
        }
        let mut bytes = Vec::new();
        self.lane.responses.append(u32::from(self.slot), 0, len, &mut bytes);
        Ok(clean_lines(&String::from_utf8_lossy(&bytes), MAX_ERROR_BYTES))
    }

    fn outputs(
        &mut self,
        expected: &Outputs,
    ) -> Result<(Option<ForeignObject>, Vec<TensorDesc>), Violation> {
        let (object, memory) = match (self.descriptor.place, self.object.take()) {
            (Place::Slot, _) => (None, self.lane.responses.slot_bytes()),
            (Place::Own(len), Some(fd)) if len <= MAX_TENSOR_BYTES => (Some(accept(fd, len)?), len),
            (Place::Own(_), Some(_)) => return Err(Violation::BadObject),
            (Place::Own(_), None) => return Err(Violation::MissingObject),
        };
        let mut open = expected.wanted;
        let mut descs = Vec::with_capacity(self.descriptor.tensors as usize);
        for i in 0..self.descriptor.tensors {
            let desc = self.lane.responses.entry(u32::from(self.slot), i, memory)?;
            let bit = 1_u64.checked_shl(desc.index).unwrap_or(0);
            if desc.index >= expected.known || open & bit == 0 {
                return Err(Violation::Output);
            }
            open &= !bit;
            descs.push(desc);
        }
        if open != 0 {
            return Err(Violation::Output);
        }
        let place = |index| expected.order.iter().position(|&asked| asked == index);
        descs.sort_unstable_by_key(|desc| (place(desc.index), desc.index));
        Ok((object, descs))
    }
}

impl Drop for Completed {
    fn drop(&mut self) {
        drop(self.filled.take());
        self.lane.release(self.slot);
    }
}

impl Reply {
    /// The wanted outputs in the order in which the client named them, or in the model's.
    pub fn tensors(&self) -> &[ReplyTensor] {
        &self.tensors
    }

    /// What the worker said of each, before any reshaping for the client.
    pub fn descs(&self) -> &[TensorDesc] {
        &self.descs
    }

    /// Copies output `i` to the end of `out`: exactly `tensors()[i].len` bytes. For BYTES the
    /// copy is checked to be whole elements, as many as the shape says.
    pub fn append(&self, i: usize, out: &mut Vec<u8>) -> Result<(), RequestError> {
        let start = out.len();
        let desc = &self.descs[i];
        match &self.object {
            None => {
                let slot = u32::from(self.completed.slot);
                self.completed.lane.responses.append(slot, desc.offset, desc.len, out);
            }
            Some(object) => object.append(desc.offset, desc.len, out).map_err(|error| {
                RequestError::new(What::WorkerDied, format!("cannot read the outputs: {error}"))
            })?,
        }
        let count = desc.shape.elements();
        if desc.dtype == DataType::Bytes && elements::check(&out[start..], count).is_err() {
            self.completed.lane.violated(Violation::Length);
            let message = "the worker's BYTES output does not hold the elements of its shape";
            return Err(RequestError::new(What::WorkerDied, message));
        }
        Ok(())
    }
}
