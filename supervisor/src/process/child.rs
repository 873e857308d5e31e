//! A running worker process.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// A process that leads a group of its own. It is killed when this value is dropped.
#[derive(Debug)]
pub struct Child {
    process: tokio::process::Child,
    group: Group,
}

/// The process group of one worker.
#[derive(Clone, Copy, Debug)]
pub struct Group(Pid);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// The kernel did not say.
    Unknown,
}

impl Child {
    pub(super) fn new(process: tokio::process::Child) -> io::Result<Self> {
        let pid = process.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.ok_or_else(|| io::Error::other("the process has no id"))?;
        Ok(Self { process, group: Group(Pid::from_raw(pid)) })
    }

    pub fn group(&self) -> Group {
        self.group
    }

    /// Waits for the exit and reaps.
    pub async fn wait(&mut self) -> Exit {
        match self.process.wait().await {
            Ok(status) => Exit::of(status),
            Err(_) => Exit::Unknown,
        }
    }
}

impl Group {
    pub fn pid(self) -> i32 {
        self.0.as_raw()
    }

    /// Signals every process of the group. A group that has gone is no error; it must not be
    /// signalled after its leader was reaped, because its number may be another's by then.
    pub fn signal(self, signal: Signal) {
        let _gone = killpg(self.0, signal);
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
