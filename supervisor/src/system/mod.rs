//! The system that the supervisor runs in: signals, descriptors, the runtime file, places of sockets,
//! how busy the machine is, and a service manager such as systemd (see `scripts/systemd`).
//!
//! - `notify`: what a service manager is told; `standing`: when, and in which words (pure).
//! - `activation`: sockets that it has opened.
//! - `pulse`: whether loops turn, without which its watchdog is not fed.

mod activation;
mod descriptors;
mod host;
mod notify;
mod pulse;
mod runtime_file;
mod signals;
mod socket_place;
mod standing;
mod watchdog;

pub use activation::{Activation, ActivationError};
pub use descriptors::raise_descriptor_limit;
pub use host::{Host, watch_host};
pub use notify::Notifier;
pub use pulse::{Answers, Pulse, pulse};
pub use runtime_file::RuntimeFile;
pub use signals::{Asked, Signals};
pub use socket_place::SocketPlace;
pub use standing::{Seen, Standing};
pub use watchdog::Watchdog;
