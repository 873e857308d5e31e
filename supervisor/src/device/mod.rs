//! The machine's accelerators: which there are, what they have, and which processes have it.
//!
//! Owns what the driver says ([`Snapshot`]), the thread that asks it and the task that keeps time
//! ([`Devices`]), hard limits that the driver holds ([`HardLimit`]), and the way from its numbers of
//! processes to ours ([`mod@kin`]). Nobody else speaks to NVML, and what it says is hostile input: bounded,
//! checked, and never taken for zero where it is unknown. Nothing here changes how a device is set up.
//!
//! - [`reading`]: the words; [`xid`]: what error numbers mean; [`checked`]: what figures make sense;
//!   [`roster`]: what is remembered of devices. All pure.

mod asker;
pub mod checked;
mod devices;
pub mod kin;
mod limiter;
mod nvml;
pub mod reading;
pub mod roster;
pub mod xid;

pub use devices::Devices;
pub use kin::{Kin, Kinship};
pub use limiter::HardLimit;
pub use reading::{
    Device, DeviceId, Driver, InvalidId, Memory, Processes, Reading, Slice, Snapshot, State, Used,
};
