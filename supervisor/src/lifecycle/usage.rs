//! Looks at the memory of one worker for as long as somebody wants to know.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::enclosure::{Enclosure, memory};

/// What was seen of a worker's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// What its limit is held against; `None` where the kernel holds it.
    pub(super) used: Option<u64>,
    /// What would come free if it ended.
    pub(super) private: Option<u64>,
}

/// How often a worker is looked at whose limit nothing else holds: what it takes between two looks it
/// has.
const WATCH_EVERY: Duration = Duration::from_millis(50);
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
    let every = if enclosure.report().is_watched() { WATCH_EVERY } else { LOOK_EVERY };
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
            let mut usage = *sender.borrow();
            let private = now >= private_at;
            let seen = spawn_blocking(move || {
                usage.used = subject.used()?;
                if private {
                    usage.private = subject.private();
                }
                Some(usage)
            });
            let Ok(Some(seen)) = seen.await else { return };
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

    /// The memory of all its processes, if somebody has to look at it; `None` when it has gone.
    fn used(&self) -> Option<Option<u64>> {
        let enclosure = self.enclosure.upgrade()?;
        if !enclosure.report().is_watched() {
            return Some(None);
        }
        let first = memory::used(self.pid, self.arena)?;
        let mut others: BTreeSet<i32> = enclosure.members().into_iter().collect();
        // In namespaces of its own the worker is below the process that was started.
        others.extend(memory::below(self.pid));
        others.remove(&self.pid);
        let others = others.into_iter().take(MOST_PROCESSES);
        let others = others.filter_map(|pid| memory::used(pid, self.arena));
        Some(Some(others.fold(first, u64::saturating_add)))
    }
}
