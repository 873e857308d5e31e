//! The machine and this process, looked at now and then: what they use of processors and memory.

use std::time::Duration;

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

/// What was seen at the last look; `None` if it was not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Host {
    /// The part of all processors that was busy since the look before, 0 to 1.
    pub busy: Option<f64>,
    /// Bytes of the machine.
    pub memory_total: Option<u64>,
    pub memory_used: Option<u64>,
    /// Bytes of this process that are in memory.
    pub own_memory: Option<u64>,
}

/// Three small files are read for a look.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Looks for as long as somebody listens.
#[must_use]
pub fn watch_host() -> watch::Receiver<Host> {
    let (sender, host) = watch::channel(Host::default());
    tokio::spawn(async move {
        let mut looking = Some(Looker::default());
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = sender.closed() => return,
            }
            let mut looker = looking.take().unwrap_or_default();
            let looked = spawn_blocking(move || (looker.look(), looker)).await;
            // Without a thread for it this look is left out.
            if let Ok((seen, looker)) = looked {
                sender.send_replace(seen);
                looking = Some(looker);
            }
        }
    });
    host
}

#[derive(Debug, Default)]
struct Looker {
    system: System,
    looked: bool,
}

impl Looker {
    fn look(&mut self) -> Host {
        let own = Pid::from_u32(std::process::id());
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        let memory = ProcessRefreshKind::nothing().with_memory();
        self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&[own]), true, memory);
        let busy = f64::from(self.system.global_cpu_usage() / 100.0).clamp(0.0, 1.0);
        let known = |bytes: u64| Some(bytes).filter(|&bytes| bytes > 0);
        Host {
            // It takes two looks to see how busy it was in between.
            busy: std::mem::replace(&mut self.looked, true).then_some(busy),
            memory_total: known(self.system.total_memory()),
            memory_used: known(self.system.used_memory()),
            own_memory: self.system.process(own).and_then(|process| known(process.memory())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory_and_we_use_some_of_it() {
        let mut looker = Looker::default();
        let first = looker.look();
        assert_eq!(first.busy, None);
        assert!(first.memory_used < first.memory_total);
        assert!(first.own_memory.unwrap() > 1 << 20, "{first:?}");
        assert!((0.0..=1.0).contains(&looker.look().busy.unwrap()));
    }
}
