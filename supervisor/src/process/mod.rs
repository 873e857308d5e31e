//! Worker processes: how one is started, spoken to, listened to, signalled and reaped.
//!
//! - [`command`]: what is executed, with which arguments and environment.
//! - [`spawner`]: the one thread that starts processes.
//! - [`child`]: a running process: signals to its group, its exit.
//! - [`session`]: the handshake, and commands afterwards.
//! - [`output`]: its log lines, bounded.
//! - [`strays`]: orphans of workers, where no control group ends them.
//!
//! Nothing here decides when a worker should live; `lifecycle` does.

pub mod child;
pub mod command;
pub mod output;
pub mod session;
pub mod spawner;
pub mod strays;

pub use child::{Child, Exit};
pub use command::WorkerCommand;
pub use output::{LogLimits, Tail};
pub use session::{HandshakeError, Session};
pub use spawner::Spawner;
pub use strays::Family;
