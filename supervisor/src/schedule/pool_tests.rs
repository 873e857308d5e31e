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

fn shared(waiter: u64, slot: SlotRef) -> Grant {
    Grant { waiter: WaiterId(waiter), slot, company: Company::Any }
}

fn alone(waiter: u64, slot: SlotRef) -> Grant {
    Grant { waiter: WaiterId(waiter), slot, company: Company::None }
}

const ALONE: Claim = Claim { company: Company::None, coming: Coming::New };

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
        assert_eq!(pool.acquire(Claim::ANY), expected);
    }
    assert_eq!(pool.acquire(Claim::ANY), Acquired::Full { limit: 0 });
    assert_eq!(pool.in_use(), 5);
}

#[test]
fn the_slot_that_was_given_back_last_is_taken_first() {
    let mut pool = pool(0, &[(1, 3)]);
    for index in 0..3 {
        assert_eq!(pool.acquire(Claim::ANY), granted(1, index));
    }
    for index in [0, 2, 1] {
        assert_eq!(pool.release(slot(1, index)), Released::Free);
    }
    assert_eq!(pool.acquire(Claim::ANY), granted(1, 1));
    assert_eq!(pool.acquire(Claim::ANY), granted(1, 2));
}

#[test]
fn a_released_slot_goes_to_the_one_who_waited_longest_and_did_not_give_up() {
    let mut pool = pool(3, &[(1, 1)]);
    assert_eq!(pool.acquire(Claim::ANY), granted(1, 0));
    for waiter in 0..3 {
        assert_eq!(pool.acquire(Claim::ANY), Acquired::Queued(WaiterId(waiter)));
    }
    assert_eq!(pool.acquire(Claim::ANY), Acquired::Full { limit: 3 });
    assert_eq!(pool.cancel(WaiterId(0)), Cancelled::Removed(Vec::new()));
    assert_eq!(pool.cancel(WaiterId(0)), Cancelled::NotWaiting);
    let grant = shared(1, slot(1, 0));
    assert_eq!(pool.release(slot(1, 0)), Released::Handed(grant));
    assert_eq!(pool.cancel(WaiterId(1)), Cancelled::NotWaiting);
    assert_eq!(pool.waiting(), 1);
}

#[test]
fn a_lane_that_leaves_strands_nobody() {
    let mut pool = pool(2, &[(1, 1)]);
    assert_eq!(pool.acquire(Claim::ANY), granted(1, 0));
    assert_eq!(pool.acquire(Claim::ANY), Acquired::Queued(WaiterId(0)));
    assert_eq!(pool.leave(LaneId(1)), Left::Gone { in_use: 1, grants: Vec::new() });
    assert_eq!(pool.release(slot(1, 0)), Released::LaneGone);
    assert_eq!(pool.acquire(Claim::ANY), Acquired::Queued(WaiterId(1)));
    let grants = [0, 1].map(|n| shared(n.into(), slot(2, n)));
    assert_eq!(pool.join(LaneId(2), 3), Ok(grants.to_vec()));
    assert_eq!(pool.acquire(Claim::ANY), granted(2, 2));
}

#[test]
fn mistakes_are_reported_and_change_nothing() {
    let mut pool = pool(0, &[(1, 1)]);
    assert_eq!(pool.join(LaneId(1), 5), Err(AlreadyJoined(LaneId(1))));
    assert_eq!(pool.release(slot(1, 0)), Released::NotHeld);
    assert_eq!(pool.release(slot(1, 9)), Released::NotHeld);
    assert_eq!(pool.leave(LaneId(2)), Left::NotThere);
    assert_eq!(pool.acquire(Claim::ANY), granted(1, 0));
    assert_eq!(pool.acquire(Claim::ANY), Acquired::Full { limit: 0 });
}

#[test]
fn a_queue_that_is_joined_and_left_for_ever_does_not_grow() {
    let mut pool = pool(4, &[]);
    assert_eq!(pool.acquire(Claim::ANY), Acquired::Queued(WaiterId(0)));
    for _ in 0..1000 {
        let Acquired::Queued(waiter) = pool.acquire(Claim::ANY) else {
            panic!("the queue is full")
        };
        assert_eq!(pool.cancel(waiter), Cancelled::Removed(Vec::new()));
        assert!(pool.waiters.len() <= 4);
    }
}

