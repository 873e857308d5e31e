//! Waiting for a slot of any worker of one model version.
//!
//! Owns the lanes that are in service and who waits for them; the order is [`super::pool`]'s.
//! Requests wait here across a worker's crash: they were never published, so the next generation
//! can have them. Nothing waits longer than its deadline.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use super::pool::{Acquired, Cancelled, Grant, LaneId, Pool, Released, SlotRef, WaiterId};
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

impl SlotQueue {
    /// At most `limit` requests may wait at a time.
    pub fn new(limit: usize) -> Arc<Self> {
        let inner = Inner {
            pool: Pool::new(limit),
            lanes: HashMap::new(),
            waiting: HashMap::new(),
            next_lane: 0,
            used: Instant::now(),
            demanded: false,
            closed: None,
        };
        Arc::new(Self { inner: Mutex::new(inner), empty: Notify::new(), demand: Notify::new() })
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
        let mut served = Vec::new();
        for grant in grants {
            inner.serve(grant, &mut served);
        }
        drop(inner);
        Served::deliver(served);
    }

    /// Takes a lane out of service; what is in flight on it goes on.
    pub fn leave(&self, id: LaneId) {
        let mut inner = self.lock();
        // How many slots were in use is the lane's own business (`Lane::idle`).
        let _in_use = inner.pool.leave(id);
        inner.lanes.remove(&id);
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
        for (id, _) in &waiting {
            let _was_waiting = inner.pool.cancel(*id);
        }
        drop(inner);
        for (_, reply) in waiting {
            let _nobody = reply.send(Turn::Closed(why.clone()));
        }
    }

    /// A slot, at once or when one is free, at most until `deadline`.
    pub async fn acquire(self: &Arc<Self>, deadline: Instant) -> Result<Lease, RequestError> {
        loop {
            let (waiter, reply) = match self.try_acquire()? {
                Attempt::Leased(lease) => return Ok(lease),
                Attempt::Waiting(waiter, reply) => (waiter, reply),
            };
            let mut waiting = Waiting { queue: self, waiter, reply };
            match timeout_at(deadline, &mut waiting.reply).await {
                Ok(Ok(Turn::Lease(lease))) => return Ok(lease),
                Ok(Ok(Turn::Closed(why))) => return Err(why),
                // It was this request's turn, but for a slot of a worker that has just ended.
                Ok(Ok(Turn::Again) | Err(_)) => {}
                Err(_) => {
                    let message = "Request timeout expired";
                    return Err(RequestError::new(What::QueueTimeout, message));
                }
            }
        }
    }

    fn try_acquire(&self) -> Result<Attempt, RequestError> {
        let mut inner = self.lock();
        if let Some(why) = &inner.closed {
            return Err(why.clone());
        }
        inner.used = Instant::now();
        loop {
            match inner.pool.acquire() {
                Acquired::Granted(slot) => {
                    if let Some(lease) = inner.lease(slot) {
                        return Ok(Attempt::Leased(lease));
                    }
                    // The lane has ended and is about to leave; its slot stays taken until then.
                }
                Acquired::Queued(waiter) => {
                    let (sender, reply) = oneshot::channel();
                    inner.waiting.insert(waiter, sender);
                    self.demanded(&mut inner);
                    return Ok(Attempt::Waiting(waiter, reply));
                }
                Acquired::Full { limit } => {
                    self.demanded(&mut inner);
                    let message =
                        format!("Exceeds maximum queue size: {limit} requests are waiting");
                    return Err(RequestError::new(What::QueueFull, message));
                }
            }
        }
    }

    fn demanded(&self, inner: &mut Inner) {
        inner.demanded = true;
        self.demand.notify_waiters();
    }

    fn freed(&self, slot: SlotRef) {
        let mut inner = self.lock();
        inner.used = Instant::now();
        let mut served = Vec::new();
        match inner.pool.release(slot) {
            Released::Handed(grant) => inner.serve(grant, &mut served),
            Released::Free | Released::LaneGone | Released::NotHeld => {}
        }
        drop(inner);
        Served::deliver(served);
    }

    fn cancel(&self, waiter: WaiterId) {
        let mut inner = self.lock();
        inner.waiting.remove(&waiter);
        match inner.pool.cancel(waiter) {
            Cancelled::Removed => {}
            // It was served: the lease is in the channel, and goes back when that is dropped.
            Cancelled::NotWaiting => {}
        }
        if inner.waiting.is_empty() {
            self.empty.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every method leaves the state whole before anything that could panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn lease(&self, slot: SlotRef) -> Option<Lease> {
        self.lanes.get(&slot.lane)?.lease(slot.slot)
    }

    fn serve(&mut self, grant: Grant, served: &mut Vec<Served>) {
        let Some(reply) = self.waiting.remove(&grant.waiter) else { return };
        let turn = self.lease(grant.slot).map_or(Turn::Again, Turn::Lease);
        served.push(Served { reply, turn });
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
    Again,
    Closed(RequestError),
}

/// A turn on its way to its waiter. Delivered without the lock: if the waiter has gone, dropping
/// the lease comes back to this queue.
#[derive(Debug)]
struct Served {
    reply: oneshot::Sender<Turn>,
    turn: Turn,
}

impl Served {
    fn deliver(served: Vec<Self>) {
        for Self { reply, turn } in served {
            let _nobody = reply.send(turn);
        }
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
    use super::*;

    const LANE: LaneId = LaneId(0);

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[tokio::test]
    async fn a_lane_rests_only_when_nobody_waits_or_came_a_moment_ago() {
        let queue = SlotQueue::new(8);
        assert_eq!(queue.rest(LANE, Duration::from_secs(3600)), Rest::Refused);
        let waiting = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.acquire(soon()).await.map(drop) }
        });
        queue.demand().await;
        assert_eq!(queue.rest(LANE, Duration::ZERO), Rest::Refused, "somebody waits");
        waiting.abort();
        let _aborted = waiting.await;
        assert_eq!(queue.rest(LANE, Duration::ZERO), Rest::Taken);
    }

    #[tokio::test]
    async fn demand_is_heard_also_by_who_listens_later_and_is_over_with_a_rest() {
        let queue = SlotQueue::new(0);
        let heard = |queue: &Arc<SlotQueue>| {
            let queue = Arc::clone(queue);
            async move { timeout_at(Instant::now(), queue.demand()).await.is_ok() }
        };
        assert!(!heard(&queue).await);
        let refused = queue.acquire(soon()).await.map(drop);
        assert_eq!(refused.unwrap_err().what, What::QueueFull);
        assert!(heard(&queue).await, "also a request that must not wait wakes the model");
        assert_eq!(queue.rest(LANE, Duration::ZERO), Rest::Taken);
        assert!(!heard(&queue).await);
    }
}
