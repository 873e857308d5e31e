//! The order of what an engine is asked for, on real rings. Everything is published before the pump
//! starts, so that what is ahead is always the same.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use shared::id::{Generation, RequestId};
use shared::ring::consumer::{ResponseArena, ResponseConsumer, attach};
use shared::ring::layout::{Geometry, Place, RequestDescriptor, Status};
use shared::ring::producer::{RequestArena, RequestProducer, SlotBytes};
use shared::sys::socket;
use shared::tensor::{DataType, Shape, TensorDesc};

use super::*;
use crate::engine::{EngineError, Outputs, PlannedOutput, Request, Schema};

/// What a probe is to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Echo,
    Fail,
    FailLate,
    RunOut,
    Break,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Overlapping,
    Plain,
}

/// Writes down what it is asked for. It echoes what it has prefetched, if that is the request's.
struct Probe {
    kind: Kind,
    orders: Vec<Order>,
    log: Rc<RefCell<Vec<String>>>,
    ahead: Option<(RequestId, Vec<u8>)>,
    running: Option<RequestId>,
}

impl Probe {
    fn order(&self, request: RequestId) -> Order {
        self.orders[usize::try_from(request.0).unwrap()]
    }

    fn note(&self, what: &str, request: RequestId) {
        self.log.borrow_mut().push(format!("{what} {}", request.0));
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.log.borrow_mut().push("dropped".into());
    }
}

impl Engine for Probe {
    fn schema(&self) -> Schema {
        Schema::default()
    }

    fn build(&self) -> String {
        "probe".into()
    }

    fn infer(
        &mut self,
        request: &Request<'_>,
        outputs: &mut dyn Outputs,
    ) -> Result<(), EngineError> {
        self.note("infer", request.id);
        let ahead = self.ahead.take().filter(|(id, _)| *id == request.id);
        match self.order(request.id) {
            Order::Fail => return Err(EngineError::Model("at once".into())),
            Order::RunOut => return Err(EngineError::DeviceOutOfMemory("too much".into())),
            Order::Break => return Err(EngineError::DeviceFault("lost".into())),
            Order::Echo | Order::FailLate => self.running = Some(request.id),
        }
        let input = request.inputs[0];
        let bytes = ahead.map_or_else(|| input.bytes.to_vec(), |(_, bytes)| bytes);
        let (dtype, shape) = (input.dtype, input.shape);
        let plan = [PlannedOutput { index: 0, dtype, shape, len: bytes.len() }];
        outputs.place(&plan)?.bytes[0].copy_from_slice(&bytes);
        Ok(())
    }

    fn trim(&mut self) {
        self.log.borrow_mut().push("trim".into());
    }

    fn overlaps(&self) -> bool {
        self.kind == Kind::Overlapping
    }

    fn prefetch(&mut self, request: &Request<'_>) {
        self.note("prefetch", request.id);
        self.ahead = Some((request.id, request.inputs[0].bytes.to_vec()));
    }

    fn settle(&mut self) -> Result<(), EngineError> {
        let request = self.running.take().expect("something runs");
        self.note("settle", request);
        match self.order(request) {
            Order::FailLate => Err(EngineError::Model("late".into())),
            Order::Echo | Order::Fail | Order::RunOut | Order::Break => Ok(()),
        }
    }
}

/// How the pump ended, what the engine was asked, and each answer's number, status and first byte.
type Seen = (Result<(), PumpError>, Vec<String>, Vec<(u64, Status, u8)>);

/// A supervisor of one pump.
struct World {
    arena: Arc<RequestArena>,
    responses: ResponseArena,
    down: RequestProducer,
    up: ResponseConsumer,
    held: Vec<SlotBytes>,
    theirs: OwnedFd,
    pump: Pump,
    log: Rc<RefCell<Vec<String>>>,
}

const NEVER: u64 = u64::MAX;
const EXPIRED: u64 = 1;

fn world(kind: Kind, orders: &[Order]) -> World {
    let geometry = Geometry::new(8, 4096, 4096).unwrap();
    let arena = RequestArena::create(geometry, Generation(1)).unwrap();
    let responses = ResponseArena::create(geometry).unwrap();
    let (requests, producer) = attach(
        arena.fd().try_clone_to_owned().unwrap(),
        responses.fd().try_clone_to_owned().unwrap(),
    )
    .unwrap();
    let (mine, theirs) = socket::pair().unwrap();
    let log = Rc::new(RefCell::new(Vec::new()));
    let orders = orders.to_vec();
    let engine = Probe { kind, orders, log: Rc::clone(&log), ahead: None, running: None };
    let stop = Stop::of(&requests);
    stop.set();
    let pump = Pump {
        engine: Box::new(engine),
        requests,
        responses: producer,
        control: Control::new(mine).unwrap(),
        stop,
        exhaustion: Some(Exhaustion::default()),
    };
    let down = RequestProducer::new(Arc::clone(&arena));
    let up = ResponseConsumer::new(Generation(1));
    World { arena, responses, down, up, held: Vec::new(), theirs, pump, log }
}

impl World {
    /// Publishes a request of so many bytes, each the number of the request, in the slot of its number.
    fn publish(&mut self, id: u64, len: usize, deadline: u64, place: Place) {
        let slot = u32::try_from(id).unwrap();
        let mut bytes = self.arena.take(slot).unwrap();
        bytes.data_mut()[..len].fill(u8::try_from(id).unwrap());
        let shape = Shape::new(&[len as u64]).unwrap();
        let tensor = TensorDesc { index: 0, dtype: DataType::Uint8, shape, offset: 0, len };
        bytes.write_table([tensor].iter());
        let request = RequestId(id);
        let request = RequestDescriptor { request, slot, tensors: 1, wanted: 1, deadline, place };
        let _wake = self.down.publish(&request, self.responses.map());
        self.held.push(bytes);
    }

