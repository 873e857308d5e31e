//! Operators: who they are, what they ask, what it comes to, and a record of it.
//!
//! Owns the Unix socket ([`socket`]) and everybody who is connected to it. Who it is is asked of the kernel
//! when they connect (`peer`); each has a seat (`seats`), and one that says nothing makes room for another.
//! A line is read and written within a time (`wire`), one command after the other (`session`), so that a
//! slow or hostile operator holds up nobody. Commands are carried out by those whom they are about
//! (`command`, `stream`), through [`Handles`]; what changes anything is written down (`audit`), whether or
//! not its operator is still there when it is done. The words are those of `proto::admin`.

mod audit;
mod command;
mod handles;
mod peer;
mod seats;
mod server;
mod session;
pub mod socket;
mod stream;
mod wire;

pub use audit::Audit;
pub use command::Desk;
pub use handles::{Handles, Reload};
pub use peer::Rights;
pub use server::serve;
pub use socket::{AdminSocket, BindError};
