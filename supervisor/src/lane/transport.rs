//! Rings, slot table and control socket of one worker generation, behind one short lock.
//!
//! No tensor is copied and no request is answered while the lock is held.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use proto::codec;
use proto::control::Fact;
use shared::clock::MonotonicNanos;
use shared::id::{Generation, RequestId};
use shared::limits::{MAX_PACKET_BYTES, MAX_PACKETS_PER_WAKE, MAX_TENSOR_BYTES};
use shared::memory::ForeignObject;
use shared::ring::consumer::{ResponseArena, ResponseConsumer};
use shared::ring::layout::{Geometry, Place, RequestDescriptor, ResponseDescriptor};
use shared::ring::producer::{CreateError, RequestArena, RequestProducer, SlotBytes, Wake};
use shared::ring::table::Violation;
use shared::sync::{AtomicUsize, Ordering};
use shared::sys::memfd;
use shared::sys::socket::{Inbox, Packet, Wait};
use tokio::sync::{Notify, mpsc, oneshot};

use super::bells::Bells;
use super::ending::Lost;
use super::filled::Filled;
use super::lease::Lease;
use super::reply::Completed;
use super::table::{Completion, SlotTable, Taken, Ticket};
use crate::health::{Incarnation, Watchlist};

/// Is told when a slot may be used again; the lane below knows nothing of who waits for one.
pub trait SlotSink: Send + Sync + std::fmt::Debug {
    fn freed(&self, slot: u16);
}

/// What a lane tells the task that owns its worker.
#[derive(Debug)]
pub enum LaneEvent {
    Fact(Fact),
    /// The worker did what no honest worker does. The lane takes nothing more from it.
    Violation(Violation),
    /// The worker has closed its end.
    Closed,
}

/// Counts since the previous call of [`Lane::activity`], and the oldest debt.
#[derive(Clone, Debug, Default)]
pub struct Activity {
    /// What no honest worker does, also if the event that told of it was lost.
    pub violation: Option<Violation>,
    pub completions: u32,
    pub doorbells: u32,
    pub facts: u32,
    /// Since when the worker could have been at work on its oldest request.
    pub stalled_since: Option<MonotonicNanos>,
}

/// What a lane is made of.
#[derive(Debug)]
pub struct LaneParts {
    pub geometry: Geometry,
    pub worker: Incarnation,
    /// Our end of the control socket.
    pub socket: OwnedFd,
    pub bells: Arc<Bells>,
    pub free: Arc<dyn SlotSink>,
    /// Is told what was in flight when the worker ended.
    pub watchlist: Arc<Watchlist>,
    /// Bounded; when it is full, the worker says more than anybody can use, and the surplus is lost.
    pub events: mpsc::Sender<LaneEvent>,
}

/// One worker generation's transport. Cheap to share; lives as long as anyone holds a slot of it.
#[derive(Debug)]
pub struct Lane {
    pub(super) requests: Arc<RequestArena>,
    pub(super) responses: ResponseArena,
    pub(super) worker: Incarnation,
    pub(super) watchlist: Arc<Watchlist>,
    socket: OwnedFd,
    transport: Mutex<Transport>,
    bells: Arc<Bells>,
    free: Arc<dyn SlotSink>,
    events: mpsc::Sender<LaneEvent>,
    /// Requests that the worker has; read without the lock to find the lanes worth draining.
    published: AtomicUsize,
    /// Slots that anybody holds.
    busy: AtomicUsize,
    /// Requests that the worker had and did not answer before the lane was closed.
    unanswered: AtomicUsize,
    idle: Notify,
}

#[derive(Debug)]
struct Transport {
    state: State,
    requests: RequestProducer,
    responses: ResponseConsumer,
    table: SlotTable<Published>,
    /// Objects that came up before the completion that they belong to.
    objects: HashMap<u64, OwnedFd>,
    announced: bool,
    inbox: Inbox,
    activity: Activity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Nothing more is sent; what was answered before is still taken in.
    Retired {
        since: MonotonicNanos,
    },
    /// Nothing more is sent or believed.
    Closed,
}

/// What the lane keeps for a request in flight: its waiter and the filled slot, which must not be
/// given to anyone else while the worker may read it.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) reply: oneshot::Sender<Result<Completed, Lost>>,
    pub(super) filled: Filled,
    /// A bit for each output.
    pub(super) wanted: u64,
}

/// What a drain found, to be passed on without the lock.
#[derive(Debug, Default)]
struct Harvest {
    answers: Vec<(Published, ResponseDescriptor, Option<OwnedFd>)>,
    freed: Vec<Published>,
    violation: Option<Violation>,
}

