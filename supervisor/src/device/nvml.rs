//! Speaking to NVIDIA's management library.
//!
//! Every call here may hang for as long as the driver likes. A list is asked for its length before it is
//! asked for, so that an absurd one is never allocated.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::event::EventSet;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::{Device, Nvml};

use super::checked::{
    self, Listed, MOST_DEVICES, MOST_MEMORY, MOST_PROCESSES, MOST_SLICES, is_possible, together,
};
use super::reading::{DeviceId, Memory, Processes, Slice, State, Used};
use super::roster::{Missing, Round, Told};
use super::xid;

/// Events of one device that are taken in one round.
const MOST_EVENTS: usize = 16;
/// A list may grow between the question for its length and the one for it.
const ATTEMPTS: usize = 3;

/// Why there is nothing to talk to.
#[derive(Debug)]
pub(super) enum Unopened {
    NoLibrary(String),
    /// The library is there; the driver is not loaded.
    NoDriver(String),
    Fails(String),
}

pub(super) fn open(library: &Path) -> Result<Nvml, Unopened> {
    let opened = Nvml::builder().lib_path(library.as_os_str()).init();
    opened.map_err(|error| {
        let why = checked::why(&error);
        if matches!(error, NvmlError::LibloadingError(_)) {
            // The wrapper's own words come first, and say nothing to a person.
            let loader = why.rsplit_once("occurred: ").map_or(why.as_str(), |(_, rest)| rest);
            Unopened::NoLibrary(loader.to_owned())
        } else if matches!(error, NvmlError::DriverNotLoaded) {
            Unopened::NoDriver(why)
        } else {
            Unopened::Fails(why)
        }
    })
}

/// An error number of a device, as often as it came in one round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reported {
    pub(super) device: DeviceId,
    pub(super) xid: u64,
    pub(super) times: usize,
}

/// From one initialisation of the library to its end.
pub(super) struct Session<'nvml> {
    nvml: &'nvml Nvml,
    version: String,
    /// Devices that are not slices, as far as any was seen.
    wholes: BTreeSet<DeviceId>,
    /// Where each of those reports its errors; `None` if it cannot.
    events: BTreeMap<DeviceId, Option<EventSet<'nvml>>>,
    reported: Vec<Reported>,
}

impl<'nvml> Session<'nvml> {
    pub(super) fn new(nvml: &'nvml Nvml) -> Self {
        let version = nvml.sys_driver_version();
        let version = version.map_or_else(|_| "of unknown version".into(), |v| checked::name(&v));
        let (wholes, events) = (BTreeSet::new(), BTreeMap::new());
        Self { nvml, version, wholes, events, reported: Vec::new() }
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// What the devices have reported since this was called last.
    pub(super) fn take_reported(&mut self) -> Vec<Reported> {
        std::mem::take(&mut self.reported)
    }

    /// Asks everything of every device. An error means that the driver itself has gone.
    pub(super) fn round(&mut self) -> Result<Round, String> {
        let nvml = self.nvml;
        let count = nvml.device_count().map_err(|error| checked::why(&error))?;
        let mut round = Round::default();
        let mut named = BTreeSet::new();
        for index in 0..count.min(MOST_DEVICES) {
            // One that may not be asked, as in a container, or that has no name by which it could be
            // given to a worker.
            let Ok(device) = nvml.device_by_index(index) else { continue };
            let Some(id) = id_of(&device) else { continue };
            if named.insert(id.clone()) {
                self.ask(&device, id, &mut round);
            }
        }
        let unnamed: Vec<DeviceId> = self.wholes.difference(&named).cloned().collect();
        for id in unnamed {
            match nvml.device_by_uuid(id.as_str()) {
                Ok(device) => self.ask(&device, id, &mut round),
                Err(error) => {
                    round.missing.insert(id, Failed::from(error).into());
                }
            }
        }
        Ok(round)
    }

    fn ask(&mut self, device: &Device<'nvml>, id: DeviceId, round: &mut Round) {
        self.wholes.insert(id.clone());
        let events = self
            .events
            .entry(id.clone())
            .or_insert_with(|| listen(self.nvml, device).ok().flatten());
        self.reported.extend(drain(events, &id));
        match slices(device) {
            Ok(None) => round.told.push(tell(device, id, Slice::Whole)),
            Ok(Some(slices)) => {
                let slice = |(device, own): (Device<'_>, DeviceId)| {
                    tell(&device, own, Slice::Of(id.clone()))
                };
                round.told.extend(slices.into_iter().map(slice));
            }
            Err(failed) => {
                round.missing.insert(id, failed.into());
            }
        }
    }
}

/// A question that was not answered.
struct Failed {
    why: String,
    /// Why the device is lost, if that is what it means.
    lost: Option<&'static str>,
}

/// Numbers that the wrapper does not know by name.
const GPU_NOT_FOUND: u32 = 28;
const ARGUMENT_VERSION_MISMATCH: u32 = 25;

impl From<NvmlError> for Failed {
    fn from(error: NvmlError) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the wrapper's, of thirty variants")]
        let lost = match error {
            NvmlError::GpuLost => Some("it does not answer on its bus any more"),
            NvmlError::NotFound | NvmlError::UnexpectedVariant(GPU_NOT_FOUND) => {
                Some("the driver does not know it any more")
            }
            NvmlError::ResetRequired => Some("it must be reset"),
            _ => None,
        };
        Self { why: checked::why(&error), lost }
    }
}

