//! What lies where in the two memory objects, and the descriptors that travel in the rings.
//!
//! ```text
//! object:  header page | ring of 64-byte descriptors | slot tables | slot data
//! header:  line 0: magic, version, generation, sizes (request object only)
//!          line 1: head, the number of descriptors published so far (wraps)
//!          line 2: the doorbell word of the side that reads the *other* object
//!          line 3: the bell, a futex word that counts wakes (request object only)
//! ```
//! Offsets, never pointers; each index has a cache line of its own. Large data areas start on
//! 2 MiB so that they can become huge pages.

use crate::id::{Generation, RequestId};
use crate::limits::{MAX_SLOT_BYTES, MAX_SLOTS, MAX_TENSORS, MIN_SLOT_BYTES};
use crate::memory::{Mapping, ReadOnlyMapping};
use crate::ring::table::ENTRY_BYTES;

pub const MAGIC: u64 = u64::from_le_bytes(*b"BULKHEAD");
/// Changes with any change of layout; supervisor and worker must agree.
pub const LAYOUT_VERSION: u64 = 1;

pub(super) const PAGE: usize = 4096;
const HUGE_PAGE: usize = 2 << 20;
pub(super) const HEAD: usize = 64;
pub(super) const DOORBELL: usize = 128;
pub(super) const BELL: usize = 192;
pub(super) const DESCRIPTOR_BYTES: usize = 64;
const TABLE_BYTES: usize = MAX_TENSORS * ENTRY_BYTES;

/// The sizes that both sides compute everything else from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    slots: u32,
    request_bytes: usize,
    response_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGeometry {
    #[error("a worker has 1 to {MAX_SLOTS} slots, not {0}")]
    Slots(u32),
    #[error("a slot has {MIN_SLOT_BYTES} to {MAX_SLOT_BYTES} bytes, not {0}")]
    SlotBytes(usize),
    #[error("this is not a request object of layout version {LAYOUT_VERSION}")]
    Header,
}

impl Geometry {
    /// `request_bytes` and `response_bytes` are the data areas of one slot; they are rounded up
    /// to whole pages.
    pub fn new(
        slots: u32,
        request_bytes: usize,
        response_bytes: usize,
    ) -> Result<Self, InvalidGeometry> {
        if slots == 0 || slots as usize > MAX_SLOTS {
            return Err(InvalidGeometry::Slots(slots));
        }
        for bytes in [request_bytes, response_bytes] {
            if !(MIN_SLOT_BYTES..=MAX_SLOT_BYTES).contains(&bytes) {
                return Err(InvalidGeometry::SlotBytes(bytes));
            }
        }
        let page = |bytes: usize| bytes.next_multiple_of(PAGE);
        Ok(Self { slots, request_bytes: page(request_bytes), response_bytes: page(response_bytes) })
    }

    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Bytes of one slot's data area in the request object.
    pub fn request_bytes(&self) -> usize {
        self.request_bytes
    }

    /// Bytes of one slot's data area in the response object.
    pub fn response_bytes(&self) -> usize {
        self.response_bytes
    }

    /// Descriptors that a ring holds: a power of two, at least one for each slot.
    pub fn capacity(&self) -> u32 {
        self.slots.next_power_of_two()
    }

    pub(super) fn request_object(&self) -> Object {
        Object { geometry: *self, data_bytes: self.request_bytes }
    }

    pub(super) fn response_object(&self) -> Object {
        Object { geometry: *self, data_bytes: self.response_bytes }
    }

    /// Total bytes of both objects, as the memory ledger counts them.
    pub fn total_bytes(&self) -> usize {
        self.request_object().len() + self.response_object().len()
    }

    pub(super) fn write_header(&self, map: &Mapping, generation: Generation) {
        let words = [
            MAGIC,
            LAYOUT_VERSION,
            generation.0,
            u64::from(self.slots),
            self.request_bytes as u64,
            self.response_bytes as u64,
        ];
        for (i, word) in words.iter().enumerate() {
            map.write(i * 8, &word.to_le_bytes());
        }
    }

