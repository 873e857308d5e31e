//! Looks at the memory, the threads and the files of one worker for as long as somebody wants to know.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use proto::control::Level;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};

use crate::enclosure::memory::Memory;
use crate::enclosure::{Enclosure, disk, memory, objects};
use crate::health::DiskUse;

/// What was seen of a worker; memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// What its limit is held against; `None` where the kernel holds it.
    memory: Option<Memory>,
    /// What it holds in memory objects, as far as anybody looks.
    held: u64,
    /// What would come free if it ended.
    pub(super) private: Option<u64>,
    /// How often that was looked at.
    pub(super) private_looks: u32,
    /// Threads of all its processes; `None` where the kernel limits them.
    pub(super) threads: Option<u32>,
    /// What is in its scratch folder; `None` where there is no limit.
    pub(super) scratch: Option<DiskUse>,
}

impl Usage {
    /// Bytes that its limit on memory is held against; `None` where the kernel holds it.
    pub(super) fn used(&self) -> Option<u64> {
        self.memory.map(|memory| memory.with_held(self.held))
    }
}

/// How often a worker is looked at whose memory nothing else limits: what it takes between two looks it
/// has.
const WATCH_EVERY: Duration = Duration::from_millis(50);
/// The same for its threads. Every worker on a machine without control groups is looked at so often.
const COUNT_EVERY: Duration = Duration::from_millis(200);
/// The first look at private memory, when most models have loaded, and the time between two: each
/// walks through all pages of the process.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often its files are looked at: a folder is read, and the names of what it has open.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// Processes of one worker that are looked at; their number has a limit of its own.
const MOST_PROCESSES: usize = 1024;

/// Who is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who {
    /// The process that was started.
    pub(super) pid: i32,
    /// The size of what it shares with the supervisor.
    pub(super) arena: u64,
    pub(super) level: Level,
}

/// Looks at a worker until it is gone or nobody listens.
pub(super) fn watch(enclosure: &Arc<Enclosure>, who: Who) -> watch::Receiver<Usage> {
    let (sender, usage) = watch::channel(Usage::default());
    let Who { pid, arena, level } = who;
    let subject = Subject { enclosure: Arc::downgrade(enclosure), pid, arena, level };
    let every = match (enclosure.report().is_watched(), enclosure.report().is_counted()) {
        (true, _) => WATCH_EVERY,
        (false, true) => COUNT_EVERY,
        (false, false) => LOOK_EVERY,
    };
    let sender = Arc::new(sender);
    // By itself, because a disk may be slow to answer.
    if enclosure.report().scratch_limit.is_some() || enclosure.report().is_watched() {
        tokio::spawn(subject.clone().measure(Arc::clone(&sender)));
    }
    tokio::spawn(subject.look(sender, every));
    usage
}

/// What is in the scratch folder, if that can be told, and in memory objects.
#[derive(Clone, Copy, Debug)]
struct Files {
    scratch: Option<DiskUse>,
    held: u64,
}

#[derive(Clone, Debug)]
struct Subject {
    /// Not a hold on it: it is dissolved when the worker has gone.
    enclosure: Weak<Enclosure>,
    pid: i32,
    arena: u64,
    level: Level,
}

