//! The pool by example, and against a model that scans lists.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn slot(lane: u64, slot: u16) -> SlotRef {
    SlotRef { lane: LaneId(lane), slot }
}

fn granted(lane: u64, index: u16) -> Acquired {
    Acquired::Granted(slot(lane, index))
}

fn pool(limit: usize, lanes: &[(u64, u16)]) -> Pool {
    let mut pool = Pool::new(limit);
    for &(lane, slots) in lanes {
        assert_eq!(pool.join(LaneId(lane), slots), Ok(Vec::new()));
    }
    pool
}

#[test]
fn the_lane_with_the_fewest_slots_in_use_is_first_and_ties_go_to_the_lower_id() {
    let mut pool = pool(0, &[(7, 3), (3, 2)]);
    for expected in [granted(3, 0), granted(7, 0), granted(3, 1), granted(7, 1), granted(7, 2)] {
        assert_eq!(pool.acquire(), expected);
    }
    assert_eq!(pool.acquire(), Acquired::Full { limit: 0 });
    assert_eq!(pool.in_use(), 5);
}

#[test]
fn the_slot_that_was_given_back_last_is_taken_first() {
    let mut pool = pool(0, &[(1, 3)]);
    for index in 0..3 {
        assert_eq!(pool.acquire(), granted(1, index));
    }
    for index in [0, 2, 1] {
        assert_eq!(pool.release(slot(1, index)), Released::Free);
    }
    assert_eq!(pool.acquire(), granted(1, 1));
    assert_eq!(pool.acquire(), granted(1, 2));
}

#[test]
fn a_released_slot_goes_to_the_one_who_waited_longest_and_did_not_give_up() {
    let mut pool = pool(3, &[(1, 1)]);
    assert_eq!(pool.acquire(), granted(1, 0));
    for waiter in 0..3 {
        assert_eq!(pool.acquire(), Acquired::Queued(WaiterId(waiter)));
    }
    assert_eq!(pool.acquire(), Acquired::Full { limit: 3 });
    assert_eq!(pool.cancel(WaiterId(0)), Cancelled::Removed);
    assert_eq!(pool.cancel(WaiterId(0)), Cancelled::NotWaiting);
    let grant = Grant { waiter: WaiterId(1), slot: slot(1, 0) };
    assert_eq!(pool.release(slot(1, 0)), Released::Handed(grant));
    assert_eq!(pool.cancel(WaiterId(1)), Cancelled::NotWaiting);
    assert_eq!(pool.waiting(), 1);
}

#[test]
fn a_lane_that_leaves_strands_nobody() {
    let mut pool = pool(2, &[(1, 1)]);
    assert_eq!(pool.acquire(), granted(1, 0));
    assert_eq!(pool.acquire(), Acquired::Queued(WaiterId(0)));
    assert_eq!(pool.leave(LaneId(1)), Left::Gone { in_use: 1 });
    assert_eq!(pool.release(slot(1, 0)), Released::LaneGone);
    assert_eq!(pool.acquire(), Acquired::Queued(WaiterId(1)));
    let grants = [0, 1].map(|n| Grant { waiter: WaiterId(n.into()), slot: slot(2, n) });
    assert_eq!(pool.join(LaneId(2), 3), Ok(grants.to_vec()));
    assert_eq!(pool.acquire(), granted(2, 2));
}

#[test]
fn mistakes_are_reported_and_change_nothing() {
    let mut pool = pool(0, &[(1, 1)]);
    assert_eq!(pool.join(LaneId(1), 5), Err(AlreadyJoined(LaneId(1))));
    assert_eq!(pool.release(slot(1, 0)), Released::NotHeld);
    assert_eq!(pool.release(slot(1, 9)), Released::NotHeld);
    assert_eq!(pool.leave(LaneId(2)), Left::NotThere);
    assert_eq!(pool.acquire(), granted(1, 0));
    assert_eq!(pool.acquire(), Acquired::Full { limit: 0 });
}

#[test]
fn a_queue_that_is_joined_and_left_for_ever_does_not_grow() {
    let mut pool = pool(4, &[]);
    assert_eq!(pool.acquire(), Acquired::Queued(WaiterId(0)));
    for _ in 0..1000 {
        let Acquired::Queued(waiter) = pool.acquire() else { panic!("the queue is full") };
        assert_eq!(pool.cancel(waiter), Cancelled::Removed);
        assert!(pool.waiters.len() <= 4);
    }
}

/// The same promises, kept by looking through everything.
#[derive(Debug, Default)]
struct Model {
    /// Free slots, the next to be taken last, and held ones.
    lanes: BTreeMap<LaneId, (Vec<u16>, BTreeSet<u16>)>,
    waiters: Vec<WaiterId>,
    came: u64,
}

