//! A running worker process.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use shared::sys::pidfd;
use shared::sys::process::End;
use tokio::io::unix::AsyncFd;

use super::readable::watch;
use super::strays::Member;
use super::turns::Turns;

/// A child of this process that leads a process group of its own, however it was made. It is killed
/// and reaped when this value is dropped.
#[derive(Debug)]
pub struct Child {
    /// `None` once it was reaped; no stray before that.
    process: Option<(AsyncFd<OwnedFd>, Member)>,
    group: Group,
}

/// The process group of one worker.
#[derive(Clone, Debug)]
pub struct Group {
    leader: Pid,
    /// Once it was reaped its number may be another's. Held while a signal is sent or it is reaped, so
    /// that the one cannot come into the other.
    reaped: Arc<Mutex<Reaped>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reaped {
    #[default]
    No,
    Yes,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// The kernel did not say.
    Unknown,
}

impl Child {
    /// Takes over a child that nobody has reaped. An error if there is no such child; within a
    /// runtime only.
    pub(super) fn adopt(member: Member) -> io::Result<Self> {
        let leader = Pid::from_raw(member.pid());
        let process = match pidfd::open_child(leader).map_err(io::Error::from).and_then(watch) {
            Ok(process) => process,
            Err(error) => {
                if error.raw_os_error() == Some(Errno::ECHILD as i32) {
                    return Err(error);
                }
                // It is ours and not reaped, so that its number is its own.
                let _gone = kill(leader, Signal::SIGKILL);
                let reaper = std::thread::Builder::new().name("reaper".to_owned());
                let _no_thread = reaper.spawn(move || {
                    let _gone = shared::sys::process::reap(Some(leader));
                    drop(member);
                });
                return Err(error);
            }
        };
        let group = Group { leader, reaped: Arc::default() };
        Ok(Self { process: Some((process, member)), group })
    }

    pub fn group(&self) -> Group {
        self.group.clone()
    }

    /// Waits for the exit, kills what is left of the group, and reaps.
    pub async fn wait(&mut self) -> Exit {
        let Some((process, _)) = &self.process else { return Exit::Unknown };
        let status = loop {
            // Nothing is there before the end, and nothing is read: each look asks the kernel.
            match process.readable().await {
                Ok(mut ready) if !pidfd::has_ended(process.get_ref()) => ready.clear_ready(),
                // Until it is reaped, the number of its group is no other's.
                Ok(mut ready) => match self.group.reap_after_kill(process.get_ref()) {
                    Ok(None) => ready.clear_ready(),
                    Ok(Some(status)) => break Ok(status),
                    Err(error) => break Err(error),
                },
                Err(_) => break Err(Errno::EIO),
            }
        };
        self.process = None;
        status.map_or(Exit::Unknown, Exit::from)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let Some((process, member)) = self.process.take() else { return };
        self.group.signal(Signal::SIGKILL);
        let process = process.into_inner();
        // A killed process goes soon, but not at once, and must not be waited for here.
        let reaper = std::thread::Builder::new().name("reaper".to_owned());
        let _no_thread = reaper.spawn(move || {
            reap_killed(&process);
            drop(member);
        });
        *self.group.lock() = Reaped::Yes;
    }
}

/// How long the end of a killed process is waited for. One that the kernel cannot end is left to
/// whoever inherits this process's children.
const REAP_LIMIT: u16 = 10_000;

fn reap_killed(process: &OwnedFd) {
    let mut ended = [nix::poll::PollFd::new(process.as_fd(), nix::poll::PollFlags::POLLIN)];
    let _late = nix::poll::poll(&mut ended, REAP_LIMIT);
    let _gone = pidfd::reap(process);
}

impl Group {
    pub fn pid(&self) -> i32 {
        self.leader.as_raw()
    }

    /// Signals every process of the group, unless its leader was reaped. A group that has gone is
    /// no error.
    pub fn signal(&self, signal: Signal) {
        if *self.lock() == Reaped::No {
            let _gone = killpg(self.leader, signal);
        }
    }

    /// How soon its first thread gets its turn, unless it was reaped. Where the kernel refuses,
    /// nothing changes.
    pub fn give_turns(&self, turns: Turns) {
        if *self.lock() == Reaped::No {
            let _refused = turns.give(Some(self.leader));
        }
    }

    fn reap_after_kill(&self, leader: &OwnedFd) -> Result<Option<End>, Errno> {
        let mut reaped = self.lock();
        let _gone = killpg(self.leader, Signal::SIGKILL);
        let end = pidfd::reap(leader);
        if !matches!(end, Ok(None)) {
            *reaped = Reaped::Yes;
        }
        end
    }

    fn lock(&self) -> MutexGuard<'_, Reaped> {
        self.reaped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<End> for Exit {
    fn from(end: End) -> Self {
        match end {
            End::Code(code) => Self::Code(code),
            End::Signal(signal) => Self::Signal(signal),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;

    use super::*;
    use crate::process::Family;

    fn start(script: &str) -> Child {
        let mut command = std::process::Command::new("sh");
        let command = command.args(["-c", script]).process_group(0);
        let family = Arc::new(Family::default());
        let pid = command.spawn().map(|child| i32::try_from(child.id()).unwrap()).unwrap();
        Child::adopt(family.start(|| Ok::<_, ()>(pid), |pid| *pid).unwrap().1).unwrap()
    }

    #[tokio::test]
    async fn exits_are_told_apart() {
        assert_eq!(start("exit 7").wait().await, Exit::Code(7));
        assert_eq!(start("kill -9 $$").wait().await, Exit::Signal(9));
        let mut child = start("exit 0");
        assert_eq!((child.wait().await, child.wait().await), (Exit::Code(0), Exit::Unknown));
    }

    #[tokio::test]
    async fn what_is_dropped_is_killed_and_reaped() {
        let child = start("exec cat /dev/zero > /dev/null");
        let pid = child.group().pid();
        drop(child);
        let gone = || !std::path::Path::new(&format!("/proc/{pid}")).exists();
        tokio::time::timeout(std::time::Duration::from_secs(30), async {
            while !gone() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }
}
