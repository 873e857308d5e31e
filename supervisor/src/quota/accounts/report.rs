//! The accounts as an operator is shown them.

use shared::id::{ModelName, ModelVersion};

use super::{Accounts, Book};
use crate::device::Device;

/// All accounts at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub workers: Balance,
    pub arenas: Balance,
    /// By index.
    pub devices: Vec<DeviceBalance>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    pub used: u64,
    pub capacity: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceBalance {
    pub device: Device,
    pub balance: Balance,
    /// It keeps memory of a worker that is gone.
    pub suspect: bool,
    pub held: Vec<Held>,
}

/// What one worker was granted of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub model: ModelName,
    pub version: ModelVersion,
    pub bytes: u64,
    /// Its exit has not been seen.
    pub lives: bool,
}

impl Accounts {
    #[must_use]
    pub fn report(&self) -> Report {
        let suspects = self.gate.suspects();
        let device = |book: &Book| {
            let device = book.reading.device.clone();
            let held = self.holders.iter().filter_map(|(grant, holder)| {
                let bytes = book.ledger.held(grant)?;
                let (model, version) = (holder.model.clone(), holder.version);
                Some(Held { model, version, bytes, lives: holder.lives })
            });
            DeviceBalance {
                balance: Balance { used: book.ledger.used(), capacity: book.ledger.capacity() },
                suspect: suspects.contains(&device.id),
                held: held.collect(),
                device,
            }
        };
        let mut devices: Vec<DeviceBalance> = self.books.values().map(device).collect();
        devices.sort_by_key(|balance| balance.device.index);
        let balance = |used, capacity| Balance { used, capacity };
        Report {
            workers: balance(self.workers.used(), self.workers.capacity()),
            arenas: balance(self.arenas.used(), self.arenas.capacity()),
            devices,
        }
    }
}
