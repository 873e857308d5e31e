//! The counters of one version of a model.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proto::admin::status::Traffic;
use shared::sync::{AtomicU64, Ordering};
use tokio::time::Instant;

use super::histogram::{Histogram, Shape};
use super::minute::{Look, Minute, Windows};
use super::tally::Failure;
use crate::request::What;

/// Nothing depends on a counter but what is told of it, so that relaxed ordering is enough; two of them
/// may be read a request apart.
#[derive(Debug)]
pub struct VersionStats {
    succeeded: AtomicU64,
    rows: AtomicU64,
    executions: AtomicU64,
    request_us: AtomicU64,
    queue_us: AtomicU64,
    input_us: AtomicU64,
    infer_us: AtomicU64,
    output_us: AtomicU64,
    waiting: AtomicU64,
    in_flight: AtomicU64,
    failed: [AtomicU64; Failure::ALL.len()],
    refused: [AtomicU64; What::ALL.len()],
    latency: Histogram,
    queued: Histogram,
    /// Never locked by a request.
    windows: Mutex<Windows>,
}

/// All of it at a moment. Times are microseconds, and those of requests that succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub succeeded: u64,
    pub failed: [u64; Failure::ALL.len()],
    /// Failures by what the client was told; one whose client has left is not among them.
    pub refused: Vec<(What, u64)>,
    /// Inferences: as many as rows, where the model takes batches.
    pub rows: u64,
    pub executions: u64,
    pub request_us: u64,
    pub queue_us: u64,
    pub input_us: u64,
    pub infer_us: u64,
    pub output_us: u64,
    pub waiting: u64,
    pub in_flight: u64,
}

/// How long the parts of one request took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) request: Duration,
    pub(super) queue: Duration,
    pub(super) input: Duration,
    pub(super) infer: Duration,
    pub(super) output: Duration,
}

impl VersionStats {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            succeeded: AtomicU64::default(),
            rows: AtomicU64::default(),
            executions: AtomicU64::default(),
            request_us: AtomicU64::default(),
            queue_us: AtomicU64::default(),
            input_us: AtomicU64::default(),
            infer_us: AtomicU64::default(),
            output_us: AtomicU64::default(),
            waiting: AtomicU64::default(),
            in_flight: AtomicU64::default(),
            failed: std::array::from_fn(|_| AtomicU64::default()),
            refused: std::array::from_fn(|_| AtomicU64::default()),
            latency: Histogram::default(),
            queued: Histogram::default(),
            windows: Mutex::new(Windows::new(now)),
        }
    }

    /// An engine has run a request of so many rows and gave outputs.
    pub fn executed(&self, rows: u64) {
        add(&self.rows, rows);
        add(&self.executions, 1);
    }

    /// A request waits for a slot, until what is given back is dropped or told that it has one.
    #[must_use]
    pub fn waits(self: &Arc<Self>) -> Waiting {
        add(&self.waiting, 1);
        Waiting(Arc::clone(self))
    }

    /// A request that had a slot waits for another one, until this is dropped.
    #[must_use]
    pub fn waits_again(&self) -> WaitsAgain<'_> {
        add(&self.waiting, 1);
        take(&self.in_flight);
        WaitsAgain(self)
    }

    pub(super) fn succeed(&self, parts: &Parts) {
        add(&self.succeeded, 1);
        add(&self.request_us, micros(parts.request));
        add(&self.queue_us, micros(parts.queue));
        add(&self.input_us, micros(parts.input));
        add(&self.infer_us, micros(parts.infer));
        add(&self.output_us, micros(parts.output));
        self.latency.add(micros(parts.request));
        self.queued.add(micros(parts.queue));
    }

    pub(super) fn fail(&self, reason: Failure, what: Option<What>) {
        add(&self.failed[reason as usize], 1);
        if let Some(what) = what {
            add(&self.refused[what as usize], 1);
        }
    }

    #[must_use]
    pub fn counted(&self) -> Counted {
        let refused = What::ALL.into_iter().map(|what| (what, read(&self.refused[what as usize])));
        Counted {
            succeeded: read(&self.succeeded),
            failed: Failure::ALL.map(|reason| read(&self.failed[reason as usize])),
            refused: refused.filter(|(_, count)| *count > 0).collect(),
            rows: read(&self.rows),
            executions: read(&self.executions),
            request_us: read(&self.request_us),
            queue_us: read(&self.queue_us),
            input_us: read(&self.input_us),
            infer_us: read(&self.infer_us),
            output_us: read(&self.output_us),
            waiting: read(&self.waiting),
            in_flight: read(&self.in_flight),
        }
    }

    /// Whether a request has ever succeeded.
    #[must_use]
    pub fn was_asked(&self) -> bool {
        read(&self.succeeded) > 0
    }

    /// How long requests took that succeeded, from admission to reply.
    #[must_use]
    pub fn latency(&self) -> Shape {
        self.latency.shape()
    }

    /// How long they waited of that: for a slot, and for their worker to begin.
    #[must_use]
    pub fn queued(&self) -> Shape {
        self.queued.shape()
    }

    #[must_use]
    pub fn minute(&self, now: Instant) -> Minute {
        self.windows().minute(&self.look(), now)
    }

    pub(super) fn turn(&self, now: Instant) {
        self.windows().turn(self.look(), now);
    }

    #[must_use]
    pub(super) fn traffic(&self, now: Instant) -> Traffic {
        let (counted, minute) = (self.counted(), self.minute(now));
        let failed = Failure::ALL.map(|reason| reason.name().to_owned());
        Traffic {
            succeeded: counted.succeeded,
            failed: failed.into_iter().zip(counted.failed).collect::<BTreeMap<_, _>>(),
            rate: minute.rate,
            failures: minute.failures,
            p50_us: minute.latency.quantile(0.5),
            p99_us: minute.latency.quantile(0.99),
            waiting: counted.waiting,
            in_flight: counted.in_flight,
        }
    }

    fn look(&self) -> Look {
        Look {
            succeeded: read(&self.succeeded),
            failed: self.failed.iter().map(read).sum(),
            latency: self.latency.shape(),
        }
    }

    fn windows(&self) -> std::sync::MutexGuard<'_, Windows> {
        // The ring is whole after each call.
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that waits for a slot.
#[derive(Debug)]
pub struct Waiting(Arc<VersionStats>);

