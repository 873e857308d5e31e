//! What has happened so far: faults, answers, and the first thing that must not happen.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::schedule::Fault;

#[derive(Debug)]
pub(crate) struct Journal {
    began: Instant,
    pages: Mutex<Pages>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Pages {
    pub(crate) faults: Vec<(Duration, Fault)>,
    pub(crate) tallies: BTreeMap<&'static str, Tally>,
    /// When it was, and what.
    pub(crate) violation: Option<(Duration, String)>,
}

/// The answers of one model.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) microseconds: Vec<u64>,
}

impl Default for Journal {
    fn default() -> Self {
        Self { began: Instant::now(), pages: Mutex::default() }
    }
}

impl Journal {
    /// Gives the number of the fault.
    pub(crate) fn note(&self, fault: Fault) -> usize {
        let at = self.began.elapsed();
        let mut pages = self.open();
        pages.faults.push((at, fault));
        pages.faults.len()
    }

    pub(crate) fn answered(&self, model: &'static str, status: u16, took: Duration) {
        let mut pages = self.open();
        let tally = pages.tallies.entry(model).or_default();
        *tally.statuses.entry(status).or_default() += 1;
        tally.microseconds.push(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// The first one counts; what follows it may well come of it.
    pub(crate) fn violated(&self, what: String) {
        let at = self.began.elapsed();
        self.open().violation.get_or_insert((at, what));
    }

    pub(crate) fn is_violated(&self) -> bool {
        self.open().violation.is_some()
    }

    /// Whether the model's worker was told to write over what it can, so lately that it may matter.
    pub(crate) fn may_lie(&self, model: &str, within: Duration) -> bool {
        let since = self.began.elapsed().saturating_sub(within);
        let pages = self.open();
        let lately = pages.faults.iter().rev().take_while(|(at, _)| *at >= since);
        lately.into_iter().any(|(_, fault)| fault.makes_liar_of(model))
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn read(&self) -> Pages {
        self.open().clone()
    }

    fn open(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends threads, in the middle of their pauses.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    pub(crate) fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits so long; whether to end, which may come sooner.
    pub(crate) fn comes_within(&self, pause: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(stopped, pause, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
