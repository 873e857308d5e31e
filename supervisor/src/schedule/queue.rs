//! Waiting for a slot of any worker of one model version.
//!
//! Owns the lanes that are in service and who waits for them; the order is [`super::pool`]'s.
//! Requests wait here across a worker's crash: the next generation can have them. Those that were
//! never published wait for any slot, those that were for a lane of their own. Nothing waits longer
//! than its deadline, and a waiter whose turn came on a lane that has ended keeps its place.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use super::pool::{
    Acquired, Cancelled, Claim, Grant, LaneId, Left, Pool, Released, SlotRef, WaiterId,
};
use crate::health::Watchlist;
use crate::lane::{Lane, Lease, SlotSink};
use crate::request::{RequestError, What};

/// The slots of one model version and the bounded queue before them. Outlives its workers.
#[derive(Debug)]
pub struct SlotQueue {
    inner: Mutex<Inner>,
    /// Notified when the last waiter has left.
    empty: Notify,
    /// Notified when a request finds no slot.
    demand: Notify,
    /// Here because both planes have the queue: the one tells it of crashes, the other asks it.
    watchlist: Arc<Watchlist>,
}

#[derive(Debug)]
struct Inner {
    pool: Pool,
    lanes: HashMap<LaneId, Arc<Lane>>,
    waiting: HashMap<WaiterId, oneshot::Sender<Turn>>,
    next_lane: u64,
    /// When a request last came or went.
    used: Instant,
    /// A request has found no slot since the last lane joined or went to rest.
    demanded: bool,
    /// Set when no worker will come any more.
    closed: Option<RequestError>,
}

/// Slots of the lanes that are in service, and who uses them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub slots: usize,
    pub in_use: usize,
    /// Workers that have a request: each is at work on one of those that it has.
    pub executing: usize,
    /// Requests that may wait for a slot.
    pub places: usize,
}

impl SlotQueue {
    /// At most `limit` new requests may wait at a time.
    pub fn new(limit: usize, watchlist: Arc<Watchlist>) -> Arc<Self> {
        let inner = Inner {
            pool: Pool::new(limit),
            lanes: HashMap::new(),
            waiting: HashMap::new(),
            next_lane: 0,
            used: Instant::now(),
            demanded: false,
            closed: None,
        };
        let (empty, demand) = (Notify::new(), Notify::new());
        Arc::new(Self { inner: Mutex::new(inner), empty, demand, watchlist })
    }

    /// What is held against requests of this version.
    pub fn watchlist(&self) -> &Arc<Watchlist> {
        &self.watchlist
    }

    /// For a reload. Who waits already goes on waiting.
    pub fn set_limit(&self, limit: usize) {
        self.lock().pool.set_limit(limit);
    }

    /// What of it is in use at the moment.
    pub fn usage(&self) -> Usage {
        let inner = self.lock();
        let slots = inner.lanes.values().map(|lane| usize::from(lane.slots())).sum();
        let executing = inner.lanes.values().filter(|lane| lane.is_active()).count();
        let (in_use, places) = (inner.pool.in_use(), inner.pool.limit());
        Usage { slots, in_use, executing, places }
    }

    /// A place for a lane that is being built, and what that lane must tell its freed slots to.
    pub fn seat(self: &Arc<Self>) -> Seat {
        let mut inner = self.lock();
        let id = LaneId(inner.next_lane);
        inner.next_lane += 1;
        Seat { queue: Arc::downgrade(self), id }
    }

    /// Puts a lane into service. Whoever waits gets its slots first.
    pub fn join(&self, id: LaneId, lane: &Arc<Lane>) {
        let mut inner = self.lock();
        let grants = inner.pool.join(id, lane.slots()).unwrap_or_default();
        inner.lanes.insert(id, Arc::clone(lane));
        inner.closed = None;
        inner.used = Instant::now();
        inner.demanded = false;
        let served = inner.serve(grants);
        drop(inner);
        Served::deliver(served);
    }

    /// Takes a lane out of service; what is in flight on it goes on.
    pub fn leave(&self, id: LaneId) {
        let mut inner = self.lock();
        let grants = inner.leave(id);
        let served = inner.serve(grants);
        inner.lanes.remove(&id);
        drop(inner);
        Served::deliver(served);
    }

    /// Takes the lane out of service if no request has come or gone for `limit`, none waits and none
    /// has a slot. Looking and acting are one step: a request that comes later waits for the next
    /// lane, and none is on this one.
    pub fn rest(&self, id: LaneId, limit: Duration) -> Rest {
        let mut inner = self.lock();
        let busy = inner.pool.in_use() > 0 || !inner.waiting.is_empty();
        if busy || inner.used.elapsed() < limit {
            return Rest::Refused;
        }
        let _nothing_in_use = inner.pool.leave(id);
        inner.lanes.remove(&id);
        inner.demanded = false;
        Rest::Taken
    }

