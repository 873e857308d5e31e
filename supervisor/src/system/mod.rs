//! The system that the supervisor runs in: signals, descriptors, the runtime file, places of sockets. systemd and control groups
//! have their room here.

mod descriptors;
mod runtime_file;
mod signals;
mod socket_place;

pub use descriptors::raise_descriptor_limit;
pub use runtime_file::RuntimeFile;
pub use signals::Signals;
pub use socket_place::SocketPlace;
