//! What the driver said of all devices at one moment; pure.

use std::collections::BTreeMap;
use std::fmt;

use shared::clock::MonotonicNanos;

/// What names a device for good, as `GPU-5c1f…` or `MIG-…`; also what `CUDA_VISIBLE_DEVICES` takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(String);

/// Most bytes of an id; those of NVIDIA have 40.
const MAX_ID_BYTES: usize = 96;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a device's id has 1 to {MAX_ID_BYTES} letters, digits and '-', '_', '/', '.'")]
pub struct InvalidId;

impl DeviceId {
    /// It goes into a variable of a worker's environment, where a comma would be a second device.
    pub fn new(text: &str) -> Result<Self, InvalidId> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_/.".contains(c);
        if (1..=MAX_ID_BYTES).contains(&text.len()) && text.chars().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId)
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One accelerator, or one slice of it that is a device of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub id: DeviceId,
    /// Its number in this machine, as `gpus: [ 0 ]` of an instance group counts: in the order of the
    /// driver, a device that is cut into slices replaced by these.
    pub index: u16,
    /// As `NVIDIA H200`; printable and bounded.
    pub name: String,
    pub slice: Slice,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slice {
    Whole,
    /// A MIG instance of this device.
    Of(DeviceId),
}

/// Everything that was said in one round of questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// When the first question of the round was asked: what was so before it is in the answers.
    pub taken: MonotonicNanos,
    pub driver: Driver,
    /// In the order of their index; also those that were there once and are gone.
    pub readings: Vec<Reading>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driver {
    /// There is nothing to ask: no library, no driver, or the configuration says not to; why.
    Absent(String),
    /// It answers; its version.
    Answers(String),
    /// A question has been waiting for longer than `devices.answer_timeout`.
    Silent,
}

/// What was said of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    pub device: Device,
    pub state: State,
    /// `None` if it was not said.
    pub memory: Option<Memory>,
    /// How much of the last moment it was busy, in percent; `None` if it was not said, as for a slice.
    pub busy: Option<u8>,
    pub processes: Processes,
}

/// Whether a device can be given work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Usable,
    /// It does not answer, has fallen off its bus, or reported an error that it does not come back
    /// from; why.
    Lost(String),
}

/// Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What processes can have of it together: without what the driver keeps for itself.
    pub total: u64,
    /// Of all processes of the machine together; at most `total`.
    pub used: u64,
}

/// Who uses a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Processes {
    /// By the number that the driver knows them by: in the namespace of the driver.
    Seen(BTreeMap<u32, Used>),
    /// It could not be said; why. Not the same as nobody.
    Blind(String),
}

/// What one process has of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Used {
    Bytes(u64),
    /// It has some; how much is not said. Not the same as none.
    Unknown,
}

impl Snapshot {
    /// Before anything was asked, or where nothing can be.
    #[must_use]
    pub fn absent(why: impl Into<String>) -> Self {
        let driver = Driver::Absent(why.into());
        Self { taken: MonotonicNanos::default(), driver, readings: Vec::new() }
    }

    /// The same, from when on the driver did not answer any more.
    #[must_use]
    pub fn silent(&self) -> Self {
        Self { driver: Driver::Silent, ..self.clone() }
    }

    /// The same devices, of which nothing is known any more since there is nobody to ask.
    #[must_use]
    pub fn unasked(&self, why: &str) -> Self {
        let blind = |reading: &Reading| Reading {
            memory: None,
            busy: None,
            processes: Processes::Blind(why.to_owned()),
            ..reading.clone()
        };
        let readings = self.readings.iter().map(blind).collect();
        Self { driver: Driver::Absent(why.to_owned()), readings, ..*self }
    }

    #[must_use]
    pub fn reading(&self, id: &DeviceId) -> Option<&Reading> {
        self.readings.iter().find(|reading| reading.device.id == *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_name_a_second_device() {
        assert!(DeviceId::new("GPU-5c1f0a3e-0000-0000-0000-000000000000").is_ok());
        assert!(DeviceId::new("MIG-GPU-5c1f/1/0").is_ok());
        let long = "x".repeat(MAX_ID_BYTES + 1);
        for bad in ["", "a,b", "GPU 1", "GPU-\n", long.as_str()] {
            assert_eq!(DeviceId::new(bad), Err(InvalidId), "{bad:?}");
        }
    }
}