impl Subject {
    async fn look(self, sender: Arc<watch::Sender<Usage>>, every: Duration) {
        let mut ticks = ticks(every);
        let mut private_at = Instant::now() + FIRST_LOOK;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = sender.closed() => return,
            }
            let now = Instant::now();
            let subject = self.clone();
            let private = now >= private_at;
            let look = move || {
                let seen = subject.seen()?;
                if private {
                    subject.enclosure.upgrade()?.note_alive();
                }
                Some(if private { Usage { private: subject.private(), ..seen } } else { seen })
            };
            let Some(seen) = aside(&AT_PROCESSES, look).await else { continue };
            let Some(seen) = seen else {
                // Nothing is to be seen of it, or not now: files cannot be opened without end.
                if self.enclosure.strong_count() == 0 { return } else { continue }
            };
            if private {
                private_at = now + LOOK_EVERY;
            }
            sender.send_if_modified(|usage| {
                let Usage { held, scratch, private_looks: looks, .. } = *usage;
                let (private, private_looks) = match private {
                    true => (seen.private, looks.wrapping_add(1)),
                    false => (usage.private, looks),
                };
                let seen = Usage { private, private_looks, held, scratch, ..seen };
                std::mem::replace(usage, seen) != seen
            });
        }
    }

    async fn measure(self, sender: Arc<watch::Sender<Usage>>) {
        let mut ticks = ticks(MEASURE_EVERY);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = sender.closed() => return,
            }
            let subject = self.clone();
            let found = aside(&AT_FILES, move || subject.files()).await.flatten();
            if self.enclosure.strong_count() == 0 {
                return;
            }
            let Some(Files { scratch, held }) = found else { continue };
            sender.send_if_modified(|usage| {
                // What cannot be told now was told before.
                let seen = Usage { held, scratch: scratch.or(usage.scratch), ..*usage };
                std::mem::replace(usage, seen) != seen
            });
        }
    }

    /// What all its processes have open or on disk, as far as that is limited; `None` when it has gone.
    fn files(&self) -> Option<Files> {
        let enclosure = self.enclosure.upgrade()?;
        let report = enclosure.report();
        let mut processes = self.others(&enclosure);
        processes.push(self.pid);
        let limited = report.scratch_limit.is_some();
        let scratch = limited.then(|| disk::occupied(&report.scratch, &processes)).flatten();
        let held = if report.is_watched() { objects::held(&processes) } else { 0 };
        Some(Files { scratch, held })
    }

    fn private(&self) -> Option<u64> {
        let first = memory::private(self.pid)?;
        let others = memory::below(self.pid).into_iter().filter_map(memory::private);
        Some(others.fold(first, u64::saturating_add))
    }

    /// What somebody has to look at, of all its processes together; `None` when there is nothing to see.
    fn seen(&self) -> Option<Usage> {
        let enclosure = self.enclosure.upgrade()?;
        let report = enclosure.report();
        let mut seen = Usage::default();
        if report.is_counted() {
            let first = memory::threads(self.pid)?;
            seen.threads = Some(first);
            // That settles it, and to look for its processes takes a look at each of them.
            if first > report.processes.limit {
                return Some(seen);
            }
        }
        // Of the processes around a worker in namespaces, nothing is held against it.
        let around = match (report.is_watched(), self.level) {
            (true, Level::Strict) => memory::around(self.pid),
            (false, _) | (true, Level::None | Level::Standard) => Vec::new(),
        };
        if report.is_watched() {
            let first = memory::used(self.pid, self.arena)?;
            seen.memory = Some(if around.is_empty() { first } else { Memory::default() });
        }
        if seen == Usage::default() {
            return Some(seen);
        }
        for pid in self.others(&enclosure) {
            let more = || memory::used(pid, self.arena).unwrap_or_default();
            seen.memory = seen.memory.map(|sum| match around.contains(&pid) {
                true => sum,
                false => sum.and(more()),
            });
            let add = |sum: u32| sum.saturating_add(memory::threads(pid).unwrap_or(0));
            seen.threads = seen.threads.map(add);
        }
        Some(seen)
    }

    /// Its processes beside the first.
    fn others(&self, enclosure: &Enclosure) -> Vec<i32> {
        let mut others: BTreeSet<i32> = enclosure.members().into_iter().collect();
        // In namespaces of its own the worker is below the process that was started.
        others.extend(memory::below(self.pid));
        others.remove(&self.pid);
        others.into_iter().take(MOST_PROCESSES).collect()
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + every.min(FIRST_LOOK), every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Looks at a time, of all workers: each has a thread meanwhile, which keeps memory for itself for a
/// while.
static AT_PROCESSES: Semaphore = Semaphore::const_new(2);
static AT_FILES: Semaphore = Semaphore::const_new(1);

/// How long a look waits for its turn.
const TURN_LIMIT: Duration = Duration::from_millis(250);

/// Runs what may block; `None` if the kernel refuses a thread for it.
async fn aside<T: Send + 'static>(
    turn: &Semaphore,
    look: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    // Without one, if need be: a look that hangs is the business of the worker that it is for.
    let _turn = timeout(TURN_LIMIT, turn.acquire()).await;
    // In a task of its own, which panics then: whoever is watched may be why. The next look may have
    // a thread.
    let looked = tokio::spawn(async move { spawn_blocking(look).await });
    looked.await.ok()?.ok()
}
