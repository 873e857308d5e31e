//! One request, until it is counted.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::version::{Parts, VersionStats};
use crate::request::What;

/// Why a request failed, in the words of Triton's metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server did not take it on: it could not, would not, or not in time. No worker is to blame.
    Rejected,
    /// Its client has left.
    Canceled,
    /// The model or its worker failed.
    Backend,
    /// What is wrong is the request itself, or the way back.
    Other,
}

impl Failure {
    pub const ALL: [Self; 4] = [Self::Rejected, Self::Canceled, Self::Backend, Self::Other];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rejected => "REJECTED",
            Self::Canceled => "CANCELED",
            Self::Backend => "BACKEND",
            Self::Other => "OTHER",
        }
    }

    fn of(what: What, at: Stage) -> Self {
        match (what, at) {
            (
                What::NotReady
                | What::QueueFull
                | What::QueueTimeout
                | What::ShuttingDown
                // It is known, and nothing serves it: otherwise nobody would count it here.
                | What::NoVersion,
                _,
            ) => Self::Rejected,
            (What::Deadline | What::WorkerDied | What::Model | What::OutOfMemory, _)
            // The model's own word on its inputs.
            | (What::Invalid, Stage::Worker) => Self::Backend,
            (
                What::UnknownModel
                | What::UnknownVersion
                | What::Invalid
                // It ends workers.
                | What::Poison
                | What::TooLarge
                | What::SlowBody
                | What::Unsupported
                | What::Forbidden
                | What::Internal,
                _,
            ) => Self::Other,
        }
    }
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Admission,
    Worker,
    Reply,
}

/// Where the time of a request went that a worker has answered.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// When it asked to be admitted.
    pub arrived: Instant,
    /// Waiting for a slot, and for the worker to begin.
    pub queue: Duration,
    /// Until its inputs were in the slot.
    pub input: Duration,
    /// In the engine, by the worker's own clock.
    pub infer: Duration,
    /// When the worker's answer was there.
    pub answered: Instant,
}

/// Counts one request, once. Dropped, its client has left.
#[derive(Debug)]
pub struct Tally {
    stats: Arc<VersionStats>,
    at: Stage,
    open: bool,
}

impl Tally {
    #[must_use]
    pub fn begin(stats: &Arc<VersionStats>) -> Self {
        Self { stats: Arc::clone(stats), at: Stage::Admission, open: true }
    }

    /// It was admitted, by the version with these counters: that has it from now on.
    pub fn admitted(&mut self, stats: &Arc<VersionStats>) {
        if !Arc::ptr_eq(&self.stats, stats) {
            self.stats = Arc::clone(stats);
        }
        self.at = Stage::Worker;
    }

    /// A worker has answered.
    pub fn answered(&mut self) {
        self.at = Stage::Reply;
    }

    /// The reply is complete.
    pub fn succeeded(mut self, spent: &Spent) {
        self.open = false;
        let now = Instant::now();
        self.stats.succeed(&Parts {
            request: now.saturating_duration_since(spent.arrived),
            queue: spent.queue,
            input: spent.input,
            infer: spent.infer,
            output: now.saturating_duration_since(spent.answered),
        });
    }

    pub fn failed(mut self, what: What) {
        self.open = false;
        self.stats.fail(Failure::of(what, self.at), Some(what));
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if self.open {
            self.stats.fail(Failure::Canceled, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats() -> Arc<VersionStats> {
        Arc::new(VersionStats::new(Instant::now()))
    }

    fn reason(what: What, at: Stage) -> &'static str {
        Failure::of(what, at).name()
    }

    #[test]
    fn every_request_is_counted_once_whatever_becomes_of_it() {
        let stats = stats();
        let now = Instant::now();
        let zero = Duration::ZERO;
        let spent = Spent { arrived: now, queue: zero, input: zero, infer: zero, answered: now };
        Tally::begin(&stats).succeeded(&spent);
        Tally::begin(&stats).failed(What::Model);
        Tally::begin(&stats).failed(What::Poison);
        drop(Tally::begin(&stats));
        let counted = stats.counted();
        assert_eq!((counted.succeeded, counted.failed), (1, [0, 1, 1, 1]));
        assert_eq!(counted.refused, [(What::Poison, 1), (What::Model, 1)]);
    }

    #[test]
    fn who_is_to_blame_depends_on_how_far_it_came() {
        assert_eq!(reason(What::Invalid, Stage::Admission), "OTHER");
        assert_eq!(reason(What::Invalid, Stage::Worker), "BACKEND");
        assert_eq!(reason(What::Invalid, Stage::Reply), "OTHER");
        for at in [Stage::Admission, Stage::Worker, Stage::Reply] {
            assert_eq!(reason(What::QueueFull, at), "REJECTED");
            assert_eq!(reason(What::WorkerDied, at), "BACKEND");
            assert_eq!(reason(What::Internal, at), "OTHER");
        }
    }

    #[test]
    fn it_counts_where_it_was_admitted() {
        let (asked, served) = (stats(), stats());
        let mut tally = Tally::begin(&asked);
        tally.admitted(&served);
        tally.failed(What::Deadline);
        assert_eq!(asked.counted(), stats().counted());
        assert_eq!(served.counted().failed, [0, 0, 1, 0]);
    }
}