const LIMIT: usize = 3;

impl Model {
    fn take(&mut self) -> Option<SlotRef> {
        let open = self.lanes.iter_mut().filter(|(_, (free, _))| !free.is_empty());
        let (&lane, (free, held)) = open.min_by_key(|(id, (_, held))| (held.len(), **id))?;
        let slot = free.pop()?;
        assert!(held.insert(slot), "granted twice");
        Some(SlotRef { lane, slot })
    }

    fn acquire(&mut self) -> Acquired {
        if let Some(slot) = self.take() {
            return Acquired::Granted(slot);
        }
        if self.waiters.len() == LIMIT {
            return Acquired::Full { limit: LIMIT };
        }
        self.waiters.push(WaiterId(self.came));
        self.came += 1;
        Acquired::Queued(WaiterId(self.came - 1))
    }

    fn release(&mut self, slot: SlotRef) -> Released {
        let Some((free, held)) = self.lanes.get_mut(&slot.lane) else { return Released::LaneGone };
        if !held.contains(&slot.slot) {
            return Released::NotHeld;
        }
        if !self.waiters.is_empty() {
            return Released::Handed(Grant { waiter: self.waiters.remove(0), slot });
        }
        held.remove(&slot.slot);
        free.push(slot.slot);
        Released::Free
    }

    fn cancel(&mut self, waiter: WaiterId) -> Cancelled {
        match self.waiters.iter().position(|&waits| waits == waiter) {
            Some(at) => {
                self.waiters.remove(at);
                Cancelled::Removed
            }
            None => Cancelled::NotWaiting,
        }
    }

    fn join(&mut self, lane: LaneId, slots: u16) -> Result<Vec<Grant>, AlreadyJoined> {
        if self.lanes.contains_key(&lane) {
            return Err(AlreadyJoined(lane));
        }
        self.lanes.insert(lane, ((0..slots).rev().collect(), BTreeSet::new()));
        let mut grants = Vec::new();
        while !self.waiters.is_empty() {
            let Some(slot) = self.take() else { break };
            grants.push(Grant { waiter: self.waiters.remove(0), slot });
        }
        Ok(grants)
    }

    fn leave(&mut self, lane: LaneId) -> Left {
        let gone = self.lanes.remove(&lane);
        gone.map_or(Left::NotThere, |(_, held)| Left::Gone { in_use: held.len() })
    }

    fn free(&self) -> usize {
        self.lanes.values().map(|(free, _)| free.len()).sum()
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Acquire,
    Release(SlotRef),
    Cancel(u64),
    Join(LaneId, u16),
    Leave(LaneId),
}

fn any_op() -> impl Strategy<Value = Op> {
    let lane = || (0_u64..7).prop_map(LaneId);
    let slot = (lane(), 0_u16..4).prop_map(|(lane, slot)| SlotRef { lane, slot });
    prop_oneof![
        8 => Just(Op::Acquire),
        8 => slot.prop_map(Op::Release),
        2 => (0_u64..30).prop_map(Op::Cancel),
        2 => (lane(), 0_u16..4).prop_map(|(lane, slots)| Op::Join(lane, slots)),
        1 => lane().prop_map(Op::Leave),
    ]
}

proptest! {
    #[test]
    fn it_agrees_with_a_model_that_looks_through_everything(
        ops in prop::collection::vec(any_op(), 0..400),
    ) {
        let (mut pool, mut model) = (Pool::new(LIMIT), Model::default());
        for op in ops {
            match op {
                Op::Acquire => prop_assert_eq!(pool.acquire(), model.acquire()),
                Op::Release(slot) => prop_assert_eq!(pool.release(slot), model.release(slot)),
                Op::Cancel(back) => {
                    let waiter = WaiterId(model.came.saturating_sub(back));
                    prop_assert_eq!(pool.cancel(waiter), model.cancel(waiter));
                }
                Op::Join(lane, slots) => {
                    prop_assert_eq!(pool.join(lane, slots), model.join(lane, slots));
                }
                Op::Leave(lane) => prop_assert_eq!(pool.leave(lane), model.leave(lane)),
            }
            prop_assert_eq!(pool.waiting(), model.waiters.len());
            prop_assert!(pool.waiting() == 0 || model.free() == 0, "somebody waits beside a free slot");
            prop_assert!(pool.waiting() <= LIMIT);
            for (at, lane) in pool.lanes.iter().enumerate() {
                prop_assert_eq!(pool.order[lane.rank], at);
            }
        }
    }
}
