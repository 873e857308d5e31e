//! What workers may use, and what of it is spoken for.
//!
//! Owns the accounts ([`Accounts`], pure) of processes, slots and the memory of devices: who gets which
//! device ([`placement`]), when what a worker had of it counts as free ([`gate`]), whose the processes
//! are that a driver names ([`sighting`]), and what models were seen to need ([`measured`]); and the one task
//! that feeds them ([`Quotas`]). It allocates nothing: whoever creates memory for a worker reserves it here first.

pub mod accounts;
pub mod gate;
pub mod ledger;
pub mod measured;
mod measured_file;
pub mod placement;
mod quotas;
pub mod sighting;

pub use accounts::{
    Accounts, Balance, Capacity, DeviceAsk, DeviceBalance, GrantId, Held, Outlook, Place, Refused,
    Report,
};
pub use ledger::{Denied, Ledger, Released, Reserved};
pub use measured::Subject;
pub use placement::Wanted;
pub use quotas::{Grant, Left, Quotas, Sample, Sources};
pub use sighting::Whose;