/// A request that has a slot.
#[derive(Debug)]
pub struct Holding(Arc<VersionStats>);

/// A request that waits for another slot.
#[derive(Debug)]
pub struct WaitsAgain<'a>(&'a VersionStats);

impl Waiting {
    #[must_use]
    pub fn has_one(self) -> Holding {
        add(&self.0.in_flight, 1);
        Holding(Arc::clone(&self.0))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        take(&self.0.waiting);
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        take(&self.0.in_flight);
    }
}

impl Drop for WaitsAgain<'_> {
    fn drop(&mut self) {
        add(&self.0.in_flight, 1);
        take(&self.0.waiting);
    }
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

fn take(counter: &AtomicU64) {
    counter.fetch_sub(1, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_where_it_is() {
        let stats = Arc::new(VersionStats::new(Instant::now()));
        let there = || {
            let Counted { waiting, in_flight, .. } = stats.counted();
            (waiting, in_flight)
        };
        let gone = stats.waits();
        let waiting = stats.waits();
        assert_eq!(there(), (2, 0));
        drop(gone);
        let holding = waiting.has_one();
        assert_eq!(there(), (0, 1));
        let again = stats.waits_again();
        assert_eq!(there(), (1, 0));
        drop(again);
        assert_eq!(there(), (0, 1));
        drop(holding);
        assert_eq!(there(), (0, 0));
    }

    #[test]
    fn traffic_is_what_was_counted() {
        let now = Instant::now();
        let stats = VersionStats::new(now);
        let ms = Duration::from_millis;
        let parts = Parts { request: ms(10), queue: ms(2), infer: ms(7), ..Parts::default() };
        stats.succeed(&parts);
        stats.fail(Failure::Rejected, Some(What::QueueFull));
        stats.executed(4);
        let counted = stats.counted();
        assert_eq!((counted.rows, counted.executions, counted.succeeded), (4, 1, 1));
        assert_eq!((counted.request_us, counted.queue_us, counted.infer_us), (10_000, 2000, 7000));
        assert_eq!(counted.refused, [(What::QueueFull, 1)]);
        let traffic = stats.traffic(now + Duration::from_secs(4));
        assert_eq!((traffic.rate, traffic.failures), (0.5, 0.25));
        assert_eq!(traffic.failed["REJECTED"], 1);
        assert_eq!(traffic.failed["BACKEND"], 0);
        assert!(traffic.p99_us.unwrap().abs_diff(10_000) < 500);
    }
}
