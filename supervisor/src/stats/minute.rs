//! The last minute, as a ring of short windows.
//!
//! Nothing is measured here: a window is the difference between two looks at counters that only grow. It
//! keeps how long it really was, so that a late look changes no rate.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::histogram::Shape;

/// Windows that are kept beside the one that is open.
const WINDOWS: usize = 12;

/// What is counted, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Look {
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) latency: Shape,
}

#[derive(Debug)]
pub(super) struct Windows {
    ring: VecDeque<Window>,
    /// When the open window began, and what was counted then.
    since: Instant,
    last: Look,
}

#[derive(Debug)]
struct Window {
    from: Instant,
    succeeded: u64,
    failed: u64,
    latency: Vec<(u16, u64)>,
}

/// What the last minute was like.
#[derive(Clone, Debug, PartialEq)]
pub struct Minute {
    /// Requests that ended, a second; and those of them that failed.
    pub rate: f64,
    pub failures: f64,
    /// Of those that succeeded.
    pub latency: Shape,
}

impl Windows {
    pub(super) fn new(now: Instant) -> Self {
        Self { ring: VecDeque::new(), since: now, last: Look::default() }
    }

    /// Closes the open window and opens the next.
    pub(super) fn turn(&mut self, look: Look, now: Instant) {
        if self.ring.len() >= WINDOWS {
            self.ring.pop_front();
        }
        self.ring.push_back(Window {
            from: self.since,
            succeeded: look.succeeded.saturating_sub(self.last.succeeded),
            failed: look.failed.saturating_sub(self.last.failed),
            latency: look.latency.since(&self.last.latency).occupied(),
        });
        (self.since, self.last) = (now, look);
    }

    pub(super) fn minute(&self, look: &Look, now: Instant) -> Minute {
        let from = self.ring.front().map_or(self.since, |window| window.from);
        let mut latency = look.latency.since(&self.last.latency);
        let mut succeeded = look.succeeded.saturating_sub(self.last.succeeded);
        let mut failed = look.failed.saturating_sub(self.last.failed);
        for window in &self.ring {
            latency.add(&window.latency);
            succeeded += window.succeeded;
            failed += window.failed;
        }
        // A model that has been there for a moment did not serve thousands a second with its first ten.
        let seconds = now.saturating_duration_since(from).max(Duration::from_secs(1)).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "requests of one minute")]
        let a_second = |count: u64| count as f64 / seconds;
        Minute { rate: a_second(succeeded + failed), failures: a_second(failed), latency }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::histogram::Histogram;

    #[test]
    fn what_is_older_than_a_minute_is_gone_and_late_looks_change_no_rate() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (mut windows, histogram) = (Windows::new(start), Histogram::default());
        let look = |succeeded, failed| Look { succeeded, failed, latency: histogram.shape() };
        (0..100).for_each(|_| histogram.add(1000));
        windows.turn(look(100, 50), at(5));
        let first = windows.minute(&look(100, 50), at(10));
        assert_eq!((first.rate, first.failures), (15.0, 5.0));
        assert_eq!(first.latency.count(), 100);
        // This look is late by three seconds.
        windows.turn(look(100, 50), at(13));
        histogram.add(64_000);
        let now = windows.minute(&look(101, 50), at(15));
        assert_eq!(now.rate, 151.0 / 15.0);
        assert_eq!(now.latency.quantile(1.0).map(|us| us / 10_000), Some(6));
        for turn in 0..12 {
            windows.turn(look(101, 50), at(18 + 5 * turn));
        }
        let later = windows.minute(&look(101, 50), at(75));
        assert_eq!(later.latency.count(), 1, "the first hundred are more than a minute ago");
        assert_eq!(later.rate, 1.0 / 62.0);
    }

    #[test]
    fn ten_requests_in_the_first_moment_are_ten_a_second() {
        let start = Instant::now();
        let look = Look { succeeded: 10, ..Look::default() };
        assert_eq!(Windows::new(start).minute(&look, start).rate, 10.0);
    }
}