    /// Waits until a request has found no slot, since the last lane joined or went to rest.
    pub async fn demand(&self) {
        loop {
            let notified = self.demand.notified();
            if self.lock().demanded {
                return;
            }
            notified.await;
        }
    }

    /// Waits until nobody waits for a slot.
    pub async fn nobody_waits(self: Arc<Self>) {
        loop {
            let notified = self.empty.notified();
            if self.lock().waiting.is_empty() {
                return;
            }
            notified.await;
        }
    }

    /// Answers everyone who waits with `why`, and everyone who comes until a lane joins again.
    pub fn close(&self, why: &RequestError) {
        let mut inner = self.lock();
        inner.closed = Some(why.clone());
        let waiting: Vec<_> = inner.waiting.drain().collect();
        let mut served = Vec::new();
        for (id, _) in &waiting {
            if let Cancelled::Removed(grants) = inner.pool.cancel(*id) {
                // For others who are about to be cancelled: nobody takes these, so they go back.
                served.extend(inner.serve(grants));
            }
        }
        drop(inner);
        Served::deliver(served);
        for (_, reply) in waiting {
            let _nobody = reply.send(Turn::Closed(why.clone()));
        }
    }

    /// A slot, at once or when one is free, at most until `deadline`.
    pub async fn acquire(
        self: &Arc<Self>,
        claim: Claim,
        deadline: Instant,
    ) -> Result<Lease, RequestError> {
        let (waiter, reply) = match self.try_acquire(claim)? {
            Attempt::Leased(lease) => return Ok(lease),
            Attempt::Waiting(waiter, reply) => (waiter, reply),
        };
        let mut waiting = Waiting { queue: self, waiter, reply };
        match timeout_at(deadline, &mut waiting.reply).await {
            Ok(Ok(Turn::Lease(lease))) => Ok(lease),
            Ok(Ok(Turn::Closed(why))) => Err(why),
            // The sender is dropped after it has sent, or with the queue, which this holds.
            Ok(Err(_)) | Err(_) => {
                Err(RequestError::new(What::QueueTimeout, "Request timeout expired"))
            }
        }
    }

    fn try_acquire(&self, claim: Claim) -> Result<Attempt, RequestError> {
        let mut served = Vec::new();
        let mut inner = self.lock();
        let attempt = inner.try_acquire(claim, &mut served);
        let demanded = inner.demanded;
        drop(inner);
        if demanded {
            self.demand.notify_waiters();
        }
        Served::deliver(served);
        attempt
    }

    fn freed(&self, slot: SlotRef) {
        let mut inner = self.lock();
        inner.used = Instant::now();
        let served = match inner.pool.release(slot) {
            Released::Handed(grant) => match inner.serve_one(grant) {
                Ok(served) => {
                    drop(inner);
                    return served.tell();
                }
                Err(grants) => inner.serve(grants),
            },
            Released::Settled(grants) => inner.serve(grants),
            Released::Free | Released::LaneGone | Released::NotHeld => Vec::new(),
        };
        drop(inner);
        Served::deliver(served);
    }

    fn cancel(&self, waiter: WaiterId) {
        let mut inner = self.lock();
        inner.waiting.remove(&waiter);
        let served = match inner.pool.cancel(waiter) {
            Cancelled::Removed(grants) => inner.serve(grants),
            // It was served: the lease is in the channel, and goes back when that is dropped.
            Cancelled::NotWaiting => Vec::new(),
        };
        if inner.waiting.is_empty() {
            self.empty.notify_waiters();
        }
        drop(inner);
        Served::deliver(served);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every method leaves the state whole before anything that could panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn try_acquire(
        &mut self,
        claim: Claim,
        served: &mut Vec<Served>,
    ) -> Result<Attempt, RequestError> {
        if let Some(why) = &self.closed {
            return Err(why.clone());
        }
        self.used = Instant::now();
        loop {
            match self.pool.acquire(claim) {
                Acquired::Granted(slot) => {
                    if let Some(lease) = self.lease(slot) {
                        return Ok(Attempt::Leased(lease));
                    }
                    // The lane has ended, and its owner is about to take it out of service.
                    let grants = self.leave(slot.lane);
                    served.extend(self.serve(grants));
                }
                Acquired::Queued(waiter) => {
                    let (sender, reply) = oneshot::channel();
                    self.waiting.insert(waiter, sender);
                    self.demanded = true;
                    return Ok(Attempt::Waiting(waiter, reply));
                }
                Acquired::Full { limit } => {
                    self.demanded = true;
                    let message =
                        format!("Exceeds maximum queue size: {limit} requests are waiting");
                    return Err(RequestError::new(What::QueueFull, message));
                }
            }
        }
    }

    fn lease(&self, slot: SlotRef) -> Option<Lease> {
        self.lanes.get(&slot.lane)?.lease(slot.slot)
    }

    fn leave(&mut self, lane: LaneId) -> Vec<Grant> {
        match self.pool.leave(lane) {
            // How many slots were in use is the lane's own business (`Lane::idle`).
            Left::Gone { grants, in_use: _ } => grants,
            Left::NotThere => Vec::new(),
        }
    }

    fn serve(&mut self, grants: Vec<Grant>) -> Vec<Served> {
        let mut served = Vec::with_capacity(grants.len());
        let mut grants = VecDeque::from(grants);
        while let Some(grant) = grants.pop_front() {
            match self.serve_one(grant) {
                Ok(one) => served.push(one),
                Err(others) => grants.extend(others),
            }
        }
        served
    }

    /// Turns a grant into a turn. If its lane has ended, that leaves, and these are served instead.
    fn serve_one(&mut self, grant: Grant) -> Result<Served, Vec<Grant>> {
        match self.lease(grant.slot) {
            Some(lease) => {
                // If it has gone, dropping the lease after the lock gives the slot to another.
                let reply = self.waiting.remove(&grant.waiter);
                Ok(Served { reply, turn: Turn::Lease(lease) })
            }
            None => Err(self.pool.refuse(grant)),
        }
    }
}

/// Whether a lane went to rest.
#[must_use = "a lane that was taken out of service has a worker to end"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    Taken,
    /// Somebody uses the model, or did a moment ago.
    Refused,
}

