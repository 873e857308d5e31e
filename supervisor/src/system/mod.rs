//! The system that the supervisor runs in: signals, descriptors and the runtime file. systemd and control groups
//! have their room here.

mod descriptors;
mod runtime_file;
mod signals;

pub use descriptors::raise_descriptor_limit;
pub use runtime_file::RuntimeFile;
pub use signals::{Hangups, Signals};