#[test]
fn who_must_be_alone_gets_a_lane_when_it_is_empty_and_the_others_go_on() {
    let mut pool = pool(9, &[(1, 2), (2, 2)]);
    for expected in [granted(1, 0), granted(2, 0), granted(1, 1)] {
        assert_eq!(pool.acquire(Claim::ANY), expected);
    }
    assert_eq!(pool.acquire(ALONE), Acquired::Queued(WaiterId(0)), "lane 2 is drained for it");
    assert_eq!(pool.acquire(Claim::ANY), Acquired::Queued(WaiterId(1)), "lane 1 is full");
    assert_eq!(pool.release(slot(1, 1)), Released::Settled(vec![shared(1, slot(1, 1))]));
    assert_eq!(pool.release(slot(2, 0)), Released::Settled(vec![alone(0, slot(2, 0))]));
    assert_eq!(pool.acquire(Claim::ANY), Acquired::Queued(WaiterId(2)), "beside nobody");
    let served = vec![shared(2, slot(2, 0))];
    assert_eq!(pool.release(slot(2, 0)), Released::Settled(served), "it is open again");
}

#[test]
fn a_lane_that_is_empty_first_is_taken_and_the_other_opens_again() {
    let mut pool = pool(9, &[(1, 1), (2, 2)]);
    for expected in [granted(1, 0), granted(2, 0)] {
        assert_eq!(pool.acquire(Claim::ANY), expected);
    }
    assert_eq!(pool.acquire(ALONE), Acquired::Queued(WaiterId(0)), "lane 1 is drained for it");
    assert_eq!(pool.acquire(ALONE), Acquired::Queued(WaiterId(1)));
    assert_eq!(pool.release(slot(2, 0)), Released::Settled(vec![alone(0, slot(2, 0))]));
    assert_eq!(pool.release(slot(1, 0)), Released::Settled(Vec::new()), "one lane at a time");
    assert_eq!(pool.acquire(Claim::ANY), granted(1, 0));
    assert_eq!(pool.release(slot(2, 0)), Released::Settled(vec![alone(1, slot(2, 0))]));
}

#[test]
fn a_new_lane_serves_who_must_be_alone_first() {
    let mut pool = pool(9, &[]);
    assert_eq!(pool.acquire(Claim::ANY), Acquired::Queued(WaiterId(0)));
    assert_eq!(pool.acquire(ALONE), Acquired::Queued(WaiterId(1)));
    assert_eq!(pool.join(LaneId(1), 2), Ok(vec![alone(1, slot(1, 0))]));
    assert_eq!(pool.release(slot(1, 0)), Released::Settled(vec![shared(0, slot(1, 0))]));
}

#[test]
fn one_who_gives_up_being_alone_opens_the_lane_again() {
    let mut pool = pool(9, &[(1, 2)]);
    assert_eq!(pool.acquire(Claim::ANY), granted(1, 0));
    assert_eq!(pool.acquire(ALONE), Acquired::Queued(WaiterId(0)));
    assert_eq!(pool.acquire(Claim::ANY), Acquired::Queued(WaiterId(1)));
    assert_eq!(pool.cancel(WaiterId(0)), Cancelled::Removed(vec![shared(1, slot(1, 1))]));
}

#[test]
fn a_grant_on_a_lane_that_has_ended_costs_no_place_in_the_queue() {
    let mut pool = pool(9, &[(1, 1)]);
    assert_eq!(pool.acquire(Claim::ANY), granted(1, 0));
    for waiter in 0..2 {
        assert_eq!(pool.acquire(Claim::ANY), Acquired::Queued(WaiterId(waiter)));
    }
    let grant = shared(0, slot(1, 0));
    assert_eq!(pool.release(slot(1, 0)), Released::Handed(grant));
    assert_eq!(pool.refuse(grant), []);
    assert_eq!(pool.leave(LaneId(1)), Left::NotThere);
    assert_eq!(pool.join(LaneId(2), 1), Ok(vec![shared(0, slot(2, 0))]));
    assert_eq!(pool.waiting(), 1);
}

#[test]
fn who_comes_back_is_not_refused_for_a_full_queue() {
    let mut pool = pool(0, &[]);
    assert_eq!(pool.acquire(ALONE), Acquired::Full { limit: 0 });
    let back = Claim { coming: Coming::Back, ..ALONE };
    assert_eq!(pool.acquire(back), Acquired::Queued(WaiterId(0)));
}

/// The same promises, kept by looking through everything.
#[derive(Debug, Default)]
struct Model {
    /// Free slots, the next to be taken last, and held ones.
    lanes: BTreeMap<LaneId, (Vec<u16>, BTreeSet<u16>)>,
    waiters: BTreeSet<WaiterId>,
    loners: BTreeSet<WaiterId>,
    drained: Option<LaneId>,
    alone: Option<SlotRef>,
    came: u64,
}

const LIMIT: usize = 3;

impl Model {
    fn apart(&self) -> Option<LaneId> {
        self.drained.or(self.alone.map(|slot| slot.lane))
    }

    fn take_from(&mut self, lane: LaneId) -> SlotRef {
        let (free, held) = self.lanes.get_mut(&lane).unwrap();
        let slot = free.pop().unwrap();
        assert!(held.insert(slot), "granted twice");
        SlotRef { lane, slot }
    }