impl From<Failed> for Missing {
    fn from(failed: Failed) -> Self {
        match failed.lost {
            Some(why) => Self::Lost(why.to_owned()),
            None => Self::Mute(failed.why),
        }
    }
}

/// Whether this driver or this device does not have such a question at all.
fn is_unsupported(error: &NvmlError) -> bool {
    matches!(
        error,
        NvmlError::NotSupported | NvmlError::FunctionNotFound | NvmlError::FailedToLoadSymbol(_)
    )
}

fn id_of(device: &Device<'_>) -> Option<DeviceId> {
    device.uuid().ok().and_then(|text| DeviceId::new(&text).ok())
}

/// The instances of a device in MIG mode; `None` if it is not.
fn slices<'nvml>(device: &Device<'nvml>) -> Result<Option<Vec<(Device<'nvml>, DeviceId)>>, Failed> {
    match device.mig_mode() {
        Ok(mode) if mode.current == 1 => {}
        Ok(_) => return Ok(None),
        Err(error) if is_unsupported(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let most = device.mig_device_count()?.min(MOST_SLICES);
    // Most numbers have no instance.
    let slice = |number| device.mig_device_by_index(number).ok();
    let named = |slice| id_of(&slice).map(|id| (slice, id));
    Ok(Some((0..most).filter_map(slice).filter_map(named).collect()))
}

fn tell(device: &Device<'_>, id: DeviceId, slice: Slice) -> Told {
    let memory = memory(device);
    let known = memory.as_ref().ok().copied().flatten();
    let listed = processes(device, known.map_or(MOST_MEMORY, |memory| memory.total));
    let failed = [memory.as_ref().err(), listed.as_ref().err()];
    let lost = failed.into_iter().flatten().find_map(|failed| failed.lost);
    let busy = match slice {
        Slice::Whole => device.utilization_rates().ok().and_then(|rates| checked::busy(rates.gpu)),
        Slice::Of(_) => None,
    };
    Told {
        id,
        name: checked::name(&device.name().unwrap_or_default()),
        slice,
        state: lost.map_or(State::Usable, |why| State::Lost(why.to_owned())),
        memory: known,
        busy,
        processes: match listed {
            Ok(seen) => Processes::Seen(seen),
            Err(failed) => Processes::Blind(failed.why),
        },
    }
}

/// Drivers before R510 do not tell what they keep for themselves, and are taken to tell nothing.
fn memory(device: &Device<'_>) -> Result<Option<Memory>, Failed> {
    let info = device.memory_info()?;
    Ok(checked::memory(info.total, info.reserved, info.used))
}

/// Everybody on a device, `most` bytes for each at most.
fn processes(device: &Device<'_>, most: u64) -> Result<BTreeMap<u32, Used>, Failed> {
    let compute = newest_that_makes_sense(
        most,
        || list(|| device.running_compute_processes_count(), || device.running_compute_processes()),
        || {
            list(
                || device.running_compute_processes_count_v2(),
                || device.running_compute_processes_v2(),
            )
        },
    )?;
    let graphics = newest_that_makes_sense(
        most,
        || {
            list(
                || device.running_graphics_processes_count(),
                || device.running_graphics_processes(),
            )
        },
        || {
            list(
                || device.running_graphics_processes_count_v2(),
                || device.running_graphics_processes_v2(),
            )
        },
    );
    let graphics = match graphics {
        // A device that only computes.
        Err(Unlisted::Error(error)) if is_unsupported(&error) => Vec::new(),
        graphics => graphics?,
    };
    Ok(together(&compute, &graphics, most))
}

enum Unlisted {
    Error(NvmlError),
    TooMany(u32),
}

impl From<Unlisted> for Failed {
    fn from(unlisted: Unlisted) -> Self {
        match unlisted {
            Unlisted::Error(error) => error.into(),
            Unlisted::TooMany(count) => {
                Self { why: format!("the driver speaks of {count} processes"), lost: None }
            }
        }
    }
}

/// The form of these lists has changed from driver to driver, once without a new name: what makes no
/// sense in the newer one may make sense in the older one.
fn newest_that_makes_sense(
    most: u64,
    newer: impl Fn() -> Result<Vec<Listed>, Unlisted>,
    older: impl Fn() -> Result<Vec<Listed>, Unlisted>,
) -> Result<Vec<Listed>, Unlisted> {
    match newer() {
        Ok(list) if is_possible(&list, most) => Ok(list),
        Ok(list) => Ok(older().ok().filter(|older| is_possible(older, most)).unwrap_or(list)),
        Err(Unlisted::Error(
            NvmlError::FunctionNotFound
            | NvmlError::FailedToLoadSymbol(_)
            | NvmlError::UnexpectedVariant(ARGUMENT_VERSION_MISMATCH),
        )) => older(),
        Err(error) => Err(error),
    }
}

fn list(
    count: impl Fn() -> Result<u32, NvmlError>,
    list: impl Fn() -> Result<Vec<ProcessInfo>, NvmlError>,
) -> Result<Vec<Listed>, Unlisted> {
    let mut attempts = 0..ATTEMPTS;
    loop {
        attempts.next();
        let count = count().map_err(Unlisted::Error)?;
        if count > MOST_PROCESSES {
            return Err(Unlisted::TooMany(count));
        }
        match list() {
            Ok(list) => return Ok(list.iter().map(listed).collect()),
            Err(NvmlError::InsufficientSize(_)) if !attempts.is_empty() => {}
            Err(error) => return Err(Unlisted::Error(error)),
        }
    }
}

fn listed(process: &ProcessInfo) -> Listed {
    let bytes = match process.used_gpu_memory {
        UsedGpuMemory::Unavailable => None,
        UsedGpuMemory::Used(bytes) => Some(bytes),
    };
    Listed { number: process.pid, bytes }
}

/// Has the device report its errors, if it can. One set for each: one that fails is no loss to the others.
fn listen<'nvml>(
    nvml: &'nvml Nvml,
    device: &Device<'nvml>,
) -> Result<Option<EventSet<'nvml>>, NvmlError> {
    let errors = EventTypes::CRITICAL_XID_ERROR;
    if !device.supported_event_types()?.contains(errors) {
        return Ok(None);
    }
    let set = nvml.create_event_set()?;
    let registered = device.register_events(errors, set);
    registered.map(Some).map_err(|error| error.error)
}

/// What is there now. Of several errors since the last look, the driver gives the number of the last one
/// to all.
fn drain(events: &mut Option<EventSet<'_>>, device: &DeviceId) -> Vec<Reported> {
    let mut times: BTreeMap<u64, usize> = BTreeMap::new();
    for _ in 0..MOST_EVENTS {
        let Some(set) = events else { break };
        match set.wait(0) {
            Ok(event) => match event.event_data {
                Some(XidError::Value(xid)) => *times.entry(xid).or_default() += 1,
                Some(XidError::Unknown) => *times.entry(xid::UNKNOWN).or_default() += 1,
                None => {}
            },
            Err(NvmlError::Timeout | NvmlError::GpuLost) => break,
            // It would fail in each round.
            Err(_) => *events = None,
        }
    }
    let reported = |(xid, times)| Reported { device: device.clone(), xid, times };
    times.into_iter().map(reported).collect()
}
