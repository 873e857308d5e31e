//! The table by example, and against a list of all that ever happened.

use proptest::prelude::*;

use super::*;

const TTL: Duration = Duration::from_nanos(100);

fn table(after: u32) -> Suspects {
    Suspects::new(PoisonPolicy { after, ttl: TTL })
}

fn worker(generation: u64) -> Incarnation {
    Incarnation { instance: 0, generation: Generation(generation) }
}

const KILLER: Fingerprint = Fingerprint(7);
const INNOCENT: Fingerprint = Fingerprint(8);

fn convicted(crashes: u32, left: u64) -> Standing {
    Standing::Convicted(Conviction { crashes, left: Duration::from_nanos(left) })
}

#[test]
fn who_was_there_is_suspect_and_who_ends_another_alone_is_convicted() {
    let (mut table, at) = (table(2), MonotonicNanos);
    for request in [KILLER, INNOCENT] {
        let standing = table.crashed(request, Evidence::AmongOthers, worker(1), at(10));
        assert_eq!(standing, Standing::Suspect);
    }
    assert_eq!(table.of_generation(worker(1)), [KILLER, INNOCENT]);
    table.answered(INNOCENT);
    assert_eq!(table.standing(INNOCENT, at(11)), Standing::Clear);
    assert_eq!(table.crashed(KILLER, Evidence::Alone, worker(2), at(20)), convicted(2, 100));
    table.answered(KILLER);
    assert_eq!(table.standing(KILLER, at(119)), convicted(2, 1));
    assert_eq!(table.standing(KILLER, at(120)), Standing::Clear);
    assert!(table.is_empty());
}

#[test]
fn company_convicts_nobody_however_often() {
    let mut table = table(1);
    for generation in 1..9 {
        let now = MonotonicNanos(generation);
        let standing = table.crashed(KILLER, Evidence::AmongOthers, worker(generation), now);
        assert_eq!(standing, Standing::Suspect);
    }
    let standing = table.crashed(KILLER, Evidence::Alone, worker(9), MonotonicNanos(9));
    assert_eq!(standing, convicted(2, 100));
}

#[test]
fn one_worker_is_enough_where_one_is_allowed_and_none_where_it_is_off() {
    let now = MonotonicNanos(0);
    assert_eq!(table(1).crashed(KILLER, Evidence::Alone, worker(1), now), convicted(1, 100));
    let mut off = table(0);
    assert_eq!(off.crashed(KILLER, Evidence::Alone, worker(1), now), Standing::Clear);
    assert!(off.is_empty());
}

#[test]
fn suspects_are_pushed_out_before_convictions_and_old_ones_first() {
    let mut table = table(2);
    for generation in 1..3 {
        let now = MonotonicNanos(0);
        let _standing = table.crashed(KILLER, Evidence::Alone, worker(generation), now);
    }
    for n in 0..MAX_ENTRIES as u64 {
        let (request, now) = (Fingerprint(1000 + n), MonotonicNanos(1 + n / 8));
        let _standing = table.crashed(request, Evidence::AmongOthers, worker(3), now);
    }
    let now = MonotonicNanos(33);
    assert_eq!(table.len(), MAX_ENTRIES);
    assert!(matches!(table.standing(KILLER, now), Standing::Convicted(_)));
    assert_eq!(table.standing(Fingerprint(1000), now), Standing::Clear);
    assert_eq!(table.standing(Fingerprint(1001), now), Standing::Suspect);
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Crash(Fingerprint, Evidence),
    Answer(Fingerprint),
    Pass(u64),
}

fn any_op() -> impl Strategy<Value = Op> {
    let request = || (0_u64..4).prop_map(Fingerprint);
    let evidence = prop_oneof![Just(Evidence::Alone), Just(Evidence::AmongOthers)];
    prop_oneof![
        4 => (request(), evidence).prop_map(|(request, evidence)| Op::Crash(request, evidence)),
        1 => request().prop_map(Op::Answer),
        2 => (0_u64..70).prop_map(Op::Pass),
    ]
}

/// What must be held against a request whose story is `ops`, told from the beginning.
fn expected(request: Fingerprint, after: u32, ops: &[Op]) -> Standing {
    let (mut now, mut last, mut crashes, mut held) = (0, 0, 0, None);
    for op in ops {
        match *op {
            Op::Pass(time) => now += time,
            Op::Answer(of) if of == request && held == Some(Held::Suspect) => held = None,
            Op::Crash(of, evidence) if of == request && after > 0 => {
                crashes = match (held, evidence) {
                    (None, _) => 1,
                    (Some(_), Evidence::Alone) => crashes + 1,
                    (Some(_), Evidence::AmongOthers) => crashes,
                };
                let proven = evidence == Evidence::Alone && crashes >= after;
                let held = held.get_or_insert(Held::Suspect);
                if proven {
                    *held = Held::Convicted;
                }
                last = now;
            }
            Op::Answer(_) | Op::Crash(..) => {}
        }
        if now - last >= 100 {
            held = None;
        }
    }
    match held {
        None => Standing::Clear,
        Some(Held::Suspect) => Standing::Suspect,
        Some(Held::Convicted) => convicted(crashes, last + 100 - now),
    }
}

proptest! {
    #[test]
    fn what_is_held_against_a_request_follows_from_its_own_story(
        after in 0_u32..4, ops in prop::collection::vec(any_op(), 0..60),
    ) {
        let (mut table, mut now) = (table(after), MonotonicNanos(0));
        for (i, op) in ops.iter().enumerate() {
            match *op {
                Op::Crash(request, evidence) => {
                    let _standing = table.crashed(request, evidence, worker(1), now);
                }
                Op::Answer(request) => {
                    // Nobody is answered whose entry was too old to be looked up.
                    let _standing = table.standing(request, now);
                    table.answered(request);
                }
                Op::Pass(time) => now = now.after(Duration::from_nanos(time)),
            }
            for request in (0..4).map(Fingerprint) {
                let story = expected(request, after, &ops[..=i]);
                prop_assert_eq!(table.standing(request, now), story);
            }
        }
    }

    #[test]
    fn it_never_holds_more_than_it_may(requests in prop::collection::vec(0_u64..2000, 0..900)) {
        let mut table = table(2);
        for (i, request) in (0_u64..).zip(requests) {
            let evidence = if i % 3 == 0 { Evidence::Alone } else { Evidence::AmongOthers };
            let now = MonotonicNanos(i / 16);
            let _standing = table.crashed(Fingerprint(request), evidence, worker(i), now);
            prop_assert!(table.len() <= MAX_ENTRIES);
        }
    }
}
