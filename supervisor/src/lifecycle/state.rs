//! Where one instance can be, and what each state has to remember.
//!
//! Owns the states, each with the data that only it needs, and what they look like from outside
//! ([`Status`]). The moves between them are in [`super::machine`].
//!
//! Invariant: a state that holds a grant holds it together with the generation that it was for.

use std::fmt;
use std::time::Duration;

use shared::clock::MonotonicNanos;
use shared::id::Generation;

use super::classify::Phase;
use super::effect::StopCause;
use super::event::{Ticket, Token};
use super::restart::NoRestart;

#[derive(Clone, Debug, PartialEq)]
pub enum State {
    Unloaded(Unloaded),
    /// The memory is asked for.
    Reserving {
        ticket: Ticket,
        coming: Coming,
    },
    /// The process runs, or is about to, and loads its model.
    Starting {
        worker: Worker,
        timer: Token,
        coming: Coming,
    },
    /// The route is published.
    Ready {
        worker: Worker,
        since: MonotonicNanos,
    },
    /// The route is withdrawn; what is in flight may finish. Never with `Then::Backoff` or
    /// `Then::Quarantined`: a worker that deserves those is not waited for.
    Draining {
        worker: Worker,
        timer: Token,
        healthy_for: Duration,
        cause: StopCause,
        then: Then,
    },
    /// Nothing is in flight; the process was asked or forced to end.
    Stopping(Stopping),
    /// Nobody used the model, so that it has no process and no memory; the next request brings one.
    Resting,
    /// There is no process; another try follows when the timer fires.
    Backoff {
        timer: Token,
        after: Duration,
        why: String,
        retry: Retry,
    },
    /// The process is gone; none follows until an operator acts.
    Quarantined(Quarantine),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Stopping {
    pub worker: Worker,
    pub timer: Token,
    pub force: Force,
    pub cause: StopCause,
    pub healthy_for: Duration,
    pub then: Then,
    /// How far it had come.
    pub phase: Phase,
}

/// A process that exists, or may exist, and the memory that it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worker {
    pub generation: Generation,
    pub ticket: Ticket,
}

/// What brings a worker up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coming {
    /// Somebody asked for it, and is told if there is no memory.
    Load,
    /// There was one before, and it is still wanted. Nobody has to ask again.
    Restart,
    /// A request for a model that rested. Clients take it for ready all the while.
    Demand,
}

/// Whether the next try counts against the budget of restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It has been paid for.
    Paid,
    /// It is not the model's fault that there is no worker.
    Free(Coming),
}

/// What follows the exit that is waited for.
#[derive(Clone, Debug, PartialEq)]
pub enum Then {
    Unloaded,
    Reserving(Coming),
    Resting,
    /// A restart, if the budget still has one by then.
    Backoff,
    Quarantined(Quarantine),
}

/// How far the ladder has been climbed down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    Asked,
    Killed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unloaded {
    NeverWanted,
    Unwanted,
    Denied { reason: String },
}

/// Why an instance is held back.
#[derive(Clone, Debug, PartialEq)]
pub enum Quarantine {
    /// A repeat would fail alike.
    CannotLoad { message: String },
    /// It was ended too often, or in a way that is never retried; `last` is the latest.
    NoRestart { why: NoRestart, last: String },
    /// It ran out of memory, and `on_oom` says to leave it at that.
    OutOfMemory { last: String },
}

/// What clients and operators see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub availability: Availability,
    /// Empty if there is nothing to explain.
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Not loaded, and not meant to be.
    Unloaded,
    /// Not ready yet; it will be, or will turn unavailable, without anyone's doing.
    Loading,
    Ready,
    Unloading,
    /// Should be loaded and cannot be; stays so until somebody acts.
    Unavailable,
}

/// Clients look at readiness before they send: a model that would serve them is ready.
const RESTING: &str = "idle: the next request starts a worker";
const WAKING: &str = "idle until now: a worker is starting";

