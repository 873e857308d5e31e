//! How long a worker has been at its oldest request while somebody watched; pure.
//!
//! A supervisor that was stopped, or whose machine was, has seen nothing meanwhile: neither what its
//! workers did nor whether they could do anything. Such a time is held against nobody. Only where it
//! is the rule that looks come late does the time between them count, as that between two that do
//! not: a machine that is always busy must not keep every hang.

use std::time::Duration;

use shared::clock::MonotonicNanos;

/// A look that comes later than so many times the pause between two is late.
const LATE: u32 = 4;

/// One worker, as somebody sees it who looks at it every now and then.
#[derive(Clone, Copy, Debug)]
pub struct Vigil {
    /// The pause between two looks.
    every: Duration,
    last: Option<Look>,
    stall: Option<Stall>,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: MonotonicNanos,
    when: When,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    InTime,
    Late,
}

/// What was the oldest request at the last look.
#[derive(Clone, Copy, Debug)]
struct Stall {
    since: MonotonicNanos,
    watched: Duration,
}

impl Vigil {
    #[must_use]
    pub fn new(every: Duration) -> Self {
        Self { every, last: None, stall: None }
    }

    /// Another look: for how long the worker has been watched at the request that it has been at
    /// since `since`; `None` if it has none.
    pub fn look(&mut self, since: Option<MonotonicNanos>, now: MonotonicNanos) -> Option<Duration> {
        let counted = self.counted(now);
        let before = self.stall.filter(|stall| Some(stall.since) == since);
        self.stall = since.map(|since| Stall {
            since,
            watched: match before {
                Some(stall) => stall.watched.saturating_add(counted),
                None => now.since(since).min(counted),
            },
        });
        self.stall.map(|stall| stall.watched)
    }

    /// How much of the time since the last look was watched.
    fn counted(&mut self, now: MonotonicNanos) -> Duration {
        let (gap, before) = match self.last {
            Some(last) => (now.since(last.at), last.when),
            None => (Duration::ZERO, When::InTime),
        };
        let when = if gap > self.every * LATE { When::Late } else { When::InTime };
        self.last = Some(Look { at: now, when });
        match (before, when) {
            (When::InTime | When::Late, When::InTime) => gap,
            (When::InTime, When::Late) => Duration::ZERO,
            (When::Late, When::Late) => self.every,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVERY: Duration = Duration::from_millis(250);

    fn at(milliseconds: u64) -> MonotonicNanos {
        MonotonicNanos(milliseconds * 1_000_000)
    }

    fn looks(vigil: &mut Vigil, since: u64, times: &[u64]) -> Vec<u128> {
        let look = |&time: &u64| vigil.look(Some(at(since)), at(time)).unwrap().as_millis();
        times.iter().map(look).collect()
    }

    #[test]
    fn time_counts_from_when_the_request_was_the_oldest() {
        let mut vigil = Vigil::new(EVERY);
        assert_eq!(vigil.look(None, at(1000)), None);
        assert_eq!(looks(&mut vigil, 1100, &[1250, 1500, 1800]), [150, 400, 700]);
        assert_eq!(looks(&mut vigil, 1900, &[2050]), [150]);
        assert_eq!(vigil.look(None, at(2300)), None);
    }

    #[test]
    fn what_nobody_saw_is_held_against_nobody() {
        let mut vigil = Vigil::new(EVERY);
        assert_eq!(looks(&mut vigil, 0, &[100, 350]), [0, 250]);
        assert_eq!(looks(&mut vigil, 0, &[60_000, 60_250]), [250, 500]);
        // It was given in that time.
        let mut vigil = Vigil::new(EVERY);
        let _first = vigil.look(None, at(0));
        assert_eq!(looks(&mut vigil, 1, &[60_000, 60_250]), [0, 250]);
    }

    #[test]
    fn who_is_always_late_finds_a_hang_all_the_same() {
        let mut vigil = Vigil::new(EVERY);
        assert_eq!(looks(&mut vigil, 0, &[0, 5000, 10_000, 15_000]), [0, 0, 250, 500]);
    }

    proptest! {
        #[test]
        fn never_more_than_has_passed_and_a_late_look_adds_nothing(
            gaps in prop::collection::vec(0_u64..5000, 1..40),
        ) {
            let (mut vigil, mut now) = (Vigil::new(EVERY), 0);
            let (mut before, mut late_before) = (Duration::ZERO, false);
            for gap in gaps {
                now += gap;
                let watched = vigil.look(Some(at(0)), at(now)).unwrap();
                prop_assert!(watched <= Duration::from_millis(now));
                let late = gap > 1000;
                prop_assert!(!late || late_before || watched == before);
                (before, late_before) = (watched, late);
            }
        }
    }
}