    fn take(&mut self) -> Option<SlotRef> {
        let apart = self.apart();
        let open =
            self.lanes.iter().filter(|(id, (free, _))| !free.is_empty() && Some(**id) != apart);
        let (&lane, _) = open.min_by_key(|(id, (_, held))| (held.len(), **id))?;
        Some(self.take_from(lane))
    }

    fn take_alone(&mut self) -> Option<SlotRef> {
        if self.alone.is_some() {
            return None;
        }
        let lanes = self.lanes.iter().filter(|(_, (free, held))| free.len() + held.len() > 0);
        let (&lane, (_, held)) = lanes.min_by_key(|(id, (_, held))| (held.len(), **id))?;
        if !held.is_empty() {
            self.drained = self.drained.or(Some(lane));
            return None;
        }
        self.drained = None;
        self.alone = Some(self.take_from(lane));
        self.alone
    }

    fn settle(&mut self) -> Vec<Grant> {
        let mut grants = Vec::new();
        if let Some(&waiter) = self.loners.first()
            && let Some(slot) = self.take_alone()
        {
            self.loners.pop_first();
            grants.push(alone(waiter.0, slot));
        }
        if self.loners.is_empty() {
            self.drained = None;
        }
        while !self.waiters.is_empty() {
            let Some(slot) = self.take() else { break };
            grants.push(shared(self.waiters.pop_first().unwrap().0, slot));
        }
        grants
    }

    fn acquire(&mut self, claim: Claim) -> Acquired {
        let taken = match claim.company {
            Company::Any => self.take(),
            Company::None if self.loners.is_empty() => self.take_alone(),
            Company::None => None,
        };
        if let Some(slot) = taken {
            return Acquired::Granted(slot);
        }
        if claim.coming == Coming::New && self.waiters.len() + self.loners.len() >= LIMIT {
            self.settle();
            return Acquired::Full { limit: LIMIT };
        }
        let id = WaiterId(self.came);
        self.came += 1;
        match claim.company {
            Company::Any => self.waiters.insert(id),
            Company::None => self.loners.insert(id),
        };
        Acquired::Queued(id)
    }

    fn release(&mut self, slot: SlotRef) -> Released {
        let Some((free, held)) = self.lanes.get_mut(&slot.lane) else { return Released::LaneGone };
        if !held.remove(&slot.slot) {
            return Released::NotHeld;
        }
        free.push(slot.slot);
        if self.alone.is_none() && self.loners.is_empty() {
            return match self.settle().pop() {
                Some(grant) => Released::Handed(grant),
                None => Released::Free,
            };
        }
        self.alone = self.alone.filter(|&alone| alone != slot);
        Released::Settled(self.settle())
    }

    fn cancel(&mut self, waiter: WaiterId) -> Cancelled {
        if self.waiters.remove(&waiter) || self.loners.remove(&waiter) {
            return Cancelled::Removed(self.settle());
        }
        Cancelled::NotWaiting
    }

    fn join(&mut self, lane: LaneId, slots: u16) -> Result<Vec<Grant>, AlreadyJoined> {
        if self.lanes.contains_key(&lane) {
            return Err(AlreadyJoined(lane));
        }
        self.lanes.insert(lane, ((0..slots).rev().collect(), BTreeSet::new()));
        Ok(self.settle())
    }

    fn remove(&mut self, lane: LaneId) -> Option<usize> {
        let (_, held) = self.lanes.remove(&lane)?;
        self.drained = self.drained.filter(|&drained| drained != lane);
        self.alone = self.alone.filter(|alone| alone.lane != lane);
        Some(held.len())
    }

    fn leave(&mut self, lane: LaneId) -> Left {
        match self.remove(lane) {
            Some(in_use) => Left::Gone { in_use, grants: self.settle() },
            None => Left::NotThere,
        }
    }

    fn refuse(&mut self, grant: Grant) -> Vec<Grant> {
        let _in_use = self.remove(grant.slot.lane);
        match grant.company {
            Company::Any => self.waiters.insert(grant.waiter),
            Company::None => self.loners.insert(grant.waiter),
        };
        self.settle()
    }

