//! The last lines of each model's output, which outlive its workers.
//!
//! What is here is what goes to the log, whatever its filter then says: lines within the rate of their
//! worker, and how many were not. A reader that follows and is too slow loses lines and is told how many; it holds up nobody.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use shared::id::{ModelName, WorkerId};
use tokio::sync::watch;

/// Lines that are kept of one model, and their bytes.
const KEPT_LINES: usize = 1000;
const KEPT_BYTES: usize = 256 << 10;
/// Lines that a follower is given at a time.
const BATCH: usize = 100;

/// A line of a worker's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Milliseconds since 1970, UTC.
    pub at: u64,
    pub worker: WorkerId,
    pub level: &'static str,
    pub text: String,
}

/// The journals of all models; a handle.
#[derive(Clone, Debug, Default)]
pub struct Journals(Arc<Mutex<BTreeMap<ModelName, Journal>>>);

impl Journals {
    /// Makes it if there is none.
    #[must_use]
    pub fn of(&self, model: &ModelName) -> Journal {
        lock(&self.0).entry(model.clone()).or_default().clone()
    }

    /// Whoever still has the journal can go on reading.
    pub fn forget(&self, model: &ModelName) {
        lock(&self.0).remove(model);
    }
}

/// The journal of one model; a handle.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    ring: Mutex<Ring>,
    /// The number of the next line.
    grown: watch::Sender<u64>,
}

impl Journal {
    pub(super) fn write(&self, worker: &WorkerId, level: &'static str, text: &str) {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let at = u64::try_from(since_epoch.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
        let line = Line { at, worker: worker.clone(), level, text: text.to_owned() };
        let next = {
            let mut ring = lock(&self.0.ring);
            ring.push(line);
            ring.next
        };
        self.0.grown.send_replace(next);
    }

    /// Reads from so many lines before the end on.
    #[must_use]
    pub fn follow(&self, lines: usize) -> Follower {
        let grown = self.0.grown.subscribe();
        let next = lock(&self.0.ring).before_end(lines);
        Follower { shared: Arc::clone(&self.0), next, grown }
    }
}

/// A reader of a journal.
#[derive(Debug)]
pub struct Follower {
    shared: Arc<Shared>,
    /// The number of the line that it reads next.
    next: u64,
    grown: watch::Receiver<u64>,
}

/// What a follower has read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Lines before these that were gone before they were read.
    pub lost: u64,
    pub lines: Vec<Arc<Line>>,
}

impl Follower {
    /// What there is, at most `most` lines.
    pub fn read(&mut self, most: usize) -> Read {
        let (read, next) = lock(&self.shared.ring).from(self.next, most);
        self.next = next;
        read
    }

    /// Waits until there is something, and reads some of it.
    pub async fn next(&mut self) -> Read {
        let seen = self.next;
        // Its sender is held here.
        drop(self.grown.wait_for(|&next| next > seen).await);
        self.read(BATCH)
    }
}

/// The last lines, numbered from the first that there ever was; pure.
#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Arc<Line>>,
    bytes: usize,
    /// The number of the next line.
    next: u64,
}

impl Ring {
    fn push(&mut self, line: Line) {
        self.bytes += line.text.len();
        self.lines.push_back(Arc::new(line));
        self.next += 1;
        while self.lines.len() > KEPT_LINES || (self.bytes > KEPT_BYTES && self.lines.len() > 1) {
            let dropped = self.lines.pop_front().map_or(0, |line| line.text.len());
            self.bytes -= dropped;
        }
    }

    fn first(&self) -> u64 {
        self.next - self.lines.len() as u64
    }

    fn before_end(&self, lines: usize) -> u64 {
        self.next - lines.min(self.lines.len()) as u64
    }

    /// Lines from that number on, and the number of the first that is left.
    fn from(&self, number: u64, most: usize) -> (Read, u64) {
        let (first, number) = (self.first(), number.min(self.next));
        let start = number.max(first);
        let skipped = usize::try_from(start - first).unwrap_or(usize::MAX);
        let lines: Vec<Arc<Line>> = self.lines.iter().skip(skipped).take(most).cloned().collect();
        let next = start + lines.len() as u64;
        (Read { lost: start - number, lines }, next)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in there is whole after each call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::id::{Generation, InstanceId, ModelVersion};

    use super::*;

    fn worker() -> WorkerId {
        let (model, version) = (ModelName::new("m").unwrap(), ModelVersion::new(1).unwrap());
        let instance = InstanceId { model, version, index: 0 };
        WorkerId { instance, generation: Generation(1) }
    }

    fn texts(read: &Read) -> Vec<&str> {
        read.lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[tokio::test]
    async fn a_follower_reads_the_last_lines_and_then_what_comes() {
        let journals = Journals::default();
        let journal = journals.of(&worker().instance.model);
        for text in ["a", "b", "c"] {
            journal.write(&worker(), "info", text);
        }
        let mut follower = journals.of(&worker().instance.model).follow(2);
        assert_eq!(texts(&follower.next().await), ["b", "c"]);
        assert_eq!(follower.read(10), Read::default());
        let later = tokio::spawn(async move { follower.next().await });
        tokio::task::yield_now().await;
        journal.write(&worker(), "warn", "d");
        let read = later.await.unwrap();
        assert_eq!((texts(&read), read.lines[0].level), (vec!["d"], "warn"));
        assert_eq!(texts(&journal.follow(0).read(10)), [""; 0]);
    }

    #[test]
    fn a_slow_follower_is_told_what_it_has_lost() {
        let journal = Journal::default();
        let mut slow = journal.follow(0);
        for number in 0..KEPT_LINES + 7 {
            journal.write(&worker(), "info", &number.to_string());
        }
        let read = slow.read(2);
        assert_eq!((read.lost, texts(&read)), (7, vec!["7", "8"]));
        let read = slow.read(usize::MAX);
        assert_eq!((read.lost, read.lines.len()), (0, KEPT_LINES - 2));
    }

    proptest! {
        #[test]
        fn bounds_hold_and_no_line_is_read_twice_or_missed(
            lengths in prop::collection::vec(0..100_000_usize, 0..40),
            reads in prop::collection::vec(any::<bool>(), 40),
        ) {
            let journal = Journal::default();
            let mut follower = journal.follow(0);
            let (mut seen, mut written) = (0, 0);
            for (length, read) in lengths.into_iter().zip(reads) {
                journal.write(&worker(), "info", &"x".repeat(length));
                written += 1;
                {
                    let ring = lock(&journal.0.ring);
                    prop_assert!(ring.lines.len() == 1 || ring.bytes <= KEPT_BYTES);
                }
                if read {
                    let read = follower.read(3);
                    seen += read.lost + read.lines.len() as u64;
                }
            }
            let rest = follower.read(usize::MAX);
            prop_assert_eq!(seen + rest.lost + rest.lines.len() as u64, written);
        }
    }
}
