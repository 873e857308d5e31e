//! How many requests there are and what became of them: what an end of the server is judged by.
//!
//! Probes of health are no work and are left out; those of a model's readiness count like any other.

use std::sync::Arc;

use hyper::StatusCode;
use shared::sync::{AtomicU64, Ordering};

const PROBES: &str = "/v2/health/";

/// Counts the requests of all listeners. Nothing but the counters themselves depends on them, so that
/// relaxed ordering is enough.
#[derive(Debug, Default)]
pub struct Turnover {
    begun: AtomicU64,
    answered: AtomicU64,
    refused: AtomicU64,
    broken_off: AtomicU64,
}

/// The counts of a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    begun: u64,
    /// Answered, whatever the answer was, but for those that were refused.
    pub finished: u64,
    /// Sent away because the server could not take them: 503.
    pub refused: u64,
    /// Without an answer: the client has left, or the connection was closed.
    pub broken_off: u64,
}

/// A request in progress. Dropped without an answer, it counts as broken off.
#[derive(Debug)]
pub(super) struct Counted(Option<Arc<Turnover>>);

impl Turnover {
    pub(super) fn begin(self: &Arc<Self>, path: &str) -> Counted {
        if path.starts_with(PROBES) {
            return Counted(None);
        }
        self.begun.fetch_add(1, Ordering::Relaxed);
        Counted(Some(Arc::clone(self)))
    }

    #[must_use]
    pub fn tally(&self) -> Tally {
        // Ends are read before beginnings: a request that begins and ends between counts as neither.
        let finished = self.answered.load(Ordering::Relaxed);
        let refused = self.refused.load(Ordering::Relaxed);
        let broken_off = self.broken_off.load(Ordering::Relaxed);
        Tally { begun: self.begun.load(Ordering::Relaxed), finished, refused, broken_off }
    }
}

impl Tally {
    #[must_use]
    pub fn in_progress(&self) -> u64 {
        self.begun.saturating_sub(self.finished + self.refused + self.broken_off)
    }

    /// When nothing is answered any more: what is in progress is broken off.
    #[must_use]
    pub fn at_the_end(&self) -> Self {
        Self { broken_off: self.broken_off + self.in_progress(), ..*self }
    }

    /// What has come on top of an earlier one.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            begun: self.begun - earlier.begun,
            finished: self.finished - earlier.finished,
            refused: self.refused - earlier.refused,
            broken_off: self.broken_off - earlier.broken_off,
        }
    }
}

impl Counted {
    pub(super) fn answered(mut self, status: StatusCode) {
        if let Some(turnover) = self.0.take() {
            let count = match status {
                StatusCode::SERVICE_UNAVAILABLE => &turnover.refused,
                _ => &turnover.answered,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(turnover) = self.0.take() {
            turnover.broken_off.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_ends_in_one_count() {
        let turnover = Arc::new(Turnover::default());
        turnover.begin("/v2").answered(StatusCode::OK);
        let before = turnover.tally();
        let [a, b, c, _d] = [(); 4].map(|()| turnover.begin("/v2/models/m/infer"));
        turnover.begin("/v2/health/ready").answered(StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(turnover.tally().in_progress(), 4);
        a.answered(StatusCode::INTERNAL_SERVER_ERROR);
        b.answered(StatusCode::SERVICE_UNAVAILABLE);
        drop(c);
        let since = turnover.tally().since(&before);
        assert_eq!((since.finished, since.refused, since.broken_off), (1, 1, 1));
        assert_eq!(turnover.tally().in_progress(), 1);
    }
}