impl Lane {
    pub fn new(parts: LaneParts) -> Result<Arc<Self>, CreateError> {
        let generation = parts.worker.generation;
        let requests = RequestArena::create(parts.geometry, generation)?;
        let slots = u16::try_from(parts.geometry.slots()).expect("at most MAX_SLOTS");
        let transport = Transport {
            state: State::Open,
            requests: RequestProducer::new(Arc::clone(&requests)),
            responses: ResponseConsumer::new(generation),
            table: SlotTable::new(slots),
            objects: HashMap::new(),
            announced: false,
            inbox: Inbox::new(MAX_PACKET_BYTES),
            activity: Activity::default(),
        };
        Ok(Arc::new(Self {
            requests,
            responses: ResponseArena::create(parts.geometry)?,
            worker: parts.worker,
            watchlist: parts.watchlist,
            socket: parts.socket,
            transport: Mutex::new(transport),
            bells: parts.bells,
            free: parts.free,
            events: parts.events,
            published: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
            idle: Notify::new(),
        }))
    }

    pub fn generation(&self) -> Generation {
        self.worker.generation
    }

    /// The two memory objects, for the handshake: requests, responses.
    pub fn objects(&self) -> [BorrowedFd<'_>; 2] {
        [self.requests.fd(), self.responses.fd()]
    }

    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub fn slots(&self) -> u16 {
        u16::try_from(self.requests.geometry().slots()).expect("at most MAX_SLOTS")
    }

    /// The bytes of one slot's request data.
    pub fn slot_bytes(&self) -> usize {
        self.requests.geometry().request_bytes()
    }

    /// Takes a slot that the caller was given; `None` if it is not free, which is a mistake of the
    /// caller, or if the lane is closed.
    pub fn lease(self: &Arc<Self>, slot: u16) -> Option<Lease> {
        let mut transport = self.lock();
        if transport.state != State::Open || !transport.table.lease(slot) {
            return None;
        }
        drop(transport);
        // Partner: the AcqRel subtraction in `give_back`.
        self.busy.fetch_add(1, Ordering::AcqRel);
        let bytes = self.requests.take(u32::from(slot)).expect("the table says that it is free");
        Some(Lease::new(Arc::clone(self), bytes))
    }

    /// Whether a worker has something of ours, so that draining could find something.
    pub(super) fn is_active(&self) -> bool {
        // A stale zero is read only by a thread that did not submit; the submitting thread drains.
        self.published.load(Ordering::Acquire) > 0
    }

    /// Publishes a request whose slot is filled, and takes in what has been answered meanwhile.
    /// Gives it back if the worker has ended.
    pub(super) fn publish(
        self: &Arc<Self>,
        slot: u16,
        request: &RequestDescriptor,
        published: Published,
    ) -> Result<(), Published> {
        let mut transport = self.lock();
        if transport.state != State::Open {
            return Err(published);
        }
        let ticket = Ticket { request: request.request };
        transport.table.publish(slot, ticket, published, MonotonicNanos::now());
        let wake = transport.requests.publish(request, self.responses.map());
        if self.bells.anyone_parked() && !transport.announced {
            transport.requests.announce_sleep();
            transport.announced = true;
        }
        let harvest = self.drain_locked(&mut transport);
        drop(transport);
        if wake == Wake::Needed {
            self.requests.ring();
        }
        self.deliver(harvest);
        Ok(())
    }

    /// Nobody waits for this request any more; its slot is freed when the worker answers it.
    pub(super) fn abandon(&self, slot: u16, request: RequestId) {
        self.lock().table.abandon(slot, request);
    }

    /// Gives back a slot that was leased or held.
    pub(super) fn release(&self, slot: u16) {
        self.lock().table.release(slot);
        self.give_back(slot);
    }

