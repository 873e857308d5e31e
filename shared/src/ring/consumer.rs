//! The ends that consume: requests in the worker, completions in the supervisor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::id::{Generation, RequestId};
use crate::limits::MAX_TENSORS;
use crate::memory::{MapError, Mapping, ReadOnlyMapping};
use crate::ring::doorbell::Sleeper;
use crate::ring::layout::{
    BELL, DESCRIPTOR_BYTES, Geometry, HEAD, InvalidGeometry, PAGE, RequestDescriptor,
    ResponseDescriptor,
};
use crate::ring::producer::{CreateError, ResponseProducer, create};
use crate::ring::table::{self, ENTRY_BYTES, Violation};
use crate::sync::Ordering;
use crate::sys::{futex, memfd};
use crate::tensor::TensorDesc;

/// The supervisor's end of one worker generation's response object. Used under the lane's lock,
/// except for [`ResponseArena`], which reads slots.
#[derive(Debug)]
pub struct ResponseConsumer {
    tail: u32,
    generation: Generation,
}

impl ResponseConsumer {
    pub fn new(generation: Generation) -> Self {
        Self { tail: 0, generation }
    }

    /// The next completion: copied once, then checked as far as it can be without the table of
    /// what is in flight.
    pub fn next(&mut self, arena: &ResponseArena) -> Result<Option<ResponseDescriptor>, Violation> {
        // Partner: the Release store in `ResponseProducer::publish_raw`.
        let head = arena.map.word(HEAD).load(Ordering::Acquire);
        let waiting = head.wrapping_sub(self.tail);
        if waiting == 0 {
            return Ok(None);
        }
        if waiting > arena.geometry.capacity() {
            return Err(Violation::HeadJump(waiting));
        }
        let mut bytes = [0; DESCRIPTOR_BYTES];
        arena.map.read(arena.geometry.response_object().descriptor(self.tail), &mut bytes);
        self.tail = self.tail.wrapping_add(1);
        let completion = ResponseDescriptor::decode(&bytes).ok_or(Violation::Descriptor)?;
        if completion.slot >= arena.geometry.slots() {
            return Err(Violation::Slot(completion.slot));
        }
        if completion.generation != self.generation {
            return Err(Violation::Generation);
        }
        if completion.tensors as usize > MAX_TENSORS {
            return Err(Violation::TensorCount(completion.tensors));
        }
        Ok(Some(completion))
    }
}

/// The response object as the supervisor sees it: memory that a hostile worker may change at any
/// moment, so it is only ever copied out of.
#[derive(Debug)]
pub struct ResponseArena {
    map: Mapping,
    fd: OwnedFd,
    geometry: Geometry,
}