    /// Publishes as many requests as there are orders.
    fn publish_all(&mut self, orders: &[Order]) {
        for id in 0..orders.len() {
            self.publish(id as u64, 4, NEVER, Place::Slot);
        }
    }

    fn run(mut self) -> Seen {
        let ended = self.pump.run();
        let mut answers = Vec::new();
        while let Some(done) = self.up.next(&self.responses).unwrap() {
            let mut data = Vec::new();
            self.responses.append(done.slot, 0, 1, &mut data);
            answers.push((done.request.0, done.status, data[0]));
        }
        drop(self.theirs);
        (ended, self.log.take(), answers)
    }
}

fn all(kind: Kind, orders: &[Order]) -> Seen {
    let mut world = world(kind, orders);
    world.publish_all(orders);
    world.run()
}

#[test]
fn the_next_request_is_prefetched_before_this_one_is_waited_for() {
    let (ended, log, answers) = all(Kind::Overlapping, &[Order::Echo; 3]);
    ended.unwrap();
    let expected = [
        "infer 0",
        "prefetch 1",
        "settle 0",
        "infer 1",
        "prefetch 2",
        "settle 1",
        "infer 2",
        "settle 2",
        "dropped",
    ];
    assert_eq!(log, expected);
    assert_eq!(answers, [(0, Status::Ok, 0), (1, Status::Ok, 1), (2, Status::Ok, 2)]);
}

#[test]
fn an_engine_that_does_not_overlap_is_asked_for_nothing_more() {
    let (ended, log, answers) = all(Kind::Plain, &[Order::Echo; 2]);
    ended.unwrap();
    assert_eq!(log, ["infer 0", "infer 1", "dropped"]);
    assert_eq!(answers.len(), 2);
}

#[test]
fn an_error_that_shows_late_is_that_request_s_own() {
    let (ended, log, answers) = all(Kind::Overlapping, &[Order::FailLate, Order::Echo]);
    ended.unwrap();
    assert_eq!(log[..4], ["infer 0", "prefetch 1", "settle 0", "infer 1"]);
    assert_eq!(answers, [(0, Status::Model, b'l'), (1, Status::Ok, 1)]);
}

#[test]
fn what_fails_at_once_is_not_waited_for() {
    let (ended, log, answers) = all(Kind::Overlapping, &[Order::Fail, Order::Echo]);
    ended.unwrap();
    assert_eq!(log, ["infer 0", "infer 1", "settle 1", "dropped"]);
    assert_eq!(answers, [(0, Status::Model, b'a'), (1, Status::Ok, 1)]);
}

#[test]
fn what_has_expired_or_lies_elsewhere_is_not_prefetched() {
    let mut world = world(Kind::Overlapping, &[Order::Echo; 4]);
    world.publish(0, 4, NEVER, Place::Slot);
    world.publish(1, 4, EXPIRED, Place::Slot);
    world.publish(2, 4, NEVER, Place::Slot);
    world.publish(3, 4, EXPIRED, Place::Own(4));
    let object = shared::sys::memfd::create(c"inputs", 4).unwrap();
    let packet = proto::codec::encode(&proto::control::Handover { request: 3 }).unwrap();
    let fds = [std::os::fd::AsFd::as_fd(&object)];
    socket::send(std::os::fd::AsFd::as_fd(&world.theirs), &packet, &fds, socket::Wait::Never)
        .unwrap();
    let (ended, log, answers) = world.run();
    ended.unwrap();
    assert_eq!(log, ["infer 0", "settle 0", "infer 2", "settle 2", "dropped"]);
    let statuses: Vec<_> = answers.iter().map(|(_, status, _)| *status).collect();
    assert_eq!(statuses, [Status::Ok, Status::Expired, Status::Ok, Status::Expired]);
}

#[test]
fn nothing_is_answered_after_a_fault_of_the_device_and_nothing_dropped() {
    let (ended, log, answers) = all(Kind::Overlapping, &[Order::Echo, Order::Break, Order::Echo]);
    assert!(matches!(ended, Err(PumpError::DeviceFault(text)) if text == "lost"));
    assert_eq!(log, ["infer 0", "prefetch 1", "settle 0", "infer 1"]);
    assert_eq!(answers, [(0, Status::Ok, 0)]);
}

#[test]
fn a_device_that_is_exhausted_ends_the_worker_after_the_answer() {
    let orders = [Order::Echo, Order::RunOut, Order::RunOut, Order::RunOut, Order::Echo];
    let (ended, log, answers) = all(Kind::Plain, &orders);
    assert!(matches!(ended, Err(PumpError::DeviceExhausted)), "{ended:?}");
    assert_eq!(log, ["infer 0", "infer 1", "trim", "infer 2", "trim", "infer 3", "dropped"]);
    let statuses: Vec<_> = answers.iter().map(|(_, status, _)| *status).collect();
    let out = Status::OutOfMemory;
    assert_eq!(statuses, [Status::Ok, out, out, out]);
}

#[test]
fn huge_requests_end_nothing() {
    let orders = [&[Order::Echo], &[Order::RunOut; 6][..], &[Order::Echo]].concat();
    let mut world = world(Kind::Plain, &orders);
    world.publish(0, 4, NEVER, Place::Slot);
    for id in 1..7 {
        world.publish(id, 5, NEVER, Place::Slot);
    }
    world.publish(7, 4, NEVER, Place::Slot);
    let (ended, _, answers) = world.run();
    ended.unwrap();
    assert_eq!(answers.last(), Some(&(7, Status::Ok, 7)));
}
