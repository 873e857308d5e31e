//! How often and how soon a crashed worker is started again; pure.
//!
//! Owns the memory of recent restarts and of how many crashes followed each other. It does not
//! know states or workers, and it draws no random numbers: the jitter comes in from outside.
//!
//! Invariants: no window of the policy's length holds more restarts than its limit, counted from
//! when they took place; no delay is longer than the policy's longest.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use shared::clock::MonotonicNanos;

use crate::exit_kind::{ExitKind, ExitPattern};

#[derive(Clone, Debug, PartialEq)]
pub struct RestartPolicy {
    /// Most restarts within `window`; one crash more and the worker stays down.
    pub max_restarts: u32,
    pub window: Duration,
    pub backoff: Backoff,
    /// Ends that a restart would only repeat.
    pub no_retry_on: Vec<ExitPattern>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// Delay before the restart after the first crash in a row.
    pub initial: Duration,
    /// What each further crash in a row multiplies the delay with.
    pub factor: f64,
    /// Longest delay.
    pub max: Duration,
    /// The part of a delay, 0 to 1, that chance may take away.
    pub jitter: f64,
    /// A worker that was ready for this long starts over: it is restarted at once, and the next
    /// crash counts as the first in a row.
    pub reset_after: Duration,
}

/// A number from 0 to 1 drawn by the caller, so that workers that crash together do not return
/// together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jitter(f64);

impl Jitter {
    pub const NONE: Self = Self(0.0);

    /// Brings `fraction` into 0 to 1; what is not a number becomes 0.
    #[must_use]
    pub fn new(fraction: f64) -> Self {
        Self(if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0) })
    }
}

/// A worker that ended, or had to be ended, without anyone having asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    /// How long it had been ready, zero if it never was.
    pub healthy_for: Duration,
    pub kind: ExitKind,
}

#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Restart { after: Duration },
    GiveUp(NoRestart),
}

/// Why a crash is not followed by a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRestart {
    BudgetSpent { restarts: u32, window: Duration },
    NeverRetried(ExitKind),
}

impl fmt::Display for NoRestart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BudgetSpent { restarts, window } => {
                write!(f, "gave up after {restarts} restarts within {window:?}")
            }
            Self::NeverRetried(kind) => write!(f, "not restarted, as no_retry_on says for {kind}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct RestartBudget {
    policy: RestartPolicy,
    /// When the restarts of the last window took place, oldest first.
    recent: VecDeque<MonotonicNanos>,
    /// Crashes since the last long healthy run.
    in_a_row: u32,
    /// Tries that failed for no fault of the model, since it was ready.
    free_in_a_row: u32,
}

impl RestartBudget {
    #[must_use]
    pub fn new(policy: RestartPolicy) -> Self {
        Self { policy, recent: VecDeque::new(), in_a_row: 0, free_in_a_row: 0 }
    }

    /// Takes effect from the next crash on; what was spent stays spent.
    pub fn set_policy(&mut self, policy: RestartPolicy) {
        self.policy = policy;
    }

    /// Judges a crash. A verdict of restart is paid for here, whether or not it takes place.
    pub fn after_exit(&mut self, crash: Crash, jitter: Jitter, now: MonotonicNanos) -> Verdict {
        if self.policy.no_retry_on.iter().any(|pattern| pattern.matches(crash.kind)) {
            return Verdict::GiveUp(NoRestart::NeverRetried(crash.kind));
        }
        self.recent.retain(|&restart| now.since(restart) < self.policy.window);
        let (restarts, window) = (self.policy.max_restarts, self.policy.window);
        if self.recent.len() >= usize::try_from(restarts).unwrap_or(usize::MAX) {
            return Verdict::GiveUp(NoRestart::BudgetSpent { restarts, window });
        }
        self.recent.push_back(now);
        Verdict::Restart { after: self.delay(crash.healthy_for, jitter) }
    }

    /// The restart that was granted last takes place now, perhaps later than it was meant to. It
    /// counts from now, so that delays cannot squeeze two budgets into one window.
    pub fn restarted(&mut self, now: MonotonicNanos) {
        if let Some(last) = self.recent.back_mut() {
            *last = now;
        }
    }

    /// How long to wait before something is tried again that failed for no fault of the model: the
    /// delays of restarts, and nothing is paid.
    pub fn free_delay(&mut self, jitter: Jitter) -> Duration {
        let delay = self.policy.backoff.delay(self.free_in_a_row, jitter);
        self.free_in_a_row = self.free_in_a_row.saturating_add(1);
        delay
    }