impl ResponseArena {
    pub fn create(geometry: Geometry) -> Result<Self, CreateError> {
        let len = geometry.response_object().len();
        let (fd, map) = create(c"bulkhead-responses", len, memfd::Seal::Size)?;
        Ok(Self { map, fd, geometry })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The mapping, for the doorbell word that [`super::producer::RequestProducer`] reads.
    pub fn map(&self) -> &Mapping {
        &self.map
    }

    /// Copies and checks entry `i` of a slot's table, for tensors in `memory` bytes.
    pub fn entry(&self, slot: u32, i: u32, memory: usize) -> Result<TensorDesc, Violation> {
        if slot >= self.geometry.slots() || i as usize >= MAX_TENSORS {
            return Err(Violation::TensorCount(i));
        }
        let mut entry = [0; ENTRY_BYTES];
        let start = self.geometry.response_object().table(slot) + i as usize * ENTRY_BYTES;
        self.map.read(start, &mut entry);
        table::decode(&entry, memory)
    }

    /// Bytes of one slot's data area.
    pub fn slot_bytes(&self) -> usize {
        self.geometry.response_bytes()
    }

    /// Appends a part of a slot's data to `out`. The range must lie in the slot.
    pub fn append(&self, slot: u32, offset: usize, len: usize, out: &mut Vec<u8>) {
        assert!(slot < self.geometry.slots(), "a slot that exists");
        let fits = offset.checked_add(len).is_some_and(|end| end <= self.slot_bytes());
        assert!(fits, "a range inside the slot");
        let start = self.geometry.response_object().data(slot);
        self.map.append(start + offset, len, out);
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error(transparent)]
    Map(#[from] MapError),
    #[error(transparent)]
    Geometry(#[from] InvalidGeometry),
    #[error("cannot read the size of the request object")]
    Size(#[source] nix::errno::Errno),
}

/// The worker's end of the request ring.
#[derive(Debug)]
pub struct RequestConsumer {
    map: Arc<ReadOnlyMapping>,
    geometry: Geometry,
    tail: u32,
    sleeper: Sleeper,
}

/// Maps both objects in a worker, from the descriptors that came with the handshake.
pub fn attach(
    requests: OwnedFd,
    responses: OwnedFd,
) -> Result<(RequestConsumer, ResponseProducer), AttachError> {
    let len = memfd::size(&requests).map_err(AttachError::Size)?;
    if len < PAGE {
        return Err(InvalidGeometry::Header.into());
    }
    let map = ReadOnlyMapping::sealed(&requests, len)?;
    let (geometry, generation) = Geometry::read_header(&map)?;
    if geometry.request_object().len() != len {
        return Err(InvalidGeometry::Header.into());
    }
    let response_map = Mapping::sealed(responses.as_fd(), geometry.response_object().len())?;
    let map = Arc::new(map);
    let consumer = RequestConsumer { map, geometry, tail: 0, sleeper: Sleeper::default() };
    Ok((consumer, ResponseProducer::new(response_map, geometry, generation)))
}

impl RequestConsumer {
    /// The next published request, if there is one.
    pub fn take(&mut self) -> Option<Taken<'_>> {
        let request = self.next()?;
        self.tail = self.tail.wrapping_add(1);
        Some(Taken { published: Published { request, consumer: self } })
    }

    /// What [`RequestConsumer::take`] would take.
    fn next(&self) -> Option<RequestDescriptor> {
        // Partner: the Release store in `RequestProducer::publish`.
        let head = self.map.word(HEAD).load(Ordering::Acquire);
        if head == self.tail {
            return None;
        }
        let at = self.geometry.request_object().descriptor(self.tail);
        // SAFETY: the supervisor does not write a published descriptor again before the ring has
        // come round, which takes as many answers as the ring has places.
        let bytes = unsafe { self.map.slice(at, DESCRIPTOR_BYTES) };
        let bytes = bytes.try_into().expect("a descriptor's length");
        Some(RequestDescriptor::decode(bytes).expect("the supervisor writes valid ones"))
    }

    /// Sleeps until something is published, or for `limit`. May return early: look again.
    /// `responses` holds this worker's doorbell word.
    pub fn sleep(&mut self, responses: &ResponseProducer, limit: Duration) {
        let bell = self.map.word(BELL);
        // Partner: the addition in `RequestArena::ring`. Read before the announcement, so that
        // every wake for this attempt changes it.
        let rung = bell.load(Ordering::Acquire);
        self.sleeper.announce(responses.doorbell());
        if self.map.word(HEAD).load(Ordering::Acquire) == self.tail {
            futex::wait(bell, rung, Some(limit));
        }
        self.sleeper.awake(responses.doorbell());
    }

    /// What another thread of this worker wakes [`RequestConsumer::sleep`] with.
    pub fn alarm(&self) -> Alarm {
        Alarm { map: Arc::clone(&self.map) }
    }

    /// The request object, which holds the supervisor's doorbell word.
    pub fn map(&self) -> &ReadOnlyMapping {
        &self.map
    }
}

/// Wakes the worker's own consumer, to make it look at something other than the ring.
///
/// A worker cannot change the bell, so a wake that comes before the consumer has reached the
/// kernel is lost: ring again until it has looked.
#[derive(Clone, Debug)]
pub struct Alarm {
    map: Arc<ReadOnlyMapping>,
}

impl Alarm {
    pub fn ring(&self) {
        futex::wake(self.map.word(BELL), 1);
    }
}

/// A request that lies in the ring and was not answered yet, so that nobody changes what it says.
#[derive(Debug)]
pub struct Published<'a> {
    pub request: RequestDescriptor,
    consumer: &'a RequestConsumer,
}

/// A request that the worker works on. Its inputs borrow it, so that they are given up before the
/// completion can be published.
#[derive(Debug)]
pub struct Taken<'a> {
    published: Published<'a>,
}

/// Proof that the inputs of a request are no longer borrowed.
#[derive(Debug)]
pub struct Finished {
    pub request: RequestId,
    pub slot: u32,
}

impl Published<'_> {
    /// Entry `i` of the slot's table, for tensors in `memory` bytes.
    pub fn entry(&self, i: u32, memory: usize) -> Result<TensorDesc, Violation> {
        let table = self.consumer.geometry.request_object().table(self.request.slot);
        // SAFETY: the supervisor does not write the table of a published slot.
        let entry =
            unsafe { self.consumer.map.slice(table + i as usize * ENTRY_BYTES, ENTRY_BYTES) };
        table::decode(entry.try_into().expect("an entry's length"), memory)
    }

