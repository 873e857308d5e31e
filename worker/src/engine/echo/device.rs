//! A device that is only counted: what a framework's allocator would take of it, keep and refuse. Nothing
//! of it is real memory. A worker that was given a device has one, however many it was given.

use proto::control::{Device, LoadSpec};
use shared::id::RequestId;

use crate::engine::device::{allocator_limit, needs_more};
use crate::engine::echo::command::DeviceCommand;
use crate::engine::echo::settings::{DeviceLimit, DeviceSettings};
use crate::engine::{DeviceUse, EngineError, LoadError, Request};

#[derive(Debug)]
pub(super) struct FakeDevice {
    settings: DeviceSettings,
    quota: Option<u64>,
    /// `None` for an allocator that cannot be told of one.
    limit: Option<u64>,
    /// From the load on, and what was leaked.
    held: u64,
    /// For the request in hand.
    needed: u64,
    /// Kept for later.
    cached: u64,
    peak: u64,
    /// What was prefetched.
    ahead: Option<Ahead>,
    /// What will be found out when the request in hand is waited for.
    late: Option<String>,
}

/// The inputs of a request, as a device would have them.
#[derive(Debug)]
pub(super) struct Ahead {
    request: RequestId,
    inputs: Vec<(u32, Vec<u8>)>,
}

impl FakeDevice {
    /// Loads the model on it; `None` on the CPU.
    pub(super) fn load(
        spec: &LoadSpec,
        settings: &DeviceSettings,
    ) -> Result<Option<Self>, LoadError> {
        if spec.device == Device::Cpu {
            return Ok(None);
        }
        if let Some(text) = &settings.load_fault {
            return Err(LoadError::DeviceFault(text.clone()));
        }
        let quota = spec.device_memory.map(|memory| memory.quota);
        let limit = match settings.limit {
            DeviceLimit::OfQuota => quota.map(allocator_limit),
            DeviceLimit::None => None,
        };
        let mut device = Self {
            settings: settings.clone(),
            quota,
            limit,
            held: 0,
            needed: 0,
            cached: 0,
            peak: 0,
            ahead: None,
            late: None,
        };
        let loaded = device.hold(settings.bytes);
        loaded.map_err(|error| LoadError::DeviceOutOfMemory(error.to_string()))?;
        Ok(Some(device))
    }

    /// Takes what a request of its size needs; what the one before it needed is free again.
    pub(super) fn begin(&mut self, request: &Request<'_>) -> Result<(), EngineError> {
        self.needed = 0;
        let rows = request.inputs.first().and_then(|input| input.shape.dims().first().copied());
        self.need(self.settings.bytes_per_row.saturating_mul(rows.unwrap_or(1)))
    }

    pub(super) fn obey(&mut self, command: &DeviceCommand) -> Result<(), EngineError> {
        match command {
            DeviceCommand::Allocate(bytes) => self.need(*bytes),
            DeviceCommand::Leak(bytes) => self.hold(*bytes),
            DeviceCommand::Cache(bytes) => self.keep(*bytes),
            DeviceCommand::Fault => {
                Err(EngineError::DeviceFault("an illegal memory access was encountered".into()))
            }
            DeviceCommand::Late(text) if self.settings.overlaps => {
                self.late = Some(text.clone());
                Ok(())
            }
            DeviceCommand::Late(text) => Err(EngineError::Model(text.clone())),
            // Looked at where the inputs are.
            DeviceCommand::Ahead => Ok(()),
        }
    }

    pub(super) fn trim(&mut self) {
        self.cached = 0;
    }

    pub(super) fn used(&self) -> DeviceUse {
        DeviceUse { allocator_limit: self.limit, peak: self.peak }
    }

    pub(super) fn overlaps(&self) -> bool {
        self.settings.overlaps
    }

    pub(super) fn prefetch(&mut self, request: &Request<'_>) {
        let inputs = request.inputs.iter().map(|input| (input.index, input.bytes.to_vec()));
        self.ahead = Some(Ahead { request: request.id, inputs: inputs.collect() });
    }

    /// What was prefetched of this request and no other.
    pub(super) fn take_ahead(&mut self, request: RequestId) -> Option<Ahead> {
        self.ahead.take().filter(|ahead| ahead.request == request)
    }

    pub(super) fn settle(&mut self) -> Result<(), EngineError> {
        self.late.take().map_or(Ok(()), |text| Err(EngineError::Model(text)))
    }

