//! The ends that publish: requests by the supervisor, completions by the worker.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;

use crate::id::Generation;
use crate::limits::MAX_TENSORS;
use crate::memory::{MapError, Mapping};
use crate::ring::consumer::Finished;
use crate::ring::doorbell::{Sleeper, Waker};
use crate::ring::layout::{
    BELL, DOORBELL, Geometry, HEAD, Object, RequestDescriptor, ResponseDescriptor,
};
use crate::ring::table;
use crate::sync::{AtomicBool, Ordering};
use crate::sys::{futex, memfd};
use crate::tensor::TensorDesc;

#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("cannot create a memory object of {0} bytes")]
    Create(usize, #[source] Errno),
    #[error("cannot seal a memory object")]
    Seal(#[source] Errno),
    #[error(transparent)]
    Map(#[from] MapError),
}

/// Creates, maps and seals one memory object, in this order: the seal against future writes
/// forbids the writable mapping that only we may have.
pub(super) fn create(
    name: &std::ffi::CStr,
    len: usize,
    seal: memfd::Seal,
) -> Result<(OwnedFd, Mapping), CreateError> {
    let fd = memfd::create(name, len).map_err(|e| CreateError::Create(len, e))?;
    let map = Mapping::unsealed(&fd, len)?;
    memfd::seal(&fd, seal).map_err(CreateError::Seal)?;
    Ok((fd, map))
}

/// The supervisor's memory for requests to one worker generation. Slots are handed out as
/// exclusive [`SlotBytes`].
#[derive(Debug)]
pub struct RequestArena {
    map: Mapping,
    fd: OwnedFd,
    geometry: Geometry,
    taken: Vec<AtomicBool>,
}

impl RequestArena {
    pub fn create(geometry: Geometry, generation: Generation) -> Result<Arc<Self>, CreateError> {
        let len = geometry.request_object().len();
        let (fd, map) = create(c"bulkhead-requests", len, memfd::Seal::SizeAndFutureWrites)?;
        geometry.write_header(&map, generation);
        let taken = (0..geometry.slots()).map(|_| AtomicBool::new(false)).collect();
        Ok(Arc::new(Self { map, fd, geometry, taken }))
    }

    /// The descriptor to pass to the worker, who can only read through it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The bytes of `slot`, unless somebody holds them already or it does not exist.
    pub fn take(self: &Arc<Self>, slot: u32) -> Option<SlotBytes> {
        let taken = self.taken.get(slot as usize)?;
        // Partner: the Release store in `SlotBytes::drop`.
        if taken.swap(true, Ordering::Acquire) {
            return None;
        }
        Some(SlotBytes { arena: Arc::clone(self), slot })
    }

    fn object(&self) -> Object {
        self.geometry.request_object()
    }
}

/// Exclusive use of one request slot's bytes. A published slot must not be written until it was
/// answered; the lane keeps this value until then.
#[derive(Debug)]
pub struct SlotBytes {
    arena: Arc<RequestArena>,
    slot: u32,
}

impl SlotBytes {
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// The slot's data area.
    pub fn data_mut(&mut self) -> &mut [u8] {
        let start = self.arena.object().data(self.slot);
        let len = self.arena.geometry.request_bytes();
        // SAFETY: the range is this slot's alone, `self` is its only holder (`taken`), and the
        // borrow of `self` keeps further calls away; workers hold a read-only mapping (sealed).
        unsafe { self.arena.map.slice_mut(start, len) }
    }

    /// Writes the slot's tensor table; at most [`MAX_TENSORS`] entries.
    pub fn write_table<'a>(&mut self, tensors: impl Iterator<Item = &'a TensorDesc>) {
        let start = self.arena.object().table(self.slot);
        for (i, tensor) in tensors.take(MAX_TENSORS).enumerate() {
            self.arena.map.write(start + i * table::ENTRY_BYTES, &table::encode(tensor));
        }
    }
}

impl Drop for SlotBytes {
    fn drop(&mut self) {
        // Partner: the Acquire swap in `RequestArena::take`.
        self.arena.taken[self.slot as usize].store(false, Ordering::Release);
    }
}

/// Publishes requests. One per worker generation, used under the lane's lock.
#[derive(Debug)]
pub struct RequestProducer {
    arena: Arc<RequestArena>,
    head: u32,
    waker: Waker,
    sleeper: Sleeper,
}

/// Whether [`RequestArena::ring`] must be called, best after the lock was let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Wake {
    Needed,
    Awake,
}

impl RequestProducer {
    pub fn new(arena: Arc<RequestArena>) -> Self {
        Self { arena, head: 0, waker: Waker::default(), sleeper: Sleeper::default() }
    }