    /// The slot's data area.
    pub fn data(&self) -> &[u8] {
        let start = self.consumer.geometry.request_object().data(self.request.slot);
        // SAFETY: the supervisor does not write the data of a published slot before it is answered,
        // which needs the `Finished` of a request that was taken. That ends this borrow: of what was
        // taken by consuming it, and of what lies ahead of it by consuming what that borrows.
        unsafe { self.consumer.map.slice(start, self.consumer.geometry.request_bytes()) }
    }
}

impl<'a> std::ops::Deref for Taken<'a> {
    type Target = Published<'a>;

    fn deref(&self) -> &Published<'a> {
        &self.published
    }
}

impl Taken<'_> {
    /// The request that will be taken after this one, if it is there already. It stays in the ring.
    pub fn ahead(&self) -> Option<Published<'_>> {
        let request = self.consumer.next()?;
        Some(Published { request, consumer: self.consumer })
    }

    pub fn finish(self) -> Finished {
        Finished { request: self.request.request, slot: self.request.slot }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::layout::{Place, Status};
    use crate::ring::producer::{RequestArena, RequestProducer, Wake};
    use crate::tensor::{DataType, Shape};

    struct Pair {
        arena: Arc<RequestArena>,
        responses: ResponseArena,
        down: RequestProducer,
        up: ResponseConsumer,
        worker: (RequestConsumer, ResponseProducer),
    }

    fn pair(slots: u32) -> Pair {
        let geometry = Geometry::new(slots, 4096, 4096).unwrap();
        let arena = RequestArena::create(geometry, Generation(7)).unwrap();
        let responses = ResponseArena::create(geometry).unwrap();
        let dup = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
        let worker = attach(dup(arena.fd()), dup(responses.fd())).unwrap();
        let down = RequestProducer::new(Arc::clone(&arena));
        Pair { arena, responses, down, up: ResponseConsumer::new(Generation(7)), worker }
    }

    fn request(id: u64, slot: u32) -> RequestDescriptor {
        RequestDescriptor {
            request: RequestId(id),
            slot,
            tensors: 1,
            wanted: 1,
            deadline: u64::MAX,
            place: Place::Slot,
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no memfd and no shared mappings")]
    fn bytes_go_down_and_up() {
        let mut p = pair(4);
        let mut slot = p.arena.take(2).unwrap();
        assert!(p.arena.take(2).is_none(), "held");
        slot.data_mut()[..4].copy_from_slice(&1.5_f32.to_le_bytes());
        let shape = Shape::new(&[1]).unwrap();
        let tensor = TensorDesc { index: 0, dtype: DataType::Fp32, shape, offset: 0, len: 4 };
        slot.write_table([tensor].iter());
        assert_eq!(p.down.publish(&request(9, 2), p.responses.map()), Wake::Awake);

        let (requests, responses) = &mut p.worker;
        let taken = requests.take().unwrap();
        assert_eq!(taken.entry(0, 4096), Ok(tensor));
        responses.data_mut(2)[..4].copy_from_slice(&taken.data()[..4]);
        responses.write_table(2, &[tensor]);
        let finished = taken.finish();
        let done = ResponseDescriptor {
            request: finished.request,
            generation: responses.generation(),
            slot: finished.slot,
            tensors: 1,
            status: Status::Ok,
            message_len: 0,
            compute_nanos: 5,
            place: Place::Slot,
        };
        assert_eq!(responses.publish(&done, &finished, requests.map()), Wake::Awake);

        assert_eq!(p.up.next(&p.responses), Ok(Some(done)));
        assert_eq!(p.up.next(&p.responses), Ok(None));
        assert_eq!(p.responses.entry(2, 0, 4096), Ok(tensor));
        let mut out = vec![1];
        p.responses.append(2, 0, 4, &mut out);
        assert_eq!(out[1..], 1.5_f32.to_le_bytes());
        drop(slot);
        assert!(p.arena.take(2).is_some());
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no memfd and no shared mappings")]
    fn what_is_ahead_is_seen_and_stays_in_the_ring() {
        let mut p = pair(4);
        let slots: Vec<_> = (0..3).map(|slot| p.arena.take(slot).unwrap()).collect();
        for (mut slot, id) in slots.into_iter().zip(10..) {
            let number = slot.slot();
            slot.data_mut()[0] = u8::try_from(id).unwrap();
            let _wake = p.down.publish(&request(id, number), p.responses.map());
        }
        let (requests, _) = &mut p.worker;
        for id in 10..13 {
            let taken = requests.take().unwrap();
            assert_eq!(taken.request.request, RequestId(id));
            let next = (id < 12).then_some(id + 1);
            for _ in 0..2 {
                let ahead = taken.ahead();
                assert_eq!(ahead.as_ref().map(|ahead| ahead.request.request.0), next);
                assert_eq!(ahead.map(|ahead| u64::from(ahead.data()[0])), next);
            }
            let _finished = taken.finish();
        }
        assert!(requests.take().is_none());
        let _slot = p.arena.take(3).unwrap();
        let _wake = p.down.publish(&request(13, 3), p.responses.map());
        assert_eq!(requests.take().unwrap().request.request, RequestId(13));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no memfd and no shared mappings")]
    fn what_a_hostile_worker_publishes_is_a_violation() {
        let mut p = pair(2);
        p.worker.1.publish_raw(&[0xff; 64]);
        assert_eq!(p.up.next(&p.responses), Err(Violation::Descriptor));
        let done = ResponseDescriptor {
            request: RequestId(1),
            generation: Generation(6),
            slot: 0,
            tensors: 0,
            status: Status::Ok,
            message_len: 0,
            compute_nanos: 0,
            place: Place::Slot,
        };
        p.worker.1.publish_raw(&done.encode());
        assert_eq!(p.up.next(&p.responses), Err(Violation::Generation));
        let good = ResponseDescriptor { generation: Generation(7), ..done };
        p.worker.1.publish_raw(&ResponseDescriptor { slot: 2, ..good }.encode());
        assert_eq!(p.up.next(&p.responses), Err(Violation::Slot(2)));
        p.worker.1.publish_raw(&ResponseDescriptor { tensors: 65, ..good }.encode());
        assert_eq!(p.up.next(&p.responses), Err(Violation::TensorCount(65)));
        p.worker.1.scribble(0xee);
        assert!(matches!(p.up.next(&p.responses), Err(Violation::HeadJump(_))));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no memfd and no shared mappings")]
    fn an_alarm_that_rings_until_it_is_heard_ends_a_sleep() {
        let p = pair(2);
        let (mut requests, responses) = p.worker;
        let alarm = requests.alarm();
        let worker = std::thread::spawn(move || {
            requests.sleep(&responses, Duration::from_secs(60));
        });
        while !worker.is_finished() {
            alarm.ring();
            std::thread::yield_now();
        }
        worker.join().unwrap();
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no memfd and no shared mappings")]
    fn a_sleeping_worker_is_woken_by_a_publication() {
        let mut p = pair(2);
        let worker = std::thread::spawn(move || {
            let (mut requests, responses) = p.worker;
            while requests.take().is_none() {
                requests.sleep(&responses, Duration::from_secs(60));
            }
        });
        if p.down.publish(&request(1, 0), p.responses.map()) == Wake::Needed {
            p.arena.ring();
        }
        worker.join().unwrap();
    }
}
