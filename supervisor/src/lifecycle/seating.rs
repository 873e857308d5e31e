//! Where an instance runs: what its configuration asks for, and what a generation is told once devices
//! were granted. Pure.

use proto::control::{Device, DeviceMemory, LoadSpec, Segments};
use shared::id::InstanceId;

use crate::config::{self, GpuLimits};
use crate::process::Start;
use crate::quota::{DeviceAsk, Place, Subject, Wanted};
use crate::repository::{EngineKind, InstanceKind, Seat};

/// What an instance asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seating {
    Cpu,
    Gpu(Wanted),
    /// These if any GPU can be used, else the CPU.
    Either(Wanted),
}

impl Seating {
    /// `frameworks_on_gpu` says whether the engine's framework is there in its form for GPUs: a model that
    /// leaves the choice must not be placed where it cannot run.
    pub(super) fn of(seat: &Seat, gpu: &GpuLimits, frameworks_on_gpu: bool) -> Self {
        let named = || Wanted::These(seat.gpus.clone());
        match (seat.kind, seat.gpus.is_empty()) {
            (InstanceKind::Cpu, _) => Self::Cpu,
            (InstanceKind::Gpu, true) => Self::Gpu(Wanted::Any(1)),
            (InstanceKind::Gpu | InstanceKind::Model, false) => Self::Gpu(named()),
            (InstanceKind::Model, true) if gpu.spread == 0 => Self::Cpu,
            (InstanceKind::Model, true) => Self::Gpu(Wanted::Any(gpu.spread)),
            (InstanceKind::Auto, true) if frameworks_on_gpu => Self::Either(Wanted::Any(1)),
            (InstanceKind::Auto, false) if frameworks_on_gpu => Self::Either(named()),
            (InstanceKind::Auto, _) => Self::Cpu,
        }
    }

    /// The devices to ask for, `None` for the CPU. `has_gpu` says whether any can be used now.
    pub(super) fn wanted(&self, has_gpu: bool) -> Option<Wanted> {
        match self {
            Self::Cpu => None,
            Self::Gpu(wanted) => Some(wanted.clone()),
            Self::Either(wanted) => has_gpu.then(|| wanted.clone()),
        }
    }
}

/// What is asked of the accounts.
pub(super) fn ask(id: &InstanceId, engine: &str, wanted: Wanted, gpu: &GpuLimits) -> DeviceAsk {
    DeviceAsk {
        wanted,
        model: id.model.clone(),
        version: id.version,
        engine: engine.to_owned(),
        limit: u64::try_from(gpu.memory).unwrap_or(u64::MAX),
    }
}

/// What a generation is told to load: the version's own, on the devices that it was granted. It sees no
/// others, so that its ordinals start at 0.
pub(super) fn load_spec(load: &LoadSpec, place: Option<&Place>, gpu: &GpuLimits) -> LoadSpec {
    let (device, device_memory) = match place {
        None => (Device::Cpu, None),
        Some(place) => {
            let segments = match gpu.segments {
                config::Segments::Fixed => Segments::Fixed,
                config::Segments::Expandable => Segments::Expandable,
            };
            let device = match u16::try_from(place.devices.len()).unwrap_or(u16::MAX) {
                0 | 1 => Device::Cuda(0),
                several => Device::Spread(several),
            };
            (device, Some(DeviceMemory { quota: place.bytes, segments }))
        }
    };
    LoadSpec { device, device_memory, ..load.clone() }
}

/// For `CUDA_VISIBLE_DEVICES`: nothing for a worker on the CPU, so that it cannot take from devices
/// what nobody has granted.
pub(super) fn visible(place: Option<&Place>) -> String {
    let ids = place.into_iter().flat_map(|place| &place.devices).map(|device| device.id.as_str());
    ids.collect::<Vec<_>>().join(",")
}

/// A zygote has asked no device anything, and that copies of it can use a GPU is not proven.
pub(super) fn start(start: Start, place: Option<&Place>) -> Start {
    match place {
        None => start,
        Some(_) => Start::Exec,
    }
}

