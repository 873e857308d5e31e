//! The slots of one model version over its live lanes, and the bounded queue before them; pure.
//!
//! Owns which slots are taken and who waits. It knows no requests and no deadlines: a waiter is a
//! number, and whoever gave up cancels it.
//!
//! Invariants: a slot is granted to one holder at a time; waiters are served in the order in which
//! they came; nobody waits while a slot is free; the queue never holds more than its limit. A lane
//! that leaves strands nobody: its waiters, like all others, wait for the next slot of any lane.
//!
//! The lane with the fewest slots in use is first, ties go to the lower id; within a lane the slot
//! that was given back last is first, because its pages are warm. Lanes stand in a binary heap that
//! knows where each of them is, so that a grant and a release cost O(log lanes) and allocate nothing
//! but the queue.

use std::collections::VecDeque;

/// One worker generation's transport. Not reused while anyone may still hold a slot of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotRef {
    pub lane: LaneId,
    pub slot: u16,
}

/// A place in the queue. Never reused by the same pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaiterId(pub u64);

/// A slot for somebody who waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub waiter: WaiterId,
    pub slot: SlotRef,
}

#[must_use = "a slot that is granted and forgotten is lost"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquired {
    Granted(SlotRef),
    Queued(WaiterId),
    /// The queue holds as many as it may.
    Full {
        limit: usize,
    },
}

#[must_use = "a slot that is handed on and forgotten is lost"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// The slot is free.
    Free,
    /// The slot went straight to the one who waited longest.
    Handed(Grant),
    /// The slot's lane has left; there is nothing to give back.
    LaneGone,
    /// Nobody held this slot: a mistake of the caller, without effect.
    NotHeld,
}

#[must_use = "a waiter that was served before it was cancelled holds a slot"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    Removed,
    /// Not in the queue: served before, in which case the caller releases the slot, or never there.
    NotWaiting,
}

#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// So many of its slots were in use; their holders may still release them, in vain.
    Gone {
        in_use: usize,
    },
    NotThere,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lane {} has joined already", .0.0)]
pub struct AlreadyJoined(pub LaneId);

#[derive(Clone, Debug)]
pub struct Pool {
    /// By id.
    lanes: Vec<Lane>,
    /// A binary heap of positions in `lanes`; the best lane to take a slot from is first.
    order: Vec<usize>,
    /// By id, because ids grow. Cancelled ones stay until they are half of the queue.
    waiters: VecDeque<Waiter>,
    cancelled: usize,
    limit: usize,
    next_waiter: u64,
}

#[derive(Clone, Debug)]
struct Lane {
    id: LaneId,
    /// The last one is taken first.
    free: Vec<u16>,
    /// Whether each slot is held.
    held: Vec<bool>,
    /// Where `order` has this lane.
    rank: usize,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    id: WaiterId,
    cancelled: bool,
}