    fn need(&mut self, bytes: u64) -> Result<(), EngineError> {
        self.take(bytes)?;
        self.needed += bytes;
        Ok(())
    }

    fn hold(&mut self, bytes: u64) -> Result<(), EngineError> {
        self.take(bytes)?;
        self.held += bytes;
        Ok(())
    }

    fn keep(&mut self, bytes: u64) -> Result<(), EngineError> {
        self.take(bytes)?;
        self.cached += bytes;
        Ok(())
    }

    /// Gives back what is only kept before it refuses, as allocators do.
    fn take(&mut self, bytes: u64) -> Result<(), EngineError> {
        let used = self.held.saturating_add(self.needed).saturating_add(bytes);
        let limit = self.limit.unwrap_or(u64::MAX);
        if used > limit {
            return Err(needs_more(self.quota, &format!("out of memory: {bytes} bytes more")));
        }
        if used.saturating_add(self.cached) > limit {
            self.cached = 0;
        }
        self.peak = self.peak.max(used.saturating_add(self.cached));
        Ok(())
    }
}

impl Ahead {
    pub(super) fn input(&self, index: u32) -> Option<&[u8]> {
        self.inputs.iter().find(|(at, _)| *at == index).map(|(_, bytes)| &bytes[..])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proto::control::{DeviceMemory, Segments};

    use super::*;

    const MIB: u64 = 1 << 20;

    fn spec(device: Device, quota: u64) -> LoadSpec {
        LoadSpec {
            engine: "echo".into(),
            folder: "/".into(),
            filename: String::new(),
            device,
            device_memory: Some(DeviceMemory { quota, segments: Segments::Fixed }),
            threads: 1,
            max_batch_size: 0,
            inputs: vec![],
            outputs: vec![],
            parameters: BTreeMap::new(),
        }
    }

    /// With a limit of 100 MiB.
    fn device(settings: &DeviceSettings) -> FakeDevice {
        FakeDevice::load(&spec(Device::Cuda(0), 200 * MIB), settings).unwrap().unwrap()
    }

    fn nothing(device: &mut FakeDevice) {
        device.begin(&Request { id: RequestId(0), inputs: &[], wanted: 0 }).unwrap();
    }

    #[test]
    fn a_limit_holds_and_what_is_kept_goes_first() {
        let mut device = device(&DeviceSettings { bytes: 40 * MIB, ..DeviceSettings::default() });
        assert_eq!(device.used().allocator_limit, Some(100 * MIB));
        device.obey(&DeviceCommand::Cache(50 * MIB)).unwrap();
        assert_eq!(device.used().peak, 90 * MIB);
        device.obey(&DeviceCommand::Allocate(60 * MIB)).unwrap();
        assert_eq!(device.used().peak, 100 * MIB);
        let refused = device.obey(&DeviceCommand::Allocate(MIB)).unwrap_err();
        let text = refused.to_string();
        assert!(matches!(refused, EngineError::DeviceOutOfMemory(_)), "{refused:?}");
        assert!(text.contains("209715200 bytes") && text.contains("gpu_memory_limit"), "{text}");
        nothing(&mut device);
        device.obey(&DeviceCommand::Leak(60 * MIB)).unwrap();
        nothing(&mut device);
        device.obey(&DeviceCommand::Allocate(1)).unwrap_err();
    }

    #[test]
    fn a_model_that_does_not_fit_is_not_loaded() {
        let settings = DeviceSettings { bytes: 101 * MIB, ..DeviceSettings::default() };
        let refused = FakeDevice::load(&spec(Device::Spread(2), 200 * MIB), &settings);
        assert!(matches!(refused, Err(LoadError::DeviceOutOfMemory(_))), "{refused:?}");
        let unlimited = DeviceSettings { limit: DeviceLimit::None, ..settings.clone() };
        assert_eq!(device(&unlimited).used().allocator_limit, None);
        let cpu = FakeDevice::load(&spec(Device::Cpu, 1), &settings).unwrap();
        assert!(cpu.is_none());
    }

    #[test]
    fn what_was_prefetched_is_for_that_request_alone() {
        let mut device = device(&DeviceSettings::default());
        let request = |id| Request { id: RequestId(id), inputs: &[], wanted: 0 };
        device.prefetch(&request(7));
        assert!(device.take_ahead(RequestId(8)).is_none());
        assert!(device.take_ahead(RequestId(7)).is_none(), "dropped");
        device.prefetch(&request(9));
        assert!(device.take_ahead(RequestId(9)).is_some());
    }
}
