//! The system that the supervisor runs in: signals and the runtime file. systemd and control groups
//! have their room here.

mod runtime_file;
mod signals;

pub use runtime_file::RuntimeFile;
pub use signals::Signals;