    fn give_back(&self, slot: u16) {
        self.free.freed(slot);
        // Partner: the addition in `lease`.
        if self.busy.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.idle.notify_waiters();
        }
    }

    /// Waits until nobody holds a slot. Only useful once no new slots are handed out.
    pub async fn idle(&self) {
        loop {
            let notified = self.idle.notified();
            if self.busy.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Takes in whatever has been answered.
    pub fn drain(self: &Arc<Self>) {
        let harvest = self.drain_locked(&mut self.lock());
        self.deliver(harvest);
    }

    /// Takes in whatever the worker has said and answered, for whoever is about to act on its silence.
    /// What is said of it comes as events; at most a fixed number of packets is read.
    pub fn catch_up(self: &Arc<Self>) {
        let _more = self.read_socket();
        self.drain();
    }

    /// Drains, announces a new attempt to sleep and drains again (`Bells::on_park`).
    pub(super) fn drain_and_announce(self: &Arc<Self>) {
        let mut transport = self.lock();
        let mut harvest = self.drain_locked(&mut transport);
        if transport.table.published() > 0 {
            transport.requests.announce_sleep();
            transport.announced = true;
            harvest.append(self.drain_locked(&mut transport));
        }
        drop(transport);
        self.deliver(harvest);
    }

    pub(super) fn take_back_announcement(&self) {
        let mut transport = self.lock();
        transport.requests.announce_awake();
        transport.announced = false;
    }

    /// Reads packets from the control socket, at most a fixed number. Says whether there may be
    /// more.
    pub(super) fn read_socket(self: &Arc<Self>) -> More {
        let mut events = Vec::new();
        let mut transport = self.lock();
        let more = self.read_packets(&mut transport, &mut events);
        drop(transport);
        for event in events {
            self.tell(event);
        }
        more
    }

    /// The worker has closed its end: nobody gets a slot of it any more. Its exit follows; if it does
    /// not, [`Lane::activity`] tells.
    pub fn retire(&self) {
        self.lock().retire();
    }

    /// Takes in what has been answered, and takes back all else. Nothing more is accepted.
    pub(super) fn shut(self: &Arc<Self>) -> Vec<Taken<Published>> {
        let mut transport = self.lock();
        let harvest = self.drain_locked(&mut transport);
        transport.state = State::Closed;
        let taken = transport.table.take_published();
        let objects = std::mem::take(&mut transport.objects);
        self.published.store(0, Ordering::Release);
        self.unanswered.fetch_add(taken.len(), Ordering::Relaxed);
        drop(transport);
        discard(objects);
        self.deliver(harvest);
        taken
    }

    /// Requests that the worker had and did not answer before the lane was closed.
    pub fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// What happened since the last call. What has been answered is taken in before: it may be there
    /// already while whoever looks at the ring has not run yet.
    pub fn activity(self: &Arc<Self>) -> Activity {
        let mut transport = self.lock();
        let harvest = self.drain_locked(&mut transport);
        let stalled_since = transport.table.stalled_since();
        if let State::Retired { since } = transport.state
            && MonotonicNanos::now().since(since) > LAST_MOMENTS
        {
            transport.activity.violation = Some(Violation::Closed);
        }
        let activity = Activity { stalled_since, ..std::mem::take(&mut transport.activity) };
        drop(transport);
        self.deliver(harvest);
        activity
    }

    /// Believes the worker nothing more, and reports it: what is in flight is the owner's to close.
    pub(super) fn violated(&self, violation: Violation) {
        let mut transport = self.lock();
        transport.state = State::Closed;
        transport.activity.violation = Some(violation);
        drop(transport);
        self.tell(LaneEvent::Violation(violation));
    }

    fn lock(&self) -> MutexGuard<'_, Transport> {
        // Nothing under this lock can panic halfway through a change that others would trip over.
        self.transport.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: LaneEvent) {
        // Full only if the worker floods us, which the counts in `Activity` show.
        let _lost = self.events.try_send(event);
    }

    fn drain_locked(&self, transport: &mut Transport) -> Harvest {
        let mut harvest = Harvest::default();
        while transport.state != State::Closed {
            match self.next_answer(transport, &mut harvest) {
                Ok(true) => {}
                Ok(false) => break,
                Err(violation) => {
                    transport.state = State::Closed;
                    harvest.violation = Some(violation);
                }
            }
        }
        self.published.store(transport.table.published(), Ordering::Release);
        harvest
    }

    fn next_answer(
        &self,
        transport: &mut Transport,
        harvest: &mut Harvest,
    ) -> Result<bool, Violation> {
        let Some(completion) = transport.responses.next(&self.responses)? else {
            return Ok(false);
        };
        transport.activity.completions = transport.activity.completions.saturating_add(1);
        // Before the request counts as answered: objects come for those alone that are not.
        let object = match completion.place {
            Place::Slot => None,
            Place::Own(_) => Some(self.object(transport, completion.request)?),
        };
        let now = MonotonicNanos::now();
        let answered = transport.table.complete(completion.slot, completion.request, now)?;
        match answered {
            Completion::Answered(published) => {
                harvest.answers.push((published, completion, object));
            }
            Completion::TooLate(published) => harvest.freed.push(published),
        }
        Ok(true)
    }

    /// The object that must have come up before the completion that speaks of it.
    fn object(&self, transport: &mut Transport, request: RequestId) -> Result<OwnedFd, Violation> {
        // It was sent before, but bells may stand before it: at most what a socket's queue holds.
        for _ in 0..QUEUED_WAKES {
            if transport.objects.contains_key(&request.0) {
                break;
            }
            let mut events = Vec::new();
            let more = self.read_packets(transport, &mut events);
            for event in events {
                self.tell(event);
            }
            if more != More::Perhaps {
                break;
            }
        }
        transport.objects.remove(&request.0).ok_or(Violation::MissingObject)
    }

    fn read_packets(&self, transport: &mut Transport, events: &mut Vec<LaneEvent>) -> More {
        for _ in 0..MAX_PACKETS_PER_WAKE {
            match transport.inbox.receive(self.socket.as_fd(), Wait::Never) {
                Ok(Some(packet)) => match self.packet(transport, packet) {
                    Ok(Some(fact)) => events.push(LaneEvent::Fact(fact)),
                    Ok(None) => {}
                    Err(violation) => {
                        transport.activity.violation = Some(violation);
                        events.push(LaneEvent::Violation(violation));
                        // Its owner ends it; until then it can talk to itself.
                        transport.retire();
                        return More::Never;
                    }
                },
                Err(Errno::EAGAIN) => return More::No,
                Ok(None) | Err(_) => {
                    events.push(LaneEvent::Closed);
                    transport.retire();
                    return More::Never;
                }
            }
        }
        More::Perhaps
    }

    fn packet(
        &self,
        transport: &mut Transport,
        mut packet: Packet,
    ) -> Result<Option<Fact>, Violation> {
        if packet.len == 1 && packet.fds.is_empty() {
            transport.activity.doorbells = transport.activity.doorbells.saturating_add(1);
            return Ok(None);
        }
        transport.activity.facts = transport.activity.facts.saturating_add(1);
        if packet.truncated || packet.fds.len() > 1 {
            return Err(Violation::Packet);
        }
        let bytes = transport.inbox.bytes(&packet);
        let fact = codec::decode(bytes).map_err(|_| Violation::Packet)?;
        match (fact, packet.fds.pop()) {
            (Fact::LargeOutput { request }, Some(fd)) => {
                // One for each request that it has, so that there are never more than slots.
                let expected = transport.table.has(RequestId(request));
                if !expected || transport.objects.contains_key(&request) {
                    return Err(Violation::Packet);
                }
                if !memfd::size(&fd).is_ok_and(|size| size <= MAX_TENSOR_BYTES) {
                    return Err(Violation::BadObject);
                }
                transport.objects.insert(request, fd);
                // Large outputs are progress, not chatter; each is followed by its completion.
                transport.activity.facts = transport.activity.facts.saturating_sub(1);
                Ok(None)
            }
            (Fact::LargeOutput { .. }, None) | (_, Some(_)) => Err(Violation::Packet),
            (
                fact @ (Fact::Confined(_)
                | Fact::Loaded(_)
                | Fact::LoadFailed { .. }
                | Fact::Trimmed { .. }),
                None,
            ) => Ok(Some(fact)),
        }
    }

    fn deliver(self: &Arc<Self>, harvest: Harvest) {
        for (Published { reply, filled, .. }, descriptor, object) in harvest.answers {
            let completed = Completed::new(Arc::clone(self), filled, descriptor, object);
            // If the waiter has gone, the answer is dropped here and gives back its slot.
            let _nobody = reply.send(Ok(completed));
        }
        for Published { filled, .. } in harvest.freed {
            let slot = slot_of(&filled.bytes);
            drop(filled);
            self.give_back(slot);
        }
        if let Some(violation) = harvest.violation {
            self.violated(violation);
        }
    }
}