    /// Reads the header of a request object whose size is not known yet from its first page.
    pub(super) fn read_header(
        first_page: &ReadOnlyMapping,
    ) -> Result<(Self, Generation), InvalidGeometry> {
        // SAFETY: the supervisor wrote the header before it sent the object and never changes it.
        let bytes = unsafe { first_page.slice(0, 48) };
        let words: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|w| u64::from_le_bytes(w.try_into().expect("chunks of eight")))
            .collect();
        let [MAGIC, LAYOUT_VERSION, generation, slots, request, response] = words[..] else {
            return Err(InvalidGeometry::Header);
        };
        let small = |n: u64| usize::try_from(n).map_err(|_| InvalidGeometry::Header);
        let slots = u32::try_from(slots).map_err(|_| InvalidGeometry::Header)?;
        let geometry = Self::new(slots, small(request)?, small(response)?)?;
        Ok((geometry, Generation(generation)))
    }
}

/// Offsets inside one of the two objects.
#[derive(Clone, Copy, Debug)]
pub(super) struct Object {
    geometry: Geometry,
    data_bytes: usize,
}

impl Object {
    pub(super) fn descriptor(&self, index: u32) -> usize {
        PAGE + (index & (self.geometry.capacity() - 1)) as usize * DESCRIPTOR_BYTES
    }

    pub(super) fn table(&self, slot: u32) -> usize {
        let ring = self.geometry.capacity() as usize * DESCRIPTOR_BYTES;
        PAGE + ring.next_multiple_of(PAGE) + slot as usize * TABLE_BYTES
    }

    pub(super) fn data(&self, slot: u32) -> usize {
        let align = if self.data_bytes >= HUGE_PAGE { HUGE_PAGE } else { PAGE };
        let first = self.table(self.geometry.slots).next_multiple_of(align);
        first + slot as usize * self.data_bytes.next_multiple_of(align)
    }

    pub(super) fn len(&self) -> usize {
        self.data(self.geometry.slots)
    }
}

/// Where a request's or reply's tensor bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Slot,
    /// In a memory object of its own of that many bytes, which travelled on the control socket.
    Own(usize),
}

impl Place {
    fn code(self) -> u64 {
        match self {
            Self::Slot => 0,
            Self::Own(len) => len as u64,
        }
    }

    fn from_code(code: u64) -> Option<Self> {
        match code {
            0 => Some(Self::Slot),
            len => usize::try_from(len).ok().map(Self::Own),
        }
    }
}

/// One published request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestDescriptor {
    pub request: RequestId,
    pub slot: u32,
    /// Entries in the slot's table.
    pub tensors: u32,
    /// Outputs that are wanted, a bit each.
    pub wanted: u64,
    /// `CLOCK_MONOTONIC` nanoseconds after which nobody waits for the answer.
    pub deadline: u64,
    pub place: Place,
}

impl RequestDescriptor {
    pub fn encode(&self) -> [u8; DESCRIPTOR_BYTES] {
        let counts = u64::from(self.slot) | u64::from(self.tensors) << 32;
        words([self.request.0, counts, self.wanted, self.deadline, self.place.code(), 0, 0, 0])
    }

    /// `None` if a number is out of range, which the supervisor never writes.
    pub fn decode(bytes: &[u8; DESCRIPTOR_BYTES]) -> Option<Self> {
        let [request, counts, wanted, deadline, place, ..] = unwords(bytes);
        let (slot, tensors) = halves(counts);
        let place = Place::from_code(place)?;
        Some(Self { request: RequestId(request), slot, tensors, wanted, deadline, place })
    }
}

/// How a request ended in the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    Ok = 0,
    /// The input cannot be taken; the slot's data holds the message.
    InvalidInput = 1,
    /// The model raised an error; the slot's data holds the message.
    Model = 2,
    OutOfMemory = 3,
    /// The deadline had passed before the worker came to it; it was not run.
    Expired = 4,
}

