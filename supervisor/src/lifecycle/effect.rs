//! Everything that a machine can ask for.
//!
//! Owns the vocabulary of effects. Nothing here is carried out: the task that owns the machine does
//! that, in the order of the list, and reports back with events.

use std::fmt;
use std::time::Duration;

use shared::id::Generation;

use super::event::{ExitReport, LoadFault, Ticket, Token};
use crate::exit_kind::ExitKind;
use crate::health;

/// In the order in which they must be carried out.
pub type Effects = Vec<Effect>;

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Ask for the memory of one worker. Answered by `Granted` or `Denied`, now or later.
    ReserveQuota {
        ticket: Ticket,
    },
    /// Take the reservation back, whether it was granted or not. No answer to it counts any more.
    CancelReserve {
        ticket: Ticket,
    },
    /// Start the process. Answered by `Loaded`, `LoadFailed` or `Exited`; a start that fails is an
    /// `Exited` of class `SpawnFailed`.
    Spawn {
        generation: Generation,
    },
    /// Requests may be sent to this generation.
    PublishRoute {
        generation: Generation,
    },
    /// No further request may be sent to it. If nothing is in flight, `Drained` may follow at once.
    WithdrawRoute {
        generation: Generation,
    },
    /// Hand back whatever is still in flight, and accept nothing more. Whether that may be why the
    /// worker ends follows from `cause`.
    FailInFlight {
        generation: Generation,
        cause: StopCause,
    },
    /// Ask the process to end: the shutdown command, then TERM to its group.
    Signal {
        generation: Generation,
    },
    /// End every process of its group and control group. Comes again until the exit was seen.
    KillGroup {
        generation: Generation,
    },
    /// Send `Timer { token }` when `after` has passed. A machine needs one timer at most: this one
    /// replaces any that it armed before.
    ArmTimer {
        token: Token,
        after: Duration,
    },
    /// Give the granted memory back; the process is gone.
    ReleaseQuota {
        ticket: Ticket,
    },
    /// Accept batches of half the size from now on; one that fitted before ran out of memory.
    ReduceBatch,
    Record(Record),
}

/// What is kept for whoever asks later.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    Denied { reason: String },
    Exited(ExitRecord),
}

/// One end of one process.
#[derive(Clone, Debug, PartialEq)]
pub struct ExitRecord {
    pub generation: Generation,
    /// The name of the state in which the exit was seen.
    pub during: &'static str,
    pub kind: ExitKind,
    pub cause: StopCause,
    pub exit: ExitReport,
    /// How long it had been ready, zero if it never was.
    pub healthy_for: Duration,
}

/// Why a process ended.
#[derive(Clone, Debug, PartialEq)]
pub enum StopCause {
    /// Nobody had asked it to.
    Unasked,
    Unwanted,
    /// Nobody had used it for a while.
    Idle,
    /// An operator wanted another process in its place.
    Renewed,
    ServerEnds,
    LoadTimeout,
    LoadFailed {
        fault: LoadFault,
        message: String,
    },
    Unhealthy(health::Reason),
}

impl ExitRecord {
    /// What happened, in words; the kind is not repeated.
    #[must_use]
    pub fn summary(&self) -> String {
        match &self.cause {
            StopCause::Unasked => self.exit.to_string(),
            cause @ (StopCause::Unwanted
            | StopCause::Idle
            | StopCause::Renewed
            | StopCause::ServerEnds)
                if !self.kind.is_intended() =>
            {
                format!("{cause}, and then {}", self.exit)
            }
            cause @ (StopCause::Unwanted
            | StopCause::Idle
            | StopCause::Renewed
            | StopCause::ServerEnds
            | StopCause::LoadTimeout
            | StopCause::LoadFailed { .. }
            | StopCause::Unhealthy(_)) => cause.to_string(),
        }
    }

    /// One line for the reason in the repository index.
    #[must_use]
    pub fn reason(&self) -> String {
        format!("{}: {}", self.kind, self.summary())
    }
}

impl fmt::Display for StopCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unasked => f.write_str("it ended by itself"),
            Self::Unwanted => f.write_str("it was no longer wanted"),
            Self::Idle => f.write_str("nobody had used it for a while"),
            Self::Renewed => f.write_str("an operator asked for a new worker"),
            Self::ServerEnds => f.write_str("the server ends"),
            Self::LoadTimeout => f.write_str("it did not load in time"),
            Self::LoadFailed { fault: LoadFault::Starved, message } => {
                write!(f, "the server lacks what a handshake takes: {message}")
            }
            Self::LoadFailed { fault: LoadFault::NoHandshake, message } => f.write_str(message),
            Self::LoadFailed { fault: LoadFault::Transient, message } => {
                write!(f, "the load failed: {message}")
            }
            Self::LoadFailed { fault: LoadFault::Permanent, message } => {
                write!(f, "the model cannot be loaded: {message}")
            }
            Self::Unhealthy(why) => why.fmt(f),
        }
    }
}