impl Transport {
    fn retire(&mut self) {
        if self.state == State::Open {
            self.state = State::Retired { since: MonotonicNanos::now() };
        }
    }
}

/// Closes objects that nobody will read. Giving their memory back can take a while, which neither a
/// lock nor a thread of the runtime should last.
fn discard(objects: HashMap<u64, OwnedFd>) {
    if objects.is_empty() {
        return;
    }
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(move || drop(objects))),
        Err(_) => drop(objects),
    }
}

impl Harvest {
    fn append(&mut self, mut later: Self) {
        self.answers.append(&mut later.answers);
        self.freed.append(&mut later.freed);
        self.violation = self.violation.take().or(later.violation);
    }
}

/// How long a process may take to end after its sockets were closed.
const LAST_MOMENTS: Duration = Duration::from_secs(1);

/// How often a full budget of packets is read to find an object that must be there.
const QUEUED_WAKES: usize = 16;

/// Whether the control socket may hold more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum More {
    Perhaps,
    No,
    Never,
}

pub(super) fn slot_of(bytes: &SlotBytes) -> u16 {
    u16::try_from(bytes.slot()).expect("at most MAX_SLOTS")
}

/// Checks an object that came with outputs.
pub(super) fn accept(fd: OwnedFd, len: usize) -> Result<ForeignObject, Violation> {
    ForeignObject::accept(fd, len).map_err(|_| Violation::BadObject)
}