    /// Publishes one request. The ring cannot overflow: a slot has at most one request in flight
    /// and the ring has a place for every slot.
    ///
    /// `responses` holds the worker's doorbell word.
    pub fn publish(&mut self, request: &RequestDescriptor, responses: &Mapping) -> Wake {
        let at = self.arena.object().descriptor(self.head);
        self.arena.map.write(at, &request.encode());
        self.head = self.head.wrapping_add(1);
        // Partner: the Acquire load in `RequestConsumer::take`.
        self.arena.map.word(HEAD).store(self.head, Ordering::Release);
        if self.waker.must_wake(responses.word(DOORBELL)) { Wake::Needed } else { Wake::Awake }
    }

    /// Says that the supervisor is about to sleep: it must look at the completions once more.
    pub fn announce_sleep(&mut self) {
        self.sleeper.announce(self.arena.map.word(DOORBELL));
    }

    /// Says that the supervisor looks at completions by itself again.
    pub fn announce_awake(&self) {
        self.sleeper.awake(self.arena.map.word(DOORBELL));
    }
}

impl RequestArena {
    /// Wakes the worker.
    pub fn ring(&self) {
        let bell = self.map.word(BELL);
        // Rings may race; the count only has to change after the sleeper has read it, so it is an
        // atomic addition. Partner: the load in `RequestConsumer::sleep`.
        bell.fetch_add(1, Ordering::Release);
        futex::wake(bell, 1);
    }
}

/// The worker's end that publishes completions and writes outputs.
#[derive(Debug)]
pub struct ResponseProducer {
    map: Mapping,
    geometry: Geometry,
    generation: Generation,
    head: u32,
    waker: Waker,
}

impl ResponseProducer {
    pub(super) fn new(map: Mapping, geometry: Geometry, generation: Generation) -> Self {
        Self { map, geometry, generation, head: 0, waker: Waker::default() }
    }

    pub fn generation(&self) -> Generation {
        self.generation
    }

    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The response object.
    pub fn map(&self) -> &Mapping {
        &self.map
    }

    /// The data area of a response slot.
    pub fn data_mut(&mut self, slot: u32) -> &mut [u8] {
        assert!(slot < self.geometry.slots(), "a slot that exists");
        let start = self.geometry.response_object().data(slot);
        let len = self.geometry.response_bytes();
        // SAFETY: only this process writes the response object, `&mut self` makes this the only
        // reference into it, and the supervisor reads a slot only after its completion.
        unsafe { self.map.slice_mut(start, len) }
    }

    pub fn write_table(&mut self, slot: u32, tensors: &[TensorDesc]) {
        assert!(slot < self.geometry.slots(), "a slot that exists");
        let start = self.geometry.response_object().table(slot);
        for (i, tensor) in tensors.iter().take(MAX_TENSORS).enumerate() {
            self.map.write(start + i * table::ENTRY_BYTES, &table::encode(tensor));
        }
    }

    /// Publishes the completion of a request whose inputs are no longer borrowed. Returns whether
    /// the supervisor must be rung; `requests` is the request object, which holds its doorbell.
    pub fn publish(
        &mut self,
        completion: &ResponseDescriptor,
        finished: &Finished,
        requests: &crate::memory::ReadOnlyMapping,
    ) -> Wake {
        debug_assert_eq!((completion.request, completion.slot), (finished.request, finished.slot));
        self.publish_raw(&completion.encode());
        if self.waker.must_wake(requests.word(DOORBELL)) { Wake::Needed } else { Wake::Awake }
    }

    /// Publishes any 64 bytes, as a hostile worker would. For fault tests.
    pub fn publish_raw(&mut self, descriptor: &[u8; 64]) {
        let at = self.geometry.response_object().descriptor(self.head);
        self.map.write(at, descriptor);
        self.head = self.head.wrapping_add(1);
        // Partner: the Acquire load in `ResponseConsumer::next`.
        self.map.word(HEAD).store(self.head, Ordering::Release);
    }

    /// Publishes what was published last once more, as a hostile worker would. For fault tests.
    pub fn replay(&mut self) {
        let mut last = [0; 64];
        let at = self.geometry.response_object().descriptor(self.head.wrapping_sub(1));
        self.map.read(at, &mut last);
        self.publish_raw(&last);
    }

    /// Everything this worker can write, as a hostile worker would use it. For fault tests.
    pub fn scribble(&mut self, byte: u8) {
        let page = [byte; 4096];
        for start in (0..self.map.len()).step_by(page.len()) {
            let len = page.len().min(self.map.len() - start);
            self.map.write(start, &page[..len]);
        }
    }

    /// The worker's doorbell word and its response object.
    pub(super) fn doorbell(&self) -> &crate::sync::AtomicU32 {
        self.map.word(DOORBELL)
    }
}