/// What a waiter is told.
#[derive(Debug)]
enum Turn {
    Lease(Lease),
    Closed(RequestError),
}

/// A turn on its way to its waiter. Delivered without the lock: if the waiter has gone, dropping
/// the lease comes back to this queue.
#[derive(Debug)]
struct Served {
    reply: Option<oneshot::Sender<Turn>>,
    turn: Turn,
}

impl Served {
    fn deliver(served: Vec<Self>) {
        served.into_iter().for_each(Self::tell);
    }

    fn tell(self) {
        let Self { reply, turn } = self;
        let _nobody = reply.map(|reply| reply.send(turn));
    }
}

#[derive(Debug)]
enum Attempt {
    Leased(Lease),
    Waiting(WaiterId, oneshot::Receiver<Turn>),
}

/// Leaves the queue when dropped.
#[derive(Debug)]
struct Waiting<'a> {
    queue: &'a Arc<SlotQueue>,
    waiter: WaiterId,
    reply: oneshot::Receiver<Turn>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.queue.cancel(self.waiter);
    }
}

/// The place of one lane in a queue; what the lane tells its freed slots to.
#[derive(Debug)]
pub struct Seat {
    queue: Weak<SlotQueue>,
    id: LaneId,
}

impl Seat {
    pub fn id(&self) -> LaneId {
        self.id
    }
}

impl SlotSink for Seat {
    fn freed(&self, slot: u16) {
        if let Some(queue) = self.queue.upgrade() {
            queue.freed(SlotRef { lane: self.id, slot });
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::id::{ModelName, ModelVersion};

    use super::*;
    use crate::health::PoisonPolicy;
    use crate::schedule::pool::{Coming, Company};

    const LANE: LaneId = LaneId(0);
    const CLAIM: Claim = Claim { company: Company::Any, coming: Coming::New };

    fn queue_of(limit: usize) -> Arc<SlotQueue> {
        let (model, version) = (ModelName::new("m").unwrap(), ModelVersion::new(1).unwrap());
        let policy = PoisonPolicy { after: 0, ttl: Duration::ZERO };
        SlotQueue::new(limit, Arc::new(Watchlist::new(model, version, policy)))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[tokio::test]
    async fn a_lane_rests_only_when_nobody_waits_or_came_a_moment_ago() {
        let queue = queue_of(8);
        assert_eq!(queue.rest(LANE, Duration::from_secs(3600)), Rest::Refused);
        let waiting = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.acquire(CLAIM, soon()).await.map(drop) }
        });
        queue.demand().await;
        assert_eq!(queue.rest(LANE, Duration::ZERO), Rest::Refused, "somebody waits");
        waiting.abort();
        let _aborted = waiting.await;
        assert_eq!(queue.rest(LANE, Duration::ZERO), Rest::Taken);
    }

    #[tokio::test]
    async fn demand_is_heard_also_by_who_listens_later_and_is_over_with_a_rest() {
        let queue = queue_of(0);
        let heard = |queue: &Arc<SlotQueue>| {
            let queue = Arc::clone(queue);
            async move { timeout_at(Instant::now(), queue.demand()).await.is_ok() }
        };
        assert!(!heard(&queue).await);
        let refused = queue.acquire(CLAIM, soon()).await.map(drop);
        assert_eq!(refused.unwrap_err().what, What::QueueFull);
        assert!(heard(&queue).await, "also a request that must not wait wakes the model");
        assert_eq!(queue.rest(LANE, Duration::ZERO), Rest::Taken);
        assert!(!heard(&queue).await);
    }
}