impl Pool {
    /// A pool without lanes, before which at most `limit` may wait.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            lanes: Vec::new(),
            order: Vec::new(),
            waiters: VecDeque::new(),
            cancelled: 0,
            limit,
            next_waiter: 0,
        }
    }

    /// A slot, a place in the queue, or neither.
    pub fn acquire(&mut self) -> Acquired {
        if let Some(slot) = self.take() {
            return Acquired::Granted(slot);
        }
        if self.waiting() >= self.limit {
            return Acquired::Full { limit: self.limit };
        }
        let id = WaiterId(self.next_waiter);
        self.next_waiter += 1;
        self.waiters.push_back(Waiter { id, cancelled: false });
        Acquired::Queued(id)
    }

    pub fn release(&mut self, slot: SlotRef) -> Released {
        let Ok(at) = self.position(slot.lane) else { return Released::LaneGone };
        let index = usize::from(slot.slot);
        if self.lanes[at].held.get(index) != Some(&true) {
            return Released::NotHeld;
        }
        if let Some(waiter) = self.next_in_queue() {
            return Released::Handed(Grant { waiter, slot });
        }
        let lane = &mut self.lanes[at];
        lane.held[index] = false;
        lane.free.push(slot.slot);
        let rank = lane.rank;
        self.rise(rank);
        Released::Free
    }

    /// Takes a waiter that gave up out of the queue.
    pub fn cancel(&mut self, waiter: WaiterId) -> Cancelled {
        let Ok(at) = self.waiters.binary_search_by_key(&waiter, |waiter| waiter.id) else {
            return Cancelled::NotWaiting;
        };
        if std::mem::replace(&mut self.waiters[at].cancelled, true) {
            return Cancelled::NotWaiting;
        }
        self.cancelled += 1;
        // Each sweep removes more than it keeps, so a cancellation costs O(1) on the average.
        if self.cancelled > self.waiters.len() / 2 {
            self.waiters.retain(|waiter| !waiter.cancelled);
            self.cancelled = 0;
        }
        Cancelled::Removed
    }

    /// Adds a lane's slots; whoever waits gets them first, in order.
    pub fn join(&mut self, lane: LaneId, slots: u16) -> Result<Vec<Grant>, AlreadyJoined> {
        let Err(at) = self.position(lane) else { return Err(AlreadyJoined(lane)) };
        let free = (0..slots).rev().collect();
        let held = vec![false; usize::from(slots)];
        self.lanes.insert(at, Lane { id: lane, free, held, rank: 0 });
        self.rebuild_order();
        Ok(std::iter::from_fn(|| self.serve_next()).collect())
    }

    /// Removes a lane and all its slots, also those that are in use.
    pub fn leave(&mut self, lane: LaneId) -> Left {
        let Ok(at) = self.position(lane) else { return Left::NotThere };
        let in_use = self.lanes.remove(at).in_use();
        self.rebuild_order();
        Left::Gone { in_use }
    }

    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiters.len() - self.cancelled
    }

    #[must_use]
    pub fn in_use(&self) -> usize {
        self.lanes.iter().map(Lane::in_use).sum()
    }

    fn serve_next(&mut self) -> Option<Grant> {
        if self.waiting() == 0 {
            return None;
        }
        let slot = self.take()?;
        let waiter = self.next_in_queue().expect("somebody waits, as was just checked");
        Some(Grant { waiter, slot })
    }

    fn next_in_queue(&mut self) -> Option<WaiterId> {
        while let Some(waiter) = self.waiters.pop_front() {
            if !waiter.cancelled {
                return Some(waiter.id);
            }
            self.cancelled -= 1;
        }
        None
    }

    fn take(&mut self) -> Option<SlotRef> {
        let best = *self.order.first()?;
        let lane = &mut self.lanes[best];
        let slot = lane.free.pop()?;
        lane.held[usize::from(slot)] = true;
        let slot = SlotRef { lane: lane.id, slot };
        self.sink(0);
        Some(slot)
    }

    fn position(&self, lane: LaneId) -> Result<usize, usize> {
        self.lanes.binary_search_by_key(&lane, |lane| lane.id)
    }

    /// Lanes with a free slot first, then those with the fewest in use, then the lower id.
    fn key(&self, rank: usize) -> (bool, usize, usize) {
        let at = self.order[rank];
        let lane = &self.lanes[at];
        (lane.free.is_empty(), lane.in_use(), at)
    }

    fn rebuild_order(&mut self) {
        self.order.clear();
        for at in 0..self.lanes.len() {
            self.lanes[at].rank = at;
            self.order.push(at);
            self.rise(at);
        }
    }

    fn rise(&mut self, mut rank: usize) {
        while rank > 0 && self.key(rank) < self.key((rank - 1) / 2) {
            let parent = (rank - 1) / 2;
            self.swap(rank, parent);
            rank = parent;
        }
    }

    fn sink(&mut self, mut rank: usize) {
        loop {
            let children = [2 * rank + 1, 2 * rank + 2];
            let children = children.into_iter().filter(|&child| child < self.order.len());
            let best = children.min_by_key(|&child| self.key(child));
            match best {
                Some(child) if self.key(child) < self.key(rank) => {
                    self.swap(rank, child);
                    rank = child;
                }
                Some(_) | None => return,
            }
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.order.swap(a, b);
        self.lanes[self.order[a]].rank = a;
        self.lanes[self.order[b]].rank = b;
    }
}

impl Lane {
    fn in_use(&self) -> usize {
        self.held.len() - self.free.len()
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
