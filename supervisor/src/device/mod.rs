//! The machine's accelerators: which there are, what they have, and which processes have it.
//!
//! Owns what the driver says ([`Snapshot`]) and the thread that asks it. Nobody else speaks to NVML,
//! and what it says is hostile input: bounded, checked, and never taken for zero where it is unknown.
//!
//! - [`reading`]: the words, pure.

pub mod reading;

pub use reading::{
    Device, DeviceId, Driver, InvalidId, Memory, Processes, Reading, Slice, Snapshot, State, Used,
};