/// What is measured of it there. Only of one device: how a model spreads is its own affair.
pub(super) fn subject(id: &InstanceId, place: &Place) -> Option<Subject> {
    match &place.devices[..] {
        [device] => Some(Subject::new(&id.model, id.version, &device.name)),
        _ => None,
    }
}

/// Whether the engine of this kind finds its framework in its form for GPUs, on this machine's library
/// path.
pub(super) fn framework_on_gpu(engine: EngineKind, library_path: Option<&std::ffi::OsStr>) -> bool {
    match engine {
        EngineKind::Torch => library_path.is_some_and(|path| {
            std::env::split_paths(path).any(|folder| folder.join("libtorch_cuda.so").is_file())
        }),
        EngineKind::Echo => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::device::{self, DeviceId, Slice};

    fn seat(kind: InstanceKind, gpus: &[u16]) -> Seat {
        Seat { kind, gpus: gpus.to_vec() }
    }

    #[test]
    fn kinds_ask_for_what_they_say() {
        let gpu = GpuLimits::default();
        let of = |kind, gpus: &[u16], framework| Seating::of(&seat(kind, gpus), &gpu, framework);
        assert_eq!(of(InstanceKind::Cpu, &[], true), Seating::Cpu);
        assert_eq!(of(InstanceKind::Gpu, &[], false), Seating::Gpu(Wanted::Any(1)));
        assert_eq!(of(InstanceKind::Gpu, &[1], true), Seating::Gpu(Wanted::These(vec![1])));
        assert_eq!(of(InstanceKind::Model, &[], true), Seating::Cpu);
        assert_eq!(of(InstanceKind::Model, &[0, 1], true), Seating::Gpu(Wanted::These(vec![0, 1])));
        let spread = GpuLimits { spread: 2, ..gpu };
        let model = seat(InstanceKind::Model, &[]);
        assert_eq!(Seating::of(&model, &spread, true), Seating::Gpu(Wanted::Any(2)));
        assert_eq!(of(InstanceKind::Auto, &[], false), Seating::Cpu);
        let either = of(InstanceKind::Auto, &[], true);
        assert_eq!((either.wanted(false), either.wanted(true)), (None, Some(Wanted::Any(1))));
    }

    #[test]
    fn a_generation_sees_its_own_devices_and_no_other() {
        let load = LoadSpec {
            engine: "echo".into(),
            folder: "/m/1".into(),
            filename: String::new(),
            device: Device::Cpu,
            device_memory: None,
            threads: 1,
            max_batch_size: 0,
            inputs: vec![],
            outputs: vec![],
            parameters: BTreeMap::new(),
        };
        let gpu = GpuLimits::default();
        let device = |index| device::Device {
            id: DeviceId::new(&format!("GPU-{index}")).unwrap(),
            index,
            name: "fake".into(),
            slice: Slice::Whole,
        };
        let place = |indices: &[u16]| Place {
            devices: indices.iter().map(|&index| device(index)).collect(),
            bytes: 7,
        };
        assert_eq!(load_spec(&load, None, &gpu), load);
        assert_eq!(visible(None), "");
        let told = load_spec(&load, Some(&place(&[3])), &gpu);
        let memory = DeviceMemory { quota: 7, segments: Segments::Fixed };
        assert_eq!((told.device, told.device_memory), (Device::Cuda(0), Some(memory)));
        let two = place(&[3, 1]);
        assert_eq!(load_spec(&load, Some(&two), &gpu).device, Device::Spread(2));
        assert_eq!(visible(Some(&two)), "GPU-3,GPU-1");
    }

    #[test]
    fn the_framework_for_gpus_is_looked_for_on_the_library_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = std::env::join_paths(["/nowhere".as_ref(), folder.path()]).unwrap();
        assert!(!framework_on_gpu(EngineKind::Torch, Some(&path)));
        std::fs::write(folder.path().join("libtorch_cuda.so"), "").unwrap();
        assert!(framework_on_gpu(EngineKind::Torch, Some(&path)));
        assert!(!framework_on_gpu(EngineKind::Torch, None));
        assert!(!framework_on_gpu(EngineKind::Echo, Some(&path)));
    }
}
