//! Worker processes: how one is started, spoken to, listened to, signalled and reaped.
//!
//! - [`command`]: what is executed, with which arguments and environment.
//! - [`spawner`]: starts processes: copies of a zygote, or programs from one thread.
//! - `zygote`: keeps, for each worker binary, a process that makes workers by copying itself.
//! - [`child`]: a running process: signals to its group, its exit.
//! - [`session`]: the handshake, and commands afterwards.
//! - [`output`]: its log lines, bounded.
//! - [`journal`]: the last ones of each model, for operators.
//! - [`turns`]: who gets the processor soon.
//! - [`strays`]: orphans that come to the supervisor; [`kin`]: whose they are.
//!
//! Nothing here decides when a worker should live; `lifecycle` does.

pub mod child;
pub mod command;
pub mod journal;
pub mod kin;
pub mod output;
mod readable;
pub mod session;
pub mod spawner;
pub mod strays;
pub mod turns;
mod zygote;

pub use child::{Child, Exit};
pub use command::{Start, WorkerCommand};
pub use journal::{Journal, Journals};
pub use kin::{Household, Roster, Starts};
pub use output::{LogLimits, Speaker, Tail};
pub use session::{HandshakeError, Session};
pub use spawner::{SpawnError, Spawner};
pub use strays::{Family, Guest, Swept};