impl Status {
    fn from_code(code: u32) -> Option<Self> {
        [Self::Ok, Self::InvalidInput, Self::Model, Self::OutOfMemory, Self::Expired]
            .into_iter()
            .find(|&s| s as u32 == code)
    }
}

/// One completion. The supervisor copies it, then believes none of it unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseDescriptor {
    pub request: RequestId,
    pub generation: Generation,
    pub slot: u32,
    /// Entries in the slot's table.
    pub tensors: u32,
    pub status: Status,
    /// Bytes of the message at the start of the slot's data, for a status other than Ok.
    pub message_len: u32,
    /// Time in the engine by the worker's own clock, for statistics only.
    pub compute_nanos: u64,
    pub place: Place,
}

impl ResponseDescriptor {
    pub fn encode(&self) -> [u8; DESCRIPTOR_BYTES] {
        let counts = u64::from(self.slot) | u64::from(self.tensors) << 32;
        let outcome = u64::from(self.status as u32) | u64::from(self.message_len) << 32;
        let place = self.place.code();
        let (request, generation) = (self.request.0, self.generation.0);
        words([request, generation, counts, outcome, self.compute_nanos, place, 0, 0])
    }

    /// `None` if a number is out of range.
    pub fn decode(bytes: &[u8; DESCRIPTOR_BYTES]) -> Option<Self> {
        let [request, generation, counts, outcome, compute_nanos, place, ..] = unwords(bytes);
        let (slot, tensors) = halves(counts);
        let (status, message_len) = halves(outcome);
        Some(Self {
            request: RequestId(request),
            generation: Generation(generation),
            slot,
            tensors,
            status: Status::from_code(status)?,
            message_len,
            compute_nanos,
            place: Place::from_code(place)?,
        })
    }
}

fn words(words: [u64; 8]) -> [u8; DESCRIPTOR_BYTES] {
    let mut bytes = [0; DESCRIPTOR_BYTES];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn unwords(bytes: &[u8; DESCRIPTOR_BYTES]) -> [u64; 8] {
    let mut words = [0; 8];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(chunk.try_into().expect("chunks of eight"));
    }
    words
}

#[expect(clippy::cast_possible_truncation, reason = "each half of a word is 32 bits")]
fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

const _: () = {
    assert!(HEAD + 4 <= DOORBELL && DOORBELL + 4 <= BELL && BELL + 4 <= PAGE);
    assert!(TABLE_BYTES.is_multiple_of(PAGE));
    assert!(PAGE.is_multiple_of(DESCRIPTOR_BYTES));
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_overlaps() {
        let geometry = Geometry::new(3, 5000, 3 << 20).unwrap();
        let request = geometry.request_object();
        assert_eq!((geometry.capacity(), geometry.request_bytes()), (4, 8192));
        assert!(request.descriptor(3) + DESCRIPTOR_BYTES <= request.table(0));
        assert_eq!(request.descriptor(4), request.descriptor(0), "the ring wraps");
        assert!(request.table(2) + TABLE_BYTES <= request.data(0));
        assert_eq!(request.data(1) - request.data(0), 8192);
        let response = geometry.response_object();
        assert!(response.data(0).is_multiple_of(HUGE_PAGE));
        assert!(response.data(2) + geometry.response_bytes() <= response.len());
    }

    #[test]
    fn silly_sizes_are_refused() {
        assert!(Geometry::new(0, 4096, 4096).is_err());
        assert!(Geometry::new(257, 4096, 4096).is_err());
        assert!(Geometry::new(1, 0, 4096).is_err());
        assert!(Geometry::new(1, 4096, MAX_SLOT_BYTES + 1).is_err());
    }

    proptest! {
        #[test]
        fn descriptors_decode_to_what_was_encoded(raw: [u64; 8]) {
            if let Some(d) = ResponseDescriptor::decode(&words(raw)) {
                prop_assert_eq!(ResponseDescriptor::decode(&d.encode()), Some(d));
            }
            if let Some(d) = RequestDescriptor::decode(&words(raw)) {
                prop_assert_eq!(RequestDescriptor::decode(&d.encode()), Some(d));
            }
        }
    }
}
