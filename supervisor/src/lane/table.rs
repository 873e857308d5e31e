//! Which slot holds what: the private truth against which every completion is checked; pure.
//!
//! ```text
//! Free ──lease──► Leased ──publish──► InFlight ──complete, or the lane ends──► Held ──release──► Free
//!                    │                   │abandon                              ▲
//!                    └──release──► Free  └──► Abandoned ──the lane ends────────┘
//!                                                 └──complete (only frees)──► Free
//! ```
//! An abandoned slot is given up by its late completion or by the end of the lane, never before: the
//! worker may still read the one and write the other half of it.

use shared::clock::MonotonicNanos;
use shared::id::RequestId;
use shared::ring::table::Violation;

use super::order::Order;

#[derive(Debug)]
pub(super) struct SlotTable<T> {
    slots: Vec<Slot<T>>,
    published: usize,
    order: Order,
    /// When the request that is the oldest now became the oldest: a worker takes them in order, so
    /// that it cannot have started on it before.
    progress: MonotonicNanos,
}

#[derive(Debug)]
enum Slot<T> {
    Free,
    Leased,
    InFlight { ticket: Ticket, since: MonotonicNanos, payload: T },
    Abandoned { ticket: Ticket, since: MonotonicNanos, payload: T },
    Held,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub(super) request: RequestId,
}

/// What a completion means for whoever published.
#[derive(Debug)]
pub(super) enum Completion<T> {
    /// The slot is held until it is released.
    Answered(T),
    /// Nobody waits; the slot is free again.
    TooLate(T),
}

/// A request that the end of the lane has taken from its worker.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken<T> {
    pub(super) payload: T,
    pub(super) given: Given,
}

/// When a worker was given a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// Before its last progress, so that it may have been at it ever since.
    BeforeProgress,
    /// Later, while it was at something else.
    Since,
}

impl<T> SlotTable<T> {
    pub(super) fn new(slots: u16) -> Self {
        Self {
            slots: (0..slots).map(|_| Slot::Free).collect(),
            published: 0,
            order: Order::new(slots),
            progress: MonotonicNanos(0),
        }
    }

    /// Requests that a worker has and has not answered, abandoned ones among them.
    pub(super) fn published(&self) -> usize {
        self.published
    }

    /// Takes a free slot; `false` if it is not free or does not exist.
    #[must_use]
    pub(super) fn lease(&mut self, slot: u16) -> bool {
        match self.slots.get_mut(usize::from(slot)) {
            Some(entry @ Slot::Free) => {
                *entry = Slot::Leased;
                true
            }
            Some(Slot::Leased | Slot::InFlight { .. } | Slot::Abandoned { .. } | Slot::Held)
            | None => false,
        }
    }

    /// Puts a request into a leased slot.
    pub(super) fn publish(&mut self, slot: u16, ticket: Ticket, payload: T, now: MonotonicNanos) {
        if self.published == 0 {
            self.progress = now;
        }
        let entry = &mut self.slots[usize::from(slot)];
        debug_assert!(matches!(entry, Slot::Leased), "only a leased slot is published");
        *entry = Slot::InFlight { ticket, since: now, payload };
        self.order.push(slot);
        self.published += 1;
    }

    /// Whether the worker has this request.
    pub(super) fn has(&self, request: RequestId) -> bool {
        self.slots.iter().any(|slot| match slot {
            Slot::InFlight { ticket, .. } | Slot::Abandoned { ticket, .. } => {
                ticket.request == request
            }
            Slot::Free | Slot::Leased | Slot::Held => false,
        })
    }

    /// Checks a completion. An error is a violation and changes nothing.
    pub(super) fn complete(
        &mut self,
        slot: u32,
        request: RequestId,
        now: MonotonicNanos,
    ) -> Result<Completion<T>, Violation> {
        let index = u16::try_from(slot).map_err(|_| Violation::Slot(slot))?;
        let entry = self.slots.get_mut(usize::from(index)).ok_or(Violation::Slot(slot))?;
        match entry {
            Slot::InFlight { ticket, .. } | Slot::Abandoned { ticket, .. }
                if ticket.request == request => {}
            Slot::InFlight { .. }
            | Slot::Abandoned { .. }
            | Slot::Free
            | Slot::Leased
            | Slot::Held => return Err(Violation::Request { slot }),
        }
        self.published -= 1;
        if self.order.oldest() == Some(index) {
            self.progress = now;
        }
        self.order.remove(index);
        match std::mem::replace(entry, Slot::Held) {
            Slot::InFlight { payload, .. } => Ok(Completion::Answered(payload)),
            Slot::Abandoned { payload, .. } => {
                *entry = Slot::Free;
                Ok(Completion::TooLate(payload))
            }
            Slot::Free | Slot::Leased | Slot::Held => unreachable!("matched above"),
        }
    }

    /// Nobody waits for this request any more. Without effect if it was answered meanwhile.
    pub(super) fn abandon(&mut self, slot: u16, request: RequestId) {
        let entry = &mut self.slots[usize::from(slot)];
        match std::mem::replace(entry, Slot::Free) {
            Slot::InFlight { ticket, since, payload } if ticket.request == request => {
                *entry = Slot::Abandoned { ticket, since, payload };
            }
            other @ (Slot::InFlight { .. }
            | Slot::Abandoned { .. }
            | Slot::Free
            | Slot::Leased
            | Slot::Held) => *entry = other,
        }
    }

