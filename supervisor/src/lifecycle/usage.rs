//! Looks at the memory and the threads of one worker for as long as somebody wants to know.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::enclosure::{Enclosure, memory};

/// What was seen of a worker; memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// What its limit is held against; `None` where the kernel holds it.
    pub(super) used: Option<u64>,
    /// What would come free if it ended.
    pub(super) private: Option<u64>,
    /// Threads of all its processes; `None` where the kernel limits them.
    pub(super) threads: Option<u32>,
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
/// Processes of one worker that are looked at; their number has a limit of its own.
const MOST_PROCESSES: usize = 1024;

/// Looks at the process `pid` until it is gone or nobody listens. `arena` is the size of what it shares
/// with the supervisor.
pub(super) fn watch(enclosure: &Arc<Enclosure>, pid: i32, arena: u64) -> watch::Receiver<Usage> {
    let (sender, usage) = watch::channel(Usage::default());
    let subject = Subject { enclosure: Arc::downgrade(enclosure), pid, arena };
    let every = match (enclosure.report().is_watched(), enclosure.report().is_counted()) {
        (true, _) => WATCH_EVERY,
        (false, true) => COUNT_EVERY,
        (false, false) => LOOK_EVERY,
    };
    tokio::spawn(subject.look(sender, every));
    usage
}

#[derive(Clone, Debug)]
struct Subject {
    /// Not a hold on it: it is dissolved when the worker has gone.
    enclosure: Weak<Enclosure>,
    pid: i32,
    arena: u64,
}

impl Subject {
    async fn look(self, sender: watch::Sender<Usage>, every: Duration) {
        let start = Instant::now() + every.min(FIRST_LOOK);
        let mut ticks = interval_at(start, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut private_at = Instant::now() + FIRST_LOOK;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = sender.closed() => return,
            }
            let now = Instant::now();
            let subject = self.clone();
            let last = *sender.borrow();
            let private = now >= private_at;
            let look = move || {
                let seen = subject.seen()?;
                Some(if private { Usage { private: subject.private(), ..seen } } else { seen })
            };
            // In a task of its own: it panics if the kernel refuses a thread, and whoever is watched
            // may be why. The next look may have one.
            let looked = tokio::spawn(async move { spawn_blocking(look).await });
            let Ok(Ok(seen)) = looked.await else { continue };
            let Some(seen) = seen else { return };
            let seen = if private { seen } else { Usage { private: last.private, ..seen } };
            if private {
                private_at = now + LOOK_EVERY;
            }
            sender.send_if_modified(|usage| std::mem::replace(usage, seen) != seen);
        }
    }

    fn private(&self) -> Option<u64> {
        let first = memory::private(self.pid)?;
        let others = memory::below(self.pid).into_iter().filter_map(memory::private);
        Some(others.fold(first, u64::saturating_add))
    }

    /// What somebody has to look at, of all its processes together; `None` when it has gone.
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
        if report.is_watched() {
            seen.used = Some(memory::used(self.pid, self.arena)?);
        }
        if seen == Usage::default() {
            return Some(seen);
        }
        for pid in self.others(&enclosure) {
            let add = |sum: u64| sum.saturating_add(memory::used(pid, self.arena).unwrap_or(0));
            seen.used = seen.used.map(add);
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