    /// The worker is ready: what was lacking is there.
    pub fn ready(&mut self) {
        self.free_in_a_row = 0;
    }

    /// What has been spent, as "1 of 5 within 60s".
    #[must_use]
    pub fn spent(&self) -> String {
        let RestartPolicy { max_restarts, window, .. } = &self.policy;
        format!("{} of {max_restarts} within {window:?}", self.recent.len())
    }

    /// An operator vouches for the model: nothing counts any more.
    pub fn reset(&mut self) {
        self.recent.clear();
        self.in_a_row = 0;
        self.free_in_a_row = 0;
    }

    fn delay(&mut self, healthy_for: Duration, jitter: Jitter) -> Duration {
        let backoff = self.policy.backoff;
        if healthy_for >= backoff.reset_after {
            self.in_a_row = 0;
            return Duration::ZERO;
        }
        let delay = backoff.delay(self.in_a_row, jitter);
        self.in_a_row = self.in_a_row.saturating_add(1);
        delay
    }
}

impl Backoff {
    /// The delay after so many others in a row.
    fn delay(&self, others: u32, jitter: Jitter) -> Duration {
        let growth = self.factor.powi(i32::try_from(others).unwrap_or(i32::MAX));
        // What overflows or is not a number is certainly not shorter than the longest delay.
        let full = Duration::try_from_secs_f64(self.initial.as_secs_f64() * growth)
            .unwrap_or(self.max)
            .min(self.max);
        let taken = full.mul_f64(Jitter::new(self.jitter).0 * jitter.0);
        full.saturating_sub(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy() -> RestartPolicy {
        RestartPolicy {
            max_restarts: 3,
            window: 60 * SECOND,
            backoff: Backoff {
                initial: SECOND,
                factor: 2.0,
                max: 5 * SECOND,
                jitter: 0.5,
                reset_after: 30 * SECOND,
            },
            no_retry_on: vec![ExitPattern::Kind(ExitKind::Code(78)), ExitPattern::AnySignal],
        }
    }

    fn at(seconds: u64) -> MonotonicNanos {
        MonotonicNanos(0).after(Duration::from_secs(seconds))
    }

    fn crash_after(healthy_for: Duration) -> Crash {
        Crash { healthy_for, kind: ExitKind::Hang }
    }

    fn quick_crash(budget: &mut RestartBudget, seconds: u64) -> Verdict {
        budget.after_exit(crash_after(Duration::ZERO), Jitter::NONE, at(seconds))
    }

    #[test]
    fn delays_grow_to_the_longest_and_then_the_budget_is_spent() {
        let mut budget = RestartBudget::new(RestartPolicy { max_restarts: 4, ..policy() });
        for after in [1, 2, 4, 5] {
            assert_eq!(quick_crash(&mut budget, 0), Verdict::Restart { after: after * SECOND });
        }
        let spent = NoRestart::BudgetSpent { restarts: 4, window: 60 * SECOND };
        assert_eq!(quick_crash(&mut budget, 59), Verdict::GiveUp(spent));
        assert_eq!(quick_crash(&mut budget, 60), Verdict::Restart { after: 5 * SECOND });
    }

    #[test]
    fn the_first_crash_after_a_long_healthy_run_restarts_at_once_and_is_paid_for() {
        let mut budget = RestartBudget::new(RestartPolicy { max_restarts: 2, ..policy() });
        assert_eq!(quick_crash(&mut budget, 0), Verdict::Restart { after: SECOND });
        let healthy = crash_after(30 * SECOND);
        let at_once = Verdict::Restart { after: Duration::ZERO };
        assert_eq!(budget.after_exit(healthy, Jitter::NONE, at(31)), at_once);
        assert!(matches!(quick_crash(&mut budget, 32), Verdict::GiveUp(_)));
        assert_eq!(quick_crash(&mut budget, 62), Verdict::Restart { after: SECOND });
    }

    #[test]
    fn a_kind_that_is_never_retried_costs_nothing() {
        let mut budget = RestartBudget::new(policy());
        for kind in [ExitKind::Code(78), ExitKind::Signal(6), ExitKind::Signal(11)] {
            let verdict =
                budget.after_exit(Crash { healthy_for: SECOND, kind }, Jitter::NONE, at(0));
            assert_eq!(verdict, Verdict::GiveUp(NoRestart::NeverRetried(kind)));
        }
        assert_eq!(quick_crash(&mut budget, 0), Verdict::Restart { after: SECOND });
    }

    #[test]
    fn what_is_not_the_models_fault_waits_longer_each_time_and_is_not_paid_for() {
        let mut budget = RestartBudget::new(policy());
        for after in [1, 2, 4, 5, 5] {
            assert_eq!(budget.free_delay(Jitter::NONE), after * SECOND);
        }
        budget.ready();
        assert_eq!(budget.free_delay(Jitter::NONE), SECOND);
        assert_eq!(budget.spent(), "0 of 3 within 60s");
        assert_eq!(quick_crash(&mut budget, 0), Verdict::Restart { after: SECOND });
        assert_eq!(budget.spent(), "1 of 3 within 60s");
    }

    #[test]
    fn a_reset_forgets_restarts_and_crashes_in_a_row() {
        let mut budget = RestartBudget::new(policy());
        for _ in 0..3 {
            let _paid = quick_crash(&mut budget, 0);
        }
        budget.reset();
        assert_eq!(quick_crash(&mut budget, 0), Verdict::Restart { after: SECOND });
    }

    #[test]
    fn a_late_restart_counts_from_when_it_took_place() {
        let mut budget = RestartBudget::new(RestartPolicy { max_restarts: 1, ..policy() });
        assert!(matches!(quick_crash(&mut budget, 0), Verdict::Restart { .. }));
        budget.restarted(at(40));
        assert!(matches!(quick_crash(&mut budget, 61), Verdict::GiveUp(_)));
        assert!(matches!(quick_crash(&mut budget, 100), Verdict::Restart { .. }));
    }

    #[test]
    fn jitter_outside_its_range_is_brought_into_it() {
        assert_eq!(Jitter::new(f64::NAN), Jitter::NONE);
        assert_eq!(Jitter::new(-3.0), Jitter::NONE);
        assert_eq!(Jitter::new(7.0), Jitter::new(1.0));
    }

    proptest! {
        #[test]
        fn no_window_holds_more_restarts_than_the_limit(
            max_restarts in 0_u32..5,
            crashes in prop::collection::vec((0_u64..40, 0_u64..50, 0_u64..20), 0..60),
        ) {
            let mut budget = RestartBudget::new(RestartPolicy { max_restarts, ..policy() });
            let (mut now, mut restarts) = (at(0), Vec::new());
            for (wait, healthy, late) in crashes {
                now = now.after(Duration::from_secs(wait));
                let crash = crash_after(Duration::from_secs(healthy));
                if let Verdict::Restart { after } = budget.after_exit(crash, Jitter::NONE, now) {
                    now = now.after(after + Duration::from_secs(late));
                    budget.restarted(now);
                    restarts.push(now);
                }
            }
            for (index, &first) in restarts.iter().enumerate() {
                let within = restarts[index..].iter().filter(|r| r.since(first) < policy().window);
                prop_assert!(within.count() <= max_restarts as usize);
            }
        }

        #[test]
        fn no_policy_makes_a_delay_longer_than_the_longest(
            initial in 0_u64..1_000_000,
            factor in prop::num::f64::ANY,
            spread in prop::num::f64::ANY,
            drawn in prop::num::f64::ANY,
        ) {
            let mut policy = RestartPolicy { max_restarts: u32::MAX, ..policy() };
            policy.backoff.initial = Duration::from_millis(initial);
            (policy.backoff.factor, policy.backoff.jitter) = (factor, spread);
            let mut budget = RestartBudget::new(policy.clone());
            for _ in 0..40 {
                let crash = crash_after(Duration::ZERO);
                match budget.after_exit(crash, Jitter::new(drawn), at(0)) {
                    Verdict::Restart { after } => prop_assert!(after <= policy.backoff.max),
                    Verdict::GiveUp(why) => prop_assert!(false, "gave up: {why}"),
                }
            }
        }

        #[test]
        fn jitter_takes_away_its_part_at_most(drawn in 0.0..=1.0_f64) {
            let mut budget = RestartBudget::new(policy());
            match budget.after_exit(crash_after(Duration::ZERO), Jitter::new(drawn), at(0)) {
                Verdict::Restart { after } => prop_assert!(after >= SECOND / 2 && after <= SECOND),
                Verdict::GiveUp(why) => prop_assert!(false, "gave up: {why}"),
            }
        }
    }
}