    /// What must hold between any two calls.
    fn check(&self) {
        let apart = self.apart();
        let open = self.lanes.iter().filter(|(id, _)| Some(**id) != apart);
        let free: usize = open.map(|(_, (free, _))| free.len()).sum();
        assert!(self.waiters.is_empty() || free == 0, "somebody waits beside a free slot");
        if let Some(slot) = self.alone {
            assert_eq!(self.lanes[&slot.lane].1, BTreeSet::from([slot.slot]), "not alone");
            assert_eq!(self.drained, None, "two lanes are set apart");
        }
        let slots = |lane: &(Vec<u16>, BTreeSet<u16>)| lane.0.len() + lane.1.len();
        if !self.loners.is_empty() && self.lanes.values().any(|lane| slots(lane) > 0) {
            assert!(apart.is_some(), "no lane is kept for one who must be alone");
            let idle = self.lanes.values().any(|lane| slots(lane) > 0 && lane.1.is_empty());
            assert!(self.alone.is_some() || !idle, "it waits beside an empty lane");
        }
        if self.loners.is_empty() {
            assert_eq!(self.drained, None, "a lane is drained for nobody");
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Acquire(Claim),
    Release(SlotRef),
    Cancel(u64),
    Join(LaneId, u16),
    Leave(LaneId),
    /// The lane of the latest grant to a waiter turns out to have ended.
    Refuse,
}

fn any_op() -> impl Strategy<Value = Op> {
    let lane = || (0_u64..7).prop_map(LaneId);
    let slot = (lane(), 0_u16..4).prop_map(|(lane, slot)| SlotRef { lane, slot });
    let back = |company| Claim { company, coming: Coming::Back };
    prop_oneof![
        8 => Just(Op::Acquire(Claim::ANY)),
        2 => Just(Op::Acquire(ALONE)),
        1 => prop_oneof![Just(Company::Any), Just(Company::None)]
            .prop_map(move |company| Op::Acquire(back(company))),
        10 => slot.prop_map(Op::Release),
        2 => (0_u64..30).prop_map(Op::Cancel),
        2 => (lane(), 0_u16..4).prop_map(|(lane, slots)| Op::Join(lane, slots)),
        1 => lane().prop_map(Op::Leave),
        1 => Just(Op::Refuse),
    ]
}

fn granted_by(released: &Released) -> Option<Grant> {
    match released {
        Released::Handed(grant) => Some(*grant),
        Released::Settled(grants) => grants.last().copied(),
        Released::Free | Released::LaneGone | Released::NotHeld => None,
    }
}

proptest! {
    #[test]
    fn it_agrees_with_a_model_that_looks_through_everything(
        ops in prop::collection::vec(any_op(), 0..400),
    ) {
        let (mut pool, mut model) = (Pool::new(LIMIT), Model::default());
        let mut latest = None;
        for op in ops {
            let mut grant = None;
            match op {
                Op::Acquire(claim) => prop_assert_eq!(pool.acquire(claim), model.acquire(claim)),
                Op::Release(slot) => {
                    let released = pool.release(slot);
                    grant = granted_by(&released);
                    prop_assert_eq!(released, model.release(slot));
                }
                Op::Cancel(back) => {
                    let waiter = WaiterId(model.came.saturating_sub(back));
                    prop_assert_eq!(pool.cancel(waiter), model.cancel(waiter));
                }
                Op::Join(lane, slots) => {
                    let grants = pool.join(lane, slots);
                    grant = grants.as_ref().ok().and_then(|grants| grants.last().copied());
                    prop_assert_eq!(grants, model.join(lane, slots));
                }
                Op::Leave(lane) => prop_assert_eq!(pool.leave(lane), model.leave(lane)),
                // Only a grant that was made just now can be taken back.
                Op::Refuse => if let Some(grant) = latest {
                    prop_assert_eq!(pool.refuse(grant), model.refuse(grant));
                },
            }
            latest = grant;
            prop_assert_eq!(pool.waiting(), model.waiters.len() + model.loners.len());
            model.check();
            for (at, lane) in pool.lanes.iter().enumerate() {
                prop_assert_eq!(pool.order[lane.rank], at);
            }
        }
    }

    /// However many must be alone, and whatever others do, each gets its turn and so do the others.
    #[test]
    fn everyone_is_served_in_the_end(
        lanes in 1_u64..4, slots in 1_u16..4, claims in prop::collection::vec(any::<bool>(), 1..60),
    ) {
        let mut pool = Pool::new(usize::MAX);
        for lane in 0..lanes {
            prop_assert_eq!(pool.join(LaneId(lane), slots), Ok(Vec::new()));
        }
        let (mut held, mut served) = (VecDeque::new(), 0);
        for &alone in &claims {
            let company = if alone { Company::None } else { Company::Any };
            if let Acquired::Granted(slot) = pool.acquire(Claim { company, coming: Coming::New }) {
                held.push_back(slot);
                served += 1;
            }
        }
        while let Some(slot) = held.pop_front() {
            let grants = match pool.release(slot) {
                Released::Handed(grant) => vec![grant],
                Released::Settled(grants) => grants,
                Released::Free | Released::LaneGone | Released::NotHeld => Vec::new(),
            };
            served += grants.len();
            held.extend(grants.into_iter().map(|grant| grant.slot));
        }
        prop_assert_eq!(served, claims.len());
        prop_assert_eq!((pool.waiting(), pool.in_use()), (0, 0));
    }
}
