//! A model's GPUs: turned on in a process that was linked without CUDA, capped, and judged when something
//! fails.
//!
//! libtorch asks once whether CUDA is there and keeps the answer, so this must come before anything else
//! that could ask. Its allocator reads its limit when it is first used, so the cap must come before the
//! model.

use std::ffi::{CString, c_int};

use proto::control::{Device, DeviceMemory, LoadSpec};
use worker::engine::device::needs_more;
use worker::engine::{Arenas, DeviceUse, EngineError, LoadError, Pages};

use crate::cap::Cap;
use crate::ffi::{self, Registered, TorchError};
use crate::message::{headline, ran_out};

/// The devices of a model, from ordinal 0 on.
#[derive(Clone, Debug)]
pub(crate) struct Gpu {
    ordinals: Vec<u16>,
    quota: Option<u64>,
    /// What the allocator was told, if it could be.
    limit: Option<u64>,
}

/// Where `spec` says that the model runs; `None` is the CPU.
pub(crate) fn enable(
    spec: &LoadSpec,
    warn: &mut dyn FnMut(&str),
) -> Result<Option<Gpu>, LoadError> {
    let ordinals: Vec<u16> = match spec.device {
        Device::Cpu => return Ok(None),
        Device::Cuda(ordinal) => vec![ordinal],
        Device::Spread(devices) => (0..devices).collect(),
    };
    load_libraries(ordinals.iter().copied().max().unwrap_or(0))?;
    let mut gpu = Gpu { ordinals, quota: None, limit: None };
    if let Some(memory) = spec.device_memory {
        gpu.quota = Some(memory.quota);
        match gpu.set_cap(memory) {
            Ok(limit) => gpu.limit = Some(limit),
            Err(error) => warn(&format!(
                "libtorch's allocator knows no limit, so that gpu_memory_limit is held by the watchdog \
                 alone: {}",
                headline(&error.0)
            )),
        }
    }
    Ok(Some(gpu))
}

/// Loads `libtorch_cuda.so` and checks that `ordinal` exists.
fn load_libraries(ordinal: u16) -> Result<(), LoadError> {
    ffi::load_cuda().map_err(|error| {
        LoadError::Permanent(format!("CUDA cannot be used: {}", headline(&error.0)))
    })?;
    let count = tch::Cuda::device_count();
    if count <= 0 {
        // The driver may still be starting, or the device may come back.
        return Err(LoadError::Transient("CUDA sees no device".to_owned()));
    }
    if i64::from(ordinal) >= count {
        let message = format!("there is no CUDA device {ordinal}; CUDA sees {count}");
        return Err(LoadError::Permanent(message));
    }
    Ok(())
}

impl Gpu {
    /// The device that inputs go to.
    pub(crate) fn first(&self) -> tch::Device {
        tch::Device::Cuda(self.ordinals.first().copied().map_or(0, usize::from))
    }

    /// For what works with one device only.
    pub(crate) fn only(&self) -> Option<u16> {
        match self.ordinals[..] {
            [ordinal] => Some(ordinal),
            _ => None,
        }
    }

    /// No device at all, for tests: there is nothing that could be lost.
    #[cfg(test)]
    pub(crate) fn nowhere(memory: DeviceMemory) -> Self {
        Self { ordinals: Vec::new(), quota: Some(memory.quota), limit: None }
    }

    fn set_cap(&self, memory: DeviceMemory) -> Result<u64, TorchError> {
        let totals = self.ordinals.iter().map(|&ordinal| ffi::device_total(ordinal));
        let totals: Vec<u64> = totals.collect::<Result<_, _>>()?;
        let cap = Cap::new(memory, totals.into_iter().max().unwrap_or(0));
        let settings = CString::new(cap.settings).expect("digits and names have no zero byte");
        ffi::set_allocator(&settings)?;
        Ok(cap.limit)
    }

    pub(crate) fn used(&self) -> DeviceUse {
        // An allocator that was never used on a device has held nothing of it.
        let peaks = self.ordinals.iter().map(|&ordinal| ffi::device_peak(ordinal).unwrap_or(0));
        DeviceUse { allocator_limit: self.limit, peak: peaks.max().unwrap_or(0) }
    }

    /// What an error of a request means: that the device is lost, that its memory ran out, or what it
    /// says.
    ///
    /// CUDA has errors after which a context answers every call with the same one. Which they are is told
    /// by no list here, since the texts change and some name only where they were found: the device is
    /// asked to finish what it has, which a context that lives does and one that is lost refuses. It also
    /// means that nothing reads or writes the request's memory any more.
    pub(crate) fn judge(&self, error: EngineError) -> EngineError {
        match (self.lost(), error) {
            (Some(why), error) => EngineError::DeviceFault(format!("{error}: {why}")),
            (None, EngineError::DeviceOutOfMemory(text)) => needs_more(self.quota, &text),
            (None, error) => error,
        }
    }

    /// The same of a load.
    pub(crate) fn judge_load(&self, error: LoadError) -> LoadError {
        match (self.lost(), error) {
            (Some(why), error) => LoadError::DeviceFault(format!("{error}: {why}")),
            (None, LoadError::DeviceOutOfMemory(text)) => {
                let quota = self.quota.map_or_else(String::new, |quota| format!(" {quota} bytes"));
                LoadError::DeviceOutOfMemory(format!(
                    "the model does not fit its device memory (gpu_memory_limit{quota}): {text}"
                ))
            }
            (None, error) => error,
        }
    }

    fn lost(&self) -> Option<String> {
        let refused = |&ordinal: &u16| ffi::synchronize(c_int::from(ordinal)).err();
        // A context that could not be made for want of memory is not one that is lost.
        let mut refused = self.ordinals.iter().filter_map(refused);
        let lost = refused.find(|error| ran_out(&error.0).is_none())?;
        Some(headline(&lost.0).to_owned())
    }

    /// Only memory is at stake, and whoever needs it notices.
    pub(crate) fn trim(&self) {
        drop(ffi::empty_cuda_cache());
    }
}

/// Lets devices copy from and to the memory of requests and replies by themselves; without it they copy
/// through memory of their own, and this thread waits for it. Nothing is undone: it lasts as long as the
/// process.
pub(crate) fn adopt(arenas: &Arenas) {
    let by_kind = pin(arenas.requests, Registered::ReadOnly)
        // Not every device can read pages that it could not write, and says so here.
        .or_else(|_| pin(arenas.requests, Registered::Writable));
    for (what, outcome) in
        [("requests", by_kind), ("replies", pin(arenas.responses, Registered::Writable))]
    {
        if let Err(error) = outcome {
            let why = headline(&error.0);
            worker::telemetry::info(format_args!(
                "the memory of {what} is not pinned, so that copies from and to the device wait: {why}"
            ));
        }
    }
}

fn pin(pages: Pages, access: Registered) -> Result<(), TorchError> {
    // SAFETY: the worker keeps its memory objects mapped as long as it has an engine.
    unsafe { ffi::register(pages.start, pages.len, access) }
}