impl State {
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unloaded(_) => "unloaded",
            Self::Reserving { .. } => "reserving",
            Self::Starting { .. } => "starting",
            Self::Ready { .. } => "ready",
            Self::Draining { .. } => "draining",
            Self::Stopping(_) => "stopping",
            Self::Resting => "resting",
            Self::Backoff { .. } => "backoff",
            Self::Quarantined(_) => "quarantined",
        }
    }

    /// The process of this state, if it has one.
    #[must_use]
    pub fn worker(&self) -> Option<Worker> {
        match self {
            Self::Starting { worker, .. }
            | Self::Ready { worker, .. }
            | Self::Draining { worker, .. }
            | Self::Stopping(Stopping { worker, .. }) => Some(*worker),
            Self::Unloaded(_) | Self::Reserving { .. } | Self::Resting => None,
            Self::Backoff { .. } | Self::Quarantined(_) => None,
        }
    }

    /// The timer that this state waits for. Any other is stale.
    #[must_use]
    pub fn timer(&self) -> Option<Token> {
        match self {
            Self::Starting { timer, .. }
            | Self::Draining { timer, .. }
            | Self::Stopping(Stopping { timer, .. })
            | Self::Backoff { timer, .. } => Some(*timer),
            Self::Unloaded(_) | Self::Reserving { .. } | Self::Resting => None,
            Self::Ready { .. } | Self::Quarantined(_) => None,
        }
    }

    /// Whether a request that waits is what this state waits for.
    #[must_use]
    pub fn heeds_demand(&self) -> bool {
        match self {
            Self::Resting => true,
            Self::Draining { then, .. } | Self::Stopping(Stopping { then, .. }) => match then {
                Then::Resting => true,
                Then::Unloaded | Then::Reserving(_) | Then::Backoff | Then::Quarantined(_) => false,
            },
            Self::Unloaded(_) | Self::Reserving { .. } | Self::Starting { .. } => false,
            Self::Ready { .. } | Self::Backoff { .. } | Self::Quarantined(_) => false,
        }
    }

    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Unloaded(Unloaded::NeverWanted) => status(Availability::Unloaded, ""),
            Self::Unloaded(Unloaded::Unwanted) => status(Availability::Unloaded, "unloaded"),
            Self::Unloaded(Unloaded::Denied { reason }) => {
                status(Availability::Unavailable, reason)
            }
            Self::Reserving { coming: Coming::Load | Coming::Restart, .. } => {
                status(Availability::Loading, "waiting for memory")
            }
            Self::Starting { coming: Coming::Load | Coming::Restart, .. } => {
                status(Availability::Loading, "")
            }
            Self::Reserving { coming: Coming::Demand, .. }
            | Self::Starting { coming: Coming::Demand, .. } => status(Availability::Ready, WAKING),
            Self::Resting => status(Availability::Ready, RESTING),
            Self::Ready { .. } => status(Availability::Ready, ""),
            Self::Draining { then, cause, .. } => then.status(cause),
            Self::Stopping(Stopping { then, cause, .. }) => then.status(cause),
            Self::Backoff { after, why, retry: Retry::Paid, .. } => {
                status(Availability::Loading, format!("restarts after {after:?} {why}"))
            }
            Self::Backoff { after, why, retry: Retry::Free(_), .. } => {
                status(Availability::Loading, format!("tries again after {after:?}: {why}"))
            }
            Self::Quarantined(why) => status(Availability::Unavailable, why),
        }
    }
}

impl Then {
    /// What is seen of a worker on its way out is what will follow it.
    fn status(&self, cause: impl fmt::Display) -> Status {
        match self {
            Self::Unloaded => status(Availability::Unloading, ""),
            Self::Reserving(Coming::Load | Coming::Restart) => {
                status(Availability::Loading, "waiting for the previous worker to end")
            }
            Self::Reserving(Coming::Demand) => status(Availability::Ready, WAKING),
            Self::Resting => status(Availability::Ready, RESTING),
            Self::Backoff => status(Availability::Loading, format!("restarts: {cause}")),
            Self::Quarantined(why) => status(Availability::Unavailable, why),
        }
    }
}

fn status(availability: Availability, reason: impl ToString) -> Status {
    Status { availability, reason: reason.to_string() }
}

impl fmt::Display for Quarantine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CannotLoad { message } => {
                write!(f, "load_error: the model cannot be loaded: {message}")?;
            }
            Self::NoRestart { why, last } => write!(f, "{why}; last: {last}")?,
            Self::OutOfMemory { last } => write!(f, "stopped, as on_oom says; last: {last}")?,
        }
        f.write_str("; loading it again (POST /v2/repository/models/NAME/load) clears this")
    }
}
