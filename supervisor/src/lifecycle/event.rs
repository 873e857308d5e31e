//! Everything that can happen to one instance.
//!
//! Owns the vocabulary between the task that owns a machine and the machine. Events carry what
//! tells a stale one from a current one: facts about a process its generation, timers the
//! [`Token`] they were armed with, answers about quota the [`Ticket`] they were asked with.

use std::fmt;

use proto::control::WorkerExit;
use shared::id::Generation;

use super::restart::Jitter;
use crate::exit_kind::signal_name;
use crate::health;

/// Names one arming of a timer. Never reused by the same machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// Names one reservation of quota. Never reused by the same machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The model should be loaded here.
    Wanted,
    /// The model should not be loaded here: finish what is in flight, then go.
    Unwanted,
    /// As `Unwanted`, because the server ends.
    ServerEnds,
    /// Nobody has used the model for a while. The lane is out of service already, and nothing is in
    /// flight on it: whoever says this has looked and acted in one step.
    Idle {
        generation: Generation,
    },
    /// Somebody waits for a worker.
    Demand,
    /// Go without finishing anything: the second request to stop.
    StopNow,
    /// An operator wants another process in place of this one: what is in flight may finish first.
    Renew,
    /// An operator vouches for the model: forget the restarts that were spent.
    OperatorReset,
    Granted {
        ticket: Ticket,
    },
    Denied {
        ticket: Ticket,
        reason: String,
    },
    /// The process runs, and was told what to load.
    Attached {
        generation: Generation,
    },
    Loaded {
        generation: Generation,
    },
    LoadFailed {
        generation: Generation,
        fault: LoadFault,
        message: String,
    },
    Unhealthy {
        generation: Generation,
        why: health::Reason,
    },
    /// Nothing of this generation is in flight any more.
    Drained {
        generation: Generation,
    },
    /// The process is gone and has been reaped, or could not be started at all.
    Exited {
        generation: Generation,
        exit: ExitReport,
        jitter: Jitter,
    },
    Timer {
        token: Token,
    },
}

/// Whether loading the same model again could end otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadFault {
    /// The supervisor itself was short of what it takes to greet a worker.
    Starved,
    /// It gave no sign of life in time, or an odd one.
    NoHandshake,
    Transient,
    Permanent,
}

/// How a process ended, as the supervisor saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitReport {
    pub class: ExitClass,
    /// What helps a person: an error of the start, the last lines of the log.
    pub detail: String,
}

/// What can be told from the exit alone; a record adds why the supervisor had ended it, if it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExitClass {
    /// It never ran.
    SpawnFailed,
    /// It never ran, because the supervisor itself was short of descriptors, processes or memory.
    SpawnStarved,
    Code(i32),
    Signal(i32),
    /// The kernel killed it for host memory.
    HostOutOfMemory,
    DeviceOutOfMemory,
    /// The device refuses this process from now on (a sticky error of CUDA).
    DeviceFault,
    Unknown,
}

impl Event {
    /// The generation that a fact speaks of.
    pub(super) fn generation(&self) -> Option<Generation> {
        match self {
            Self::Attached { generation }
            | Self::Loaded { generation }
            | Self::LoadFailed { generation, .. }
            | Self::Unhealthy { generation, .. }
            | Self::Drained { generation }
            | Self::Idle { generation }
            | Self::Exited { generation, .. } => Some(*generation),
            Self::Wanted | Self::Unwanted | Self::ServerEnds | Self::Demand => None,
            Self::StopNow | Self::OperatorReset | Self::Renew => None,
            Self::Granted { .. } | Self::Denied { .. } | Self::Timer { .. } => None,
        }
    }
}

impl ExitClass {
    /// What an exit code says. Those of a start count only in a start: see `classify`.
    #[must_use]
    pub fn of_code(code: i32) -> Self {
        match WorkerExit::from_code(code) {
            Some(WorkerExit::DeviceOutOfMemory) => Self::DeviceOutOfMemory,
            Some(WorkerExit::DeviceFault) => Self::DeviceFault,
            Some(
                WorkerExit::Clean
                | WorkerExit::BadStart
                | WorkerExit::Handshake
                | WorkerExit::NoLoad
                | WorkerExit::LoadFailed
                | WorkerExit::Transport,
            )
            | None => Self::Code(code),
        }
    }
}

impl fmt::Display for ExitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail.as_str() {
            "" => self.class.fmt(f),
            detail => write!(f, "{}: {detail}", self.class),
        }
    }
}

impl fmt::Display for ExitClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SpawnFailed => f.write_str("it could not be started"),
            Self::SpawnStarved => f.write_str("the server lacks what a start takes"),
            Self::Code(code) => write!(f, "it exited with code {code}"),
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "it was ended by signal {signal} ({name})"),
                None => write!(f, "it was ended by signal {signal}"),
            },
            Self::HostOutOfMemory => f.write_str("it ran out of host memory"),
            Self::DeviceOutOfMemory => f.write_str("it ran out of device memory"),
            Self::DeviceFault => f.write_str("its device context broke"),
            Self::Unknown => f.write_str("it ended in an unknown way"),
        }
    }
}
