//! The life of one instance, from wanted to gone; pure.
//!
//! Owns what may follow what ([`Machine`]), how often a crashed worker comes back
//! ([`restart::RestartBudget`]), and the words for both. It starts, signals and waits for nothing:
//! a task feeds it [`Event`]s and carries out the [`Effect`]s, in order. Replacing a version is two
//! machines: the new one becomes ready, the route moves, the old one becomes unwanted.
//!
//! ```text
//! up        Unloaded ──wanted──► Reserving ──granted──► Starting ──loaded──► Ready
//!              ▲                     │                   │   │              │  │  │
//!              └──denied, unwanted───┘      failed,timer,│   │      unwanted│  │  │
//!                                      unhealthy,unwanted│   │              ▼  │  │
//! down                  ┌──────┐                         │   │      Draining(t)│  │
//!            timer: kill│      ▼                         │   │        │   │    │  │
//!                       └── Stopping(t) ◄────────────────┘   │        │   │    │  │
//!                             │   ▲ ▲                        │        │   │    │  │
//!                             │   │ └─empty,timer,unhealthy──┼────────┘   │    │  │
//!                             │   └───unhealthy──────────────┼────────────┼────┘  │
//!                             │                              │            │       │
//! exited                      ▼                              ▼            ▼       ▼
//!                             t                           restart         t    restart
//!
//!           t = Unloaded   ──► Unloaded             Backoff     ──timer──────────► Reserving
//!           t = Reserving  ──► Reserving            Backoff     ──unwanted───────► Unloaded
//!           t = Resting    ──► Resting              Resting     ──demand─────────► Reserving
//!                                                   Resting     ──unwanted───────► Unloaded
//!           t = Quarantined ─► Quarantined          Quarantined ──operator reset─► Reserving
//!           t = Backoff    ──► restart              Quarantined ──unwanted───────► Unloaded
//!           restart ──► Backoff while the budget lasts, else Quarantined
//! ```
//!
//! - Unloaded → Reserving: somebody wants the model; its memory is asked for first.
//! - Reserving → Starting: the memory is granted; a new generation is spawned and has so long to be
//!   greeted, and then so long to load.
//! - Reserving → Unloaded: the memory for a load is denied, which is recorded; or nobody wants it any
//!   more, and the reservation is taken back, granted or not.
//! - Reserving → Backoff: the memory is denied to a model that a request woke, or that comes back after
//!   a crash or a reset; its requests can wait, and it costs nothing of the budget.
//! - Starting → Ready: the model is loaded, and only now is the route published.
//! - Starting → Stopping(Quarantined): the load failed in a way that a repeat would not mend.
//! - Starting → Stopping(Backoff): the load failed otherwise, took too long, or broke the protocol; or
//!   the supervisor lacked what a handshake takes.
//! - Starting → Stopping(Unloaded): unwanted before it was loaded.
//! - Ready → Draining(Unloaded): unwanted; the route goes first, what is in flight may finish.
//! - Ready → Draining(Resting): nobody has used it for a while, and nothing is in flight.
//! - Ready → Draining(Reserving): an operator wants another process. In Backoff that cuts the delay short;
//!   elsewhere the next process is new in any case.
//! - Ready → Stopping(Backoff): unhealthy; nobody waits for it, what is in flight fails.
//! - Draining(t) → Stopping(t): nothing is in flight, patience is over, or it turned unhealthy.
//! - Stopping → Stopping: the grace is over; the whole group is killed, again each time the timer
//!   fires, until the exit is seen.
//! - Starting, Ready → *restart*: it exited by itself.
//! - Draining(t), Stopping(t) → t: it exited; `t = Backoff` means *restart*.
//! - *restart* → Backoff while the budget lasts, else Quarantined. Quarantined at once for kinds that
//!   are never retried and for memory that ran out, if the policy says so. A start that failed
//!   because the supervisor lacked something is tried again and costs nothing of the budget.
//! - Backoff → Reserving: the delay is over.
//! - Resting → Reserving: a request waits for a worker.
//! - Backoff, Quarantined, Resting → Unloaded: unwanted.
//! - Quarantined → Reserving: an operator reset; the budget starts anew. In Backoff it cuts the delay
//!   short, on the way into either it makes `t = Reserving`, elsewhere it only clears the budget.
//! - Draining, Stopping(Unloaded) with wanted: `t = Reserving`. Draining, Stopping(any) with
//!   unwanted: `t = Unloaded`. Draining, Stopping(Resting) with demand: `t = Reserving`. The road
//!   down is not left halfway; only what follows it changes.
//! - Unhealthy for its memory goes to Stopping with the kill already sent, also from Stopping itself.
//! - Stop now, the second request to stop, goes from every live state to Stopping(Unloaded) with the
//!   kill already sent; elsewhere it is the same as unwanted.
//!
//! Whatever leaves Ready first withdraws the route and, if it does not drain, fails what is in
//! flight; whatever leaves Draining fails what remains. Memory is given back when the exit has been
//! seen, because only then is it free. Any pair not named here is ignored and counted.

pub mod archive;
pub mod card;
pub mod catalog;
pub mod classify;
mod confinement;
mod driver;
pub mod effect;
pub mod event;
mod events_log;
mod facts;
mod hard_limits;
pub mod history;
pub mod instance;
mod keeper;
mod launch;
mod live;
pub mod machine;
mod outcome;
pub mod reload;
mod reservation;
pub mod restart;
pub mod seating;
pub mod state;
mod tenancy;
mod usage;
mod version;
mod worker;

pub use effect::{Effect, Effects, ExitRecord, Record, StopCause};
pub use event::{Event, ExitClass, ExitReport, LoadFault, Ticket, Token};
pub use machine::{Machine, Policy};
pub use outcome::{Ignored, IgnoredCounts, Outcome};
pub use restart::{Backoff, Jitter, NoRestart, RestartPolicy};
pub use state::{Availability, Coming, Quarantine, Retry, State, Status, Then, Unloaded, Worker};
