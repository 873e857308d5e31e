//! A slot that is being filled with a request.

use std::sync::Arc;

use nix::errno::Errno;
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

use super::filled::{Filled, Memory, Stash};
use super::pending::Pending;
use super::transport::{Lane, Published, slot_of};
use crate::health::{Fingerprint, Watchlist};
use crate::heavy::heavy;
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
    filled: Option<Filled>,
}

/// Who the worker is to answer, and with what.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    pub request: RequestId,
    /// A bit for each output.
    pub wanted: u64,
    pub deadline: Instant,
}

impl Lease {
    pub(super) fn new(lane: Arc<Lane>, bytes: SlotBytes) -> Self {
        Self::again(lane, Filled::new(bytes))
    }

    /// A slot that was published and comes back with what is in it.
    pub(super) fn again(lane: Arc<Lane>, filled: Filled) -> Self {
        Self { lane, filled: Some(filled) }
    }

    /// Lays the inputs out one after the other, each on a cache line. Called once.
    pub fn lay_out(&mut self, inputs: &[Input]) -> Result<(), RequestError> {
        let mut end = 0_usize;
        let mut place = |input: &Input| {
            let offset = end.next_multiple_of(TENSOR_ALIGN);
            end = offset.saturating_add(input.len);
            let Input { index, dtype, shape, len } = *input;
            TensorDesc { index, dtype, shape, offset, len }
        };
        let tensors = inputs.iter().map(&mut place).collect();
        self.make_room(tensors)
    }

    fn make_room(&mut self, tensors: Vec<TensorDesc>) -> Result<(), RequestError> {
        let end = end_of(&tensors);
        let slot_bytes = self.lane.slot_bytes();
        let filled = self.filled_mut();
        filled.tensors = tensors;
        if end > slot_bytes {
            let object = OwnObject::create(end).map_err(|error| {
                RequestError::new(What::Internal, format!("no memory for the inputs: {error}"))
            })?;
            filled.object = Some(object);
        }
        Ok(())
    }

    /// The bytes of input `i` of the layout.
    pub fn input_mut(&mut self, i: usize) -> &mut [u8] {
        self.filled_mut().input_mut(i)
    }

    /// What stands for this request in `watchlist`. Reads all of its bytes.
    pub fn fingerprint(&mut self, watchlist: &Watchlist, wanted: u64) -> Fingerprint {
        let filled = self.filled_mut();
        heavy(filled.len(), || filled.fingerprint(watchlist, wanted))
    }

    /// Takes the inputs out and gives the slot back.
    pub fn stash(mut self) -> Stash {
        let filled = self.filled_mut();
        let copied = if filled.object.is_some() { 0 } else { filled.len() };
        heavy(copied, || filled.stash())
    }

    /// Puts inputs into this slot that were taken out of another. In the place of `lay_out`.
    pub fn restore(&mut self, stash: Stash) -> Result<(), RequestError> {
        let Stash { tensors, memory } = stash;
        let bytes = match memory {
            Memory::Object(object) => {
                let filled = self.filled_mut();
                (filled.tensors, filled.object) = (tensors, Some(object));
                return Ok(());
            }
            Memory::Copied(bytes) => bytes,
        };
        self.make_room(tensors)?;
        let filled = self.filled_mut();
        heavy(bytes.len(), || {
            let mut rest = bytes.as_slice();
            for i in 0..filled.tensors.len() {
                let input = filled.input_mut(i);
                let (own, others) = rest.split_at(input.len());
                input.copy_from_slice(own);
                rest = others;
            }
        });
        Ok(())
    }

    /// Publishes the request. The worker may see it from now on. If the worker has ended before it
    /// could, the filled slot comes back, so that its bytes can be given to another.
    pub fn publish(mut self, order: &Order) -> Result<Pending, Unpublished> {
        let Order { request, wanted, deadline } = *order;
        let place = match self.hand_over(request) {
            Ok(place) => place,
            Err(error) => return Err(Unpublished { error, lease: self }),
        };
        let mut filled = self.filled.take().expect("taken here only, and this consumes");
        let slot = slot_of(&filled.bytes);
        filled.bytes.write_table(filled.tensors.iter());
        let descriptor = RequestDescriptor {
            request,
            slot: u32::from(slot),
            tensors: u32::try_from(filled.tensors.len()).expect("at most MAX_TENSORS"),
            wanted,
            deadline: monotonic(deadline).0,
            place,
        };
        let (reply, answer) = oneshot::channel();
        match self.lane.publish(slot, &descriptor, Published { reply, filled, wanted }) {
            Ok(()) => Ok(Pending::new(Arc::clone(&self.lane), slot, request, answer)),
            Err(published) => {
                self.filled = Some(published.filled);
                Err(Unpublished { error: ended(), lease: self })
            }
        }
    }

    /// Sends a memory object ahead of the request that uses it.
    fn hand_over(&self, request: RequestId) -> Result<Place, RequestError> {
        let filled = self.filled.as_ref().expect("the slot is passed on only by `publish`");
        let Some(object) = &filled.object else { return Ok(Place::Slot) };
        let packet = codec::encode(&Handover { request: request.0 }).expect("a small message");
        match socket::send(self.lane.socket(), &packet, &[object.fd()], Wait::Never) {
            Ok(()) => Ok(Place::Own(end_of(&filled.tensors))),
            Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN) => {
                // Before its owner has seen the worker end: nobody else should try.
                self.lane.retire();
                Err(ended())
            }
            Err(error) => {
                let message =
                    format!("the worker does not take large inputs at the moment: {error}");
                Err(RequestError::new(What::QueueFull, message))
            }
        }
    }

    fn filled_mut(&mut self) -> &mut Filled {
        self.filled.as_mut().expect("the slot is passed on only by `publish`, which consumes")
    }
}

fn end_of(tensors: &[TensorDesc]) -> usize {
    tensors.last().map_or(0, |last| last.offset.saturating_add(last.len))
}

fn ended() -> RequestError {
    RequestError::new(What::NotReady, "the worker ended before it was given the request")
}

/// A request that no worker has seen.
#[derive(Debug)]
pub struct Unpublished {
    /// [`What::NotReady`] if another worker can have it.
    pub error: RequestError,
    pub lease: Lease,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(filled) = self.filled.take() {
            let slot = slot_of(&filled.bytes);
            drop(filled);
            self.lane.release(slot);
        }
    }
}

fn monotonic(deadline: Instant) -> MonotonicNanos {
    MonotonicNanos::now().after(deadline.saturating_duration_since(Instant::now()))
}
