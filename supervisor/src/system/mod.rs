//! The system that the supervisor runs in: signals, descriptors, the runtime file,
//! and how busy the machine is. systemd and control groups
//! have their room here.

mod descriptors;
mod host;
mod runtime_file;
mod signals;

pub use descriptors::raise_descriptor_limit;
pub use host::{Host, watch_host};
pub use runtime_file::RuntimeFile;
pub use signals::Signals;
