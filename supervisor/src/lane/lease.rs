//! A slot that is being filled with a request.

use std::sync::Arc;

use proto::codec;
use proto::control::Handover;
use shared::clock::MonotonicNanos;
use shared::id::RequestId;
use shared::limits::TENSOR_ALIGN;
use shared::memory::OwnObject;
use shared::ring::layout::{Place, RequestDescriptor};
use shared::ring::producer::SlotBytes;
use shared::sys::socket::{self, Wait};
use shared::tensor::{DataType, Shape, TensorDesc};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::pending::Pending;
use super::transport::{Lane, Published, slot_of};
use crate::request::{RequestError, What};

/// One input that will be written: what the worker will be told of it.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    /// Index into the model's inputs.
    pub index: u32,
    pub dtype: DataType,
    /// As the model sees it.
    pub shape: Shape,
    pub len: usize,
}

/// A slot that one request has to itself, and room for its inputs: in the slot, or in a memory
/// object of their own if they do not fit.
#[derive(Debug)]
pub struct Lease {
    lane: Arc<Lane>,
    /// `None` once it was passed on.
    bytes: Option<SlotBytes>,
    tensors: Vec<TensorDesc>,
    object: Option<OwnObject>,
}

impl Lease {
    pub(super) fn new(lane: Arc<Lane>, bytes: SlotBytes) -> Self {
        Self { lane, bytes: Some(bytes), tensors: Vec::new(), object: None }
    }

    /// Lays the inputs out one after the other, each on a cache line. Called once.
    pub fn lay_out(&mut self, inputs: &[Input]) -> Result<(), RequestError> {
        let mut end = 0_usize;
        for input in inputs {
            let offset = end.next_multiple_of(TENSOR_ALIGN);
            end = offset.saturating_add(input.len);
            let Input { index, dtype, shape, len } = *input;
            self.tensors.push(TensorDesc { index, dtype, shape, offset, len });
        }
        if end > self.lane.slot_bytes() {
            let object = OwnObject::create(end).map_err(|error| {
                RequestError::new(What::Internal, format!("no memory for the inputs: {error}"))
            })?;
            self.object = Some(object);
        }
        Ok(())
    }

    /// The bytes of input `i` of the layout.
    pub fn input_mut(&mut self, i: usize) -> &mut [u8] {
        let TensorDesc { offset, len, .. } = self.tensors[i];
        let memory = match (&mut self.object, &mut self.bytes) {
            (Some(object), _) => object.bytes_mut(),
            (None, Some(bytes)) => bytes.data_mut(),
            (None, None) => unreachable!("the slot is passed on only by `publish`, which consumes"),
        };
        &mut memory[offset..offset + len]
    }

    /// Publishes the request. The worker may see it from now on. If the worker has ended before it
    /// could, the filled slot comes back, so that its bytes can be given to another.
    pub fn publish(
        mut self,
        request: RequestId,
        wanted: u64,
        deadline: Instant,
    ) -> Result<Pending, Unpublished> {
        let mut bytes = self.bytes.take().expect("taken here only, and this consumes");
        let slot = slot_of(&bytes);
        bytes.write_table(self.tensors.iter());
        let place = match self.hand_over(request) {
            Ok(place) => place,
            Err(error) => {
                self.bytes = Some(bytes);
                return Err(Unpublished { error, lease: self });
            }
        };
        let descriptor = RequestDescriptor {
            request,
            slot: u32::from(slot),
            tensors: u32::try_from(self.tensors.len()).expect("at most MAX_TENSORS"),
            wanted,
            deadline: monotonic(deadline).0,
            place,
        };
        let (reply, answer) = oneshot::channel();
        match self.lane.publish(slot, &descriptor, Published { reply, bytes }) {
            Ok(()) => Ok(Pending::new(Arc::clone(&self.lane), slot, request, answer)),
            Err((_closed, published)) => {
                self.bytes = Some(published.bytes);
                let message = "the worker ended before it was given the request";
                let error = RequestError::new(What::NotReady, message);
                Err(Unpublished { error, lease: self })
            }
        }
    }

    /// Sends a memory object ahead of the request that uses it.
    fn hand_over(&self, request: RequestId) -> Result<Place, RequestError> {
        let Some(object) = &self.object else { return Ok(Place::Slot) };
        let packet = codec::encode(&Handover { request: request.0 }).expect("a small message");
        socket::send(self.lane.socket(), &packet, &[object.fd()], Wait::Never).map_err(
            |error| {
                let message =
                    format!("the worker does not take large inputs at the moment: {error}");
                RequestError::new(What::QueueFull, message)
            },
        )?;
        let last = self.tensors.last().map_or(0, |t| t.offset + t.len);
        Ok(Place::Own(last))
    }
}

/// A request that no worker has seen.
#[derive(Debug)]
pub struct Unpublished {
    pub error: RequestError,
    pub lease: Lease,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(bytes) = self.bytes.take() {
            let slot = slot_of(&bytes);
            drop(bytes);
            self.lane.release(slot);
        }
    }
}

fn monotonic(deadline: Instant) -> MonotonicNanos {
    MonotonicNanos::now().after(deadline.saturating_duration_since(Instant::now()))
}
