//! The slots of one model version over its live lanes, and the bounded queue before them; pure.
//!
//! Owns which slots are taken and who waits. It knows no requests and no deadlines: a waiter is a
//! number, and whoever gave up cancels it.
//!
//! Some must be alone on a lane. While one of them waits or has its slot, one lane is *set apart*:
//!
//! ```text
//! (none) ──one waits──► Draining: no slot of it is granted ──its last slot comes back──► Taken
//!    ▲                     │ ▲                                                             │
//!    └──nobody waits───────┘ └──a lane with nothing in use is there: that one instead      │
//!    └──the slot comes back, or the lane leaves────────────────────────────────────────────┘
//! ```
//! The others go on, so one that must be alone costs the rest at most one lane. If there is only
//! one, the rest wait for as many requests as must be alone, and no longer.
//!
//! Invariants: a slot is granted to one holder at a time, and none beside one that is taken alone;
//! waiters of a kind are served in the order in which they came; nobody waits while a slot is free
//! on a lane that is not set apart; at most one lane is, and only while somebody wants it; the queue
//! takes nobody new beyond its limit. A lane that leaves strands nobody: its waiters, like all
//! others, wait for the next slot of any lane.
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

/// Who may be on the same lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    Any,
    None,
}

/// Whether the limit of the queue counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coming {
    New,
    /// It had a slot, and lost it to no fault of its own. There are no more of those than slots that
    /// were lost.
    Back,
}

/// What somebody who comes wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub company: Company,
    pub coming: Coming,
}

impl Claim {
    /// Any slot, for somebody new.
    pub const ANY: Self = Self { company: Company::Any, coming: Coming::New };
}

/// A slot for somebody who waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub waiter: WaiterId,
    pub slot: SlotRef,
    pub company: Company,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Released {
    /// The slot is free.
    Free,
    /// The slot went straight to the one who waited longest.
    Handed(Grant),
    /// The slot is back while somebody wants a lane alone; these are served by that, if anyone.
    Settled(Vec<Grant>),
    /// The slot's lane has left; there is nothing to give back.
    LaneGone,
    /// Nobody held this slot: a mistake of the caller, without effect.
    NotHeld,
}

#[must_use = "a waiter that was served before it was cancelled holds a slot"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// These are served by that: a lane that was set apart for the one who left may be open again.
    Removed(Vec<Grant>),
    /// Not in the queue: served before, in which case the caller releases the slot, or never there.
    NotWaiting,
}

#[must_use = "a slot that is granted and forgotten is lost"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// So many of its slots were in use; their holders may still release them, in vain. Others may
    /// be served by that: another lane is set apart now, and has nothing in use.
    Gone {
        in_use: usize,
        grants: Vec<Grant>,
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
    /// Those who must be alone, by id. They are few.
    loners: VecDeque<WaiterId>,
    apart: Apart,
    limit: usize,
    next_waiter: u64,
}

/// The lane that is kept for one who must be alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Apart {
    None,
    Draining(LaneId),
    Taken(SlotRef),
}