    /// Gives back a leased or held slot.
    pub(super) fn release(&mut self, slot: u16) {
        let entry = &mut self.slots[usize::from(slot)];
        debug_assert!(matches!(entry, Slot::Leased | Slot::Held), "only what is owned is released");
        *entry = Slot::Free;
    }

    /// Takes every request that was published and not answered; the lane has ended. Their slots are
    /// held until each is released.
    pub(super) fn take_published(&mut self) -> Vec<Taken<T>> {
        let mut taken = Vec::with_capacity(self.published);
        for entry in &mut self.slots {
            match std::mem::replace(entry, Slot::Held) {
                Slot::InFlight { since, payload, .. } | Slot::Abandoned { since, payload, .. } => {
                    let given =
                        if since <= self.progress { Given::BeforeProgress } else { Given::Since };
                    taken.push(Taken { payload, given });
                }
                other @ (Slot::Free | Slot::Leased | Slot::Held) => *entry = other,
            }
        }
        self.published = 0;
        self.order.clear();
        taken
    }

    /// Since when the worker could have been at work on the oldest request that it has not answered;
    /// `None` if it has none. Answers to younger ones do not count: a worker that leaves one request
    /// aside for good has lost it, and its slot with it. What clients ask for (their own deadlines) plays no part: a worker is judged by its work.
    pub(super) fn stalled_since(&self) -> Option<MonotonicNanos> {
        (self.published > 0).then_some(self.progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(request: u64) -> Ticket {
        Ticket { request: RequestId(request) }
    }

    fn table() -> SlotTable<&'static str> {
        let mut table = SlotTable::new(2);
        assert!(table.lease(0));
        table.publish(0, ticket(7), "seven", MonotonicNanos(10));
        table
    }

    #[test]
    fn an_answer_is_taken_once() {
        let mut table = table();
        assert!(matches!(
            table.complete(0, RequestId(7), MonotonicNanos(30)),
            Ok(Completion::Answered("seven"))
        ));
        let again = table.complete(0, RequestId(7), MonotonicNanos(30));
        assert!(matches!(again, Err(Violation::Request { slot: 0 })), "a replayed completion");
        assert!(!table.lease(0), "held");
        table.release(0);
        assert!(table.lease(0));
    }

    #[test]
    fn forged_completions_are_violations_and_change_nothing() {
        let mut table = table();
        assert!(matches!(
            table.complete(0, RequestId(8), MonotonicNanos(30)),
            Err(Violation::Request { slot: 0 })
        ));
        assert!(matches!(
            table.complete(1, RequestId(7), MonotonicNanos(30)),
            Err(Violation::Request { slot: 1 })
        ));
        assert!(matches!(
            table.complete(2, RequestId(7), MonotonicNanos(30)),
            Err(Violation::Slot(2))
        ));
        assert_eq!(table.published(), 1);
    }

    #[test]
    fn an_abandoned_slot_is_freed_by_its_late_answer_alone() {
        let mut table = table();
        table.abandon(0, RequestId(6));
        table.abandon(0, RequestId(7));
        assert!(!table.lease(0), "the worker may still write it");
        assert!(matches!(
            table.complete(0, RequestId(7), MonotonicNanos(30)),
            Ok(Completion::TooLate("seven"))
        ));
        assert!(table.lease(0));
        assert_eq!((table.published(), table.stalled_since()), (0, None));
    }

    #[test]
    fn the_end_of_a_lane_takes_all_that_was_published() {
        let mut table = table();
        assert!(table.lease(1));
        table.publish(1, ticket(9), "nine", MonotonicNanos(20));
        table.abandon(1, RequestId(9));
        let taken = [("seven", Given::BeforeProgress), ("nine", Given::Since)];
        let taken = taken.map(|(payload, given)| Taken { payload, given });
        assert_eq!(table.take_published(), taken);
        assert_eq!(table.published(), 0);
        assert!(!table.lease(0), "whoever has the request still has its slot");
        table.release(0);
        assert!(table.lease(0));
    }

    #[test]
    fn progress_is_an_answer_or_the_first_work() {
        let mut table = table();
        assert_eq!(table.stalled_since(), Some(MonotonicNanos(10)));
        assert!(table.lease(1));
        table.publish(1, ticket(9), "nine", MonotonicNanos(20));
        assert_eq!(table.stalled_since(), Some(MonotonicNanos(10)), "more work is no progress");
        table.abandon(0, RequestId(7));
        assert_eq!(table.stalled_since(), Some(MonotonicNanos(10)), "nor is a client that left");
        assert!(table.complete(0, RequestId(7), MonotonicNanos(30)).is_ok());
        assert_eq!(table.stalled_since(), Some(MonotonicNanos(30)));
    }

    #[test]
    fn a_request_that_is_passed_over_stalls_however_many_others_are_answered() {
        let mut table = table();
        for (request, now) in (100..).zip([20, 30, 40]) {
            assert!(table.lease(1));
            table.publish(1, ticket(request), "other", MonotonicNanos(now));
            assert!(table.complete(1, RequestId(request), MonotonicNanos(now + 5)).is_ok());
            table.release(1);
            assert_eq!(table.stalled_since(), Some(MonotonicNanos(10)));
        }
    }

    #[test]
    fn each_request_has_its_own_time_from_when_it_is_the_oldest() {
        let mut table = table();
        assert!(table.lease(1));
        table.publish(1, ticket(9), "nine", MonotonicNanos(11));
        assert!(table.complete(0, RequestId(7), MonotonicNanos(500)).is_ok());
        assert_eq!(table.stalled_since(), Some(MonotonicNanos(500)), "not since it came");
    }
}
