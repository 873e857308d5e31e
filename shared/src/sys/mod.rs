//! Safe wrappers around system calls, one family a file. Nothing here knows what it is used for.

pub mod fork;
pub mod futex;
pub mod inherit;
pub mod memfd;
pub mod nvml_limits;
pub mod peer;
pub mod pidfd;
pub mod process;
pub mod slice;
pub mod socket;
