//! How the workers of an instance ended; pure.
//!
//! Owns the last ends of one instance, bounded, and a count for each kind that never goes back. A
//! model that is loaded anew keeps its history: an operator who looks at why a model was
//! quarantined has often just loaded it again, and a counter that fell would be taken for a restart
//! of the server. Generations start over with each load, so the time tells entries apart. What is
//! kept goes with its version (`Archive::keep`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use shared::clock::MonotonicNanos;
use shared::id::Generation;

use super::effect::ExitRecord;
use crate::exit_kind::ExitKind;
use crate::health::Fingerprint;

/// Ends that are remembered in full.
pub const KEPT: usize = 32;
/// Bytes of the last lines of one end: a worker says how many and how long they are.
pub const MAX_LINES_BYTES: usize = 16 << 10;

/// Cheap to clone for a reader: entries are shared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Oldest first.
    recent: VecDeque<Arc<PastExit>>,
    counts: BTreeMap<ExitKind, u64>,
}

/// One end of one worker.
#[derive(Clone, Debug, PartialEq)]
pub struct PastExit {
    pub at: Moment,
    pub generation: Generation,
    pub kind: ExitKind,
    pub summary: String,
    /// The name of the state in which the exit was seen.
    pub during: &'static str,
    /// How long it had been ready, zero if it never was.
    pub healthy_for: Duration,
    pub last_words: LastWords,
}

/// A moment on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since 1970, UTC.
    pub wall_ms: u64,
    pub monotonic: MonotonicNanos,
}

/// What only the worker's owner knows of its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastWords {
    /// From the start of the process.
    pub alive_for: Duration,
    /// The last lines of its output.
    pub lines: Vec<String>,
    /// Requests that it had been given and had not answered.
    pub in_flight: usize,
    /// The fingerprints of those requests, as far as they have any.
    pub fingerprints: Vec<Fingerprint>,
}

impl History {
    pub fn add(&mut self, record: &ExitRecord, at: Moment, mut last_words: LastWords) {
        let count = self.counts.entry(record.kind).or_default();
        *count = count.saturating_add(1);
        keep_last(&mut last_words.lines);
        if self.recent.len() >= KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back(Arc::new(PastExit {
            at,
            generation: record.generation,
            kind: record.kind,
            summary: record.summary(),
            during: record.during,
            healthy_for: record.healthy_for,
            last_words,
        }));
    }

    /// The latest ends, oldest first.
    pub fn recent(&self) -> impl DoubleEndedIterator<Item = &PastExit> {
        self.recent.iter().map(AsRef::as_ref)
    }

    /// How often each kind has occurred.
    #[must_use]
    pub fn counts(&self) -> &BTreeMap<ExitKind, u64> {
        &self.counts
    }
}

/// Drops lines from the front until the rest is within bounds.
fn keep_last(lines: &mut Vec<String>) {
    let mut room = MAX_LINES_BYTES;
    let fits = lines.iter().rev().take_while(|line| {
        let left = room.checked_sub(line.len());
        room = left.unwrap_or(0);
        left.is_some()
    });
    let fits = fits.count();
    lines.drain(..lines.len() - fits);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::effect::StopCause;
    use super::super::event::{ExitClass, ExitReport};
    use super::*;

    fn exit(kind: ExitKind, generation: u64) -> ExitRecord {
        ExitRecord {
            generation: Generation(generation),
            during: "ready",
            kind,
            cause: StopCause::Unasked,
            exit: ExitReport { class: ExitClass::Unknown, detail: String::new() },
            healthy_for: Duration::ZERO,
        }
    }

    fn words(lines: Vec<String>) -> LastWords {
        LastWords { lines, ..LastWords::default() }
    }

    #[test]
    fn the_latest_ends_are_kept_and_all_are_counted() {
        let mut history = History::default();
        for generation in 0..100 {
            let kind = if generation % 2 == 0 { ExitKind::Hang } else { ExitKind::Signal(11) };
            history.add(&exit(kind, generation), Moment::default(), LastWords::default());
        }
        let kept: Vec<u64> = history.recent().map(|past| past.generation.0).collect();
        assert_eq!(kept, (68..100).collect::<Vec<_>>());
        assert_eq!(history.counts()[&ExitKind::Hang], 50);
        assert_eq!(history.counts()[&ExitKind::Signal(11)], 50);
    }

    #[test]
    fn of_many_long_lines_the_last_are_kept() {
        let mut history = History::default();
        let lines: Vec<String> = (0..10).map(|i| format!("{i}{}", "x".repeat(3999))).collect();
        history.add(&exit(ExitKind::Hang, 1), Moment::default(), words(lines));
        let past = history.recent().next().unwrap();
        let first: Vec<&str> = past.last_words.lines.iter().map(|line| &line[..1]).collect();
        assert_eq!(first, ["6", "7", "8", "9"]);
    }

    proptest! {
        #[test]
        fn whatever_comes_the_bounds_hold_and_counts_only_grow(
            exits in prop::collection::vec((0..6_i32, prop::collection::vec(0..40_000_usize, 0..4)), 0..80),
        ) {
            let mut history = History::default();
            for (seen, (code, lengths)) in (0_u64..).zip(exits) {
                prop_assert_eq!(history.counts().values().sum::<u64>(), seen);
                let lines = lengths.iter().map(|&length| "x".repeat(length)).collect();
                history.add(&exit(ExitKind::Code(code), seen), Moment::default(), words(lines));
                prop_assert!(history.recent().count() <= KEPT);
                let bytes = |past: &PastExit| past.last_words.lines.iter().map(String::len).sum::<usize>();
                prop_assert!(history.recent().all(|past| bytes(past) <= MAX_LINES_BYTES));
            }
        }
    }
}
