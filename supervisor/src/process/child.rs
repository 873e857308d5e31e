//! A running worker process.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::Arc;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use shared::sync::{AtomicBool, Ordering};

use super::strays::Member;

/// A process that leads a group of its own. It is killed when this value is dropped.
#[derive(Debug)]
pub struct Child {
    process: tokio::process::Child,
    group: Group,
    /// Dropped after the process: it is no stray before it was reaped.
    _member: Member,
}

/// The process group of one worker.
#[derive(Clone, Debug)]
pub struct Group {
    leader: Pid,
    /// Its number may be another's from now on.
    reaped: Arc<AtomicBool>,
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
    pub(super) fn new(process: tokio::process::Child, pid: i32, member: Member) -> Self {
        let group = Group { leader: Pid::from_raw(pid), reaped: Arc::default() };
        Self { process, group, _member: member }
    }

    pub fn group(&self) -> Group {
        self.group.clone()
    }

    /// Waits for the exit and reaps.
    pub async fn wait(&mut self) -> Exit {
        let status = self.process.wait().await;
        self.group.reaped.store(true, Ordering::Release);
        match status {
            Ok(status) => Exit::of(status),
            Err(_) => Exit::Unknown,
        }
    }
}

impl Group {
    pub fn pid(&self) -> i32 {
        self.leader.as_raw()
    }

    /// Signals every process of the group, unless its leader was reaped. A group that has gone is
    /// no error.
    pub fn signal(&self, signal: Signal) {
        if !self.reaped.load(Ordering::Acquire) {
            let _gone = killpg(self.leader, signal);
        }
    }
}

impl Exit {
    fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }
}