impl Apart {
    fn lane(self) -> Option<LaneId> {
        match self {
            Self::None => None,
            Self::Draining(lane) | Self::Taken(SlotRef { lane, .. }) => Some(lane),
        }
    }
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
            loners: VecDeque::new(),
            apart: Apart::None,
            limit,
            next_waiter: 0,
        }
    }

    /// For a reload. Who waits already goes on waiting.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// A slot, a place in the queue, or neither.
    pub fn acquire(&mut self, claim: Claim) -> Acquired {
        let taken = match claim.company {
            Company::Any => self.take(),
            Company::None if self.loners.is_empty() => self.take_alone(),
            Company::None => None,
        };
        if let Some(slot) = taken {
            return Acquired::Granted(slot);
        }
        if claim.coming == Coming::New && self.waiting() >= self.limit {
            // It is nobody's turn to have a lane kept for it.
            self.reopen();
            return Acquired::Full { limit: self.limit };
        }
        let id = WaiterId(self.next_waiter);
        self.next_waiter += 1;
        match claim.company {
            Company::Any => self.waiters.push_back(Waiter { id, cancelled: false }),
            Company::None => self.loners.push_back(id),
        }
        Acquired::Queued(id)
    }

    pub fn release(&mut self, slot: SlotRef) -> Released {
        let Ok(at) = self.position(slot.lane) else { return Released::LaneGone };
        let index = usize::from(slot.slot);
        if self.lanes[at].held.get(index) != Some(&true) {
            return Released::NotHeld;
        }
        let settled = self.apart == Apart::None && self.loners.is_empty();
        if settled && let Some(waiter) = self.next_in_queue() {
            return Released::Handed(Grant { waiter, slot, company: Company::Any });
        }
        let lane = &mut self.lanes[at];
        lane.held[index] = false;
        lane.free.push(slot.slot);
        let rank = lane.rank;
        self.rise(rank);
        if settled {
            return Released::Free;
        }
        if self.apart == Apart::Taken(slot) {
            self.set_apart(Apart::None);
        }
        Released::Settled(self.settle())
    }

    /// Takes a waiter that gave up out of the queue.
    pub fn cancel(&mut self, waiter: WaiterId) -> Cancelled {
        if let Ok(at) = self.loners.binary_search(&waiter) {
            self.loners.remove(at);
            return Cancelled::Removed(self.settle());
        }
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
        Cancelled::Removed(Vec::new())
    }

    /// Adds a lane's slots; whoever waits gets them first, in order, and before all others one who
    /// must be alone.
    pub fn join(&mut self, lane: LaneId, slots: u16) -> Result<Vec<Grant>, AlreadyJoined> {
        let Err(at) = self.position(lane) else { return Err(AlreadyJoined(lane)) };
        let free = (0..slots).rev().collect();
        let held = vec![false; usize::from(slots)];
        self.lanes.insert(at, Lane { id: lane, free, held, rank: 0 });
        self.rebuild_order();
        Ok(self.settle())
    }

    /// Removes a lane and all its slots, also those that are in use.
    pub fn leave(&mut self, lane: LaneId) -> Left {
        match self.remove(lane) {
            None => Left::NotThere,
            Some(in_use) => Left::Gone { in_use, grants: self.settle() },
        }
    }

    /// Takes a grant back because its lane has ended: the lane leaves, and the waiter stands where
    /// it stood before.
    #[must_use = "a slot that is granted and forgotten is lost"]
    pub fn refuse(&mut self, grant: Grant) -> Vec<Grant> {
        let _in_use = self.remove(grant.slot.lane);
        let Grant { waiter, company, .. } = grant;
        match company {
            Company::Any => {
                let Err(at) = self.waiters.binary_search_by_key(&waiter, |waiter| waiter.id) else {
                    return Vec::new();
                };
                self.waiters.insert(at, Waiter { id: waiter, cancelled: false });
            }
            Company::None => {
                let Err(at) = self.loners.binary_search(&waiter) else { return Vec::new() };
                self.loners.insert(at, waiter);
            }
        }
        self.settle()
    }

    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiters.len() - self.cancelled + self.loners.len()
    }

    /// How many may wait.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    #[must_use]
    pub fn in_use(&self) -> usize {
        self.lanes.iter().map(Lane::in_use).sum()
    }

    /// Serves whoever can be served now, first one who must be alone.
    fn settle(&mut self) -> Vec<Grant> {
        let mut grants = Vec::new();
        if let Some(&waiter) = self.loners.front()
            && let Some(slot) = self.take_alone()
        {
            self.loners.pop_front();
            grants.push(Grant { waiter, slot, company: Company::None });
        }
        self.reopen();
        grants.extend(std::iter::from_fn(|| self.serve_next()));
        grants
    }

    fn serve_next(&mut self) -> Option<Grant> {
        if self.waiters.len() == self.cancelled {
            return None;
        }
        let slot = self.take()?;
        let waiter = self.next_in_queue().expect("somebody waits, as was just checked");
        Some(Grant { waiter, slot, company: Company::Any })
    }

    /// A slot of a lane that has nothing else in use. If there is none, a lane is set apart until
    /// it is so.
    fn take_alone(&mut self) -> Option<SlotRef> {
        if let Apart::Taken(_) = self.apart {
            return None;
        }
        let lanes = self.lanes.iter().enumerate().filter(|(_, lane)| !lane.held.is_empty());
        let (at, in_use) = lanes.map(|(at, lane)| (at, lane.in_use())).min_by_key(|l| l.1)?;
        if in_use > 0 {
            if self.apart == Apart::None {
                self.set_apart(Apart::Draining(self.lanes[at].id));
            }
            return None;
        }
        let lane = &mut self.lanes[at];
        let slot = lane.free.pop().expect("nothing of it is in use, and it has slots");
        lane.held[usize::from(slot)] = true;
        let slot = SlotRef { lane: lane.id, slot };
        self.set_apart(Apart::Taken(slot));
        Some(slot)
    }

    /// Gives back a lane that is being drained for nobody.
    fn reopen(&mut self) {
        if self.loners.is_empty() && matches!(self.apart, Apart::Draining(_)) {
            self.set_apart(Apart::None);
        }
    }

    fn set_apart(&mut self, apart: Apart) {
        self.apart = apart;
        self.rebuild_order();
    }

    fn remove(&mut self, lane: LaneId) -> Option<usize> {
        let at = self.position(lane).ok()?;
        let in_use = self.lanes.remove(at).in_use();
        if self.apart.lane() == Some(lane) {
            self.apart = Apart::None;
        }
        self.rebuild_order();
        Some(in_use)
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
        if self.apart.lane() == Some(lane.id) {
            return None;
        }
        let slot = lane.free.pop()?;
        lane.held[usize::from(slot)] = true;
        let slot = SlotRef { lane: lane.id, slot };
        self.sink(0);
        Some(slot)
    }

    fn position(&self, lane: LaneId) -> Result<usize, usize> {
        self.lanes.binary_search_by_key(&lane, |lane| lane.id)
    }

    /// Lanes with a slot to be had first, then those with the fewest in use, then the lower id.
    fn key(&self, rank: usize) -> (bool, usize, usize) {
        let at = self.order[rank];
        let lane = &self.lanes[at];
        let closed = lane.free.is_empty() || self.apart.lane() == Some(lane.id);
        (closed, lane.in_use(), at)
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
