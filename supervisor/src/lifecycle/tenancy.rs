//! One worker on its devices: what it was granted, what holds it within that, and what was seen of it.

use std::sync::Arc;

use proto::control::{Loaded, OnDevice, WarmupExtent};
use shared::clock::MonotonicNanos;
use tokio::sync::watch;

use super::instance::{DeviceView, Enforcement};
use crate::health::{Advice, DeviceUse, DeviceWatch};
use crate::quota::{Grant, Place, Sample};
use crate::schedule::Squeeze;

/// What a process has of a device beside what its engine's allocator holds, where that cannot be seen:
/// the context, and the libraries' kernels and work space. About what CUDA 13 takes.
const UNSEEN: u64 = 512 << 20;

#[derive(Debug)]
pub(super) struct Tenancy {
    place: Arc<Place>,
    samples: watch::Receiver<Sample>,
    watch: DeviceWatch,
    hard: Hard,
    loaded: Option<(MonotonicNanos, Option<OnDevice>)>,
    /// Whether its peak has been taken note of.
    noted: bool,
    trim: Trim,
    pub(super) squeeze: Option<Squeeze>,
    used: DeviceUse,
    peak: u64,
    blind: u64,
}

/// Whether the driver itself refuses what is beyond the quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hard {
    Yes,
    No,
}

/// A worker is asked again only once it has answered: a command that nobody reads would block the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trim {
    Answered,
    Asked,
}

/// What a look came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Looked {
    pub(super) advice: Advice,
    /// What the model was seen to need, once, if that is worth keeping.
    pub(super) peak: Option<u64>,
}

impl Tenancy {
    /// Of the process `pid`; `None` if nothing was granted but a place on the CPU. `soft` is a part of
    /// the quota.
    pub(super) fn new(grant: &Grant, pid: i32, soft: f64, hard: Hard) -> Option<Self> {
        let place = Arc::new(grant.place()?.clone());
        let watch = DeviceWatch::new(place.bytes, soft);
        Some(Self {
            place,
            samples: grant.occupy(pid),
            watch,
            hard,
            loaded: None,
            noted: false,
            trim: Trim::Answered,
            squeeze: None,
            used: DeviceUse::Nothing,
            peak: 0,
            blind: 0,
        })
    }

    pub(super) fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// Somebody has looked at it.
    pub(super) async fn changed(&mut self) -> bool {
        self.samples.changed().await.is_ok()
    }

    pub(super) fn has_loaded(&mut self, loaded: &Loaded, now: MonotonicNanos) {
        self.loaded = Some((now, loaded.on_device));
    }

    /// Takes in the last look.
    pub(super) fn look(&mut self) -> Looked {
        let Sample { taken, seen } = self.samples.borrow_and_update().clone();
        let on_device = self.loaded.and_then(|(_, on_device)| on_device);
        let seen = match seen {
            // It holds its model there, so that it must be seen if anybody is.
            DeviceUse::Nothing if on_device.is_some() => {
                DeviceUse::Blind("the driver does not name its process".to_owned())
            }
            seen => seen,
        };
        if let DeviceUse::Bytes(bytes) = seen {
            self.peak = self.peak.max(bytes);
        }
        if self.loaded.is_some() && matches!(seen, DeviceUse::Blind(_)) {
            self.blind = self.blind.saturating_add(1);
        }
        let peak = self.note(taken, &seen);
        let advice = self.watch.on(&seen);
        self.used = seen;
        Looked { advice, peak }
    }

    /// The first look that was begun after the warm-up tells what the model needs.
    fn note(&mut self, taken: MonotonicNanos, seen: &DeviceUse) -> Option<u64> {
        let (since, on_device) = self.loaded?;
        let on_device = on_device?;
        if self.noted || taken <= since || on_device.warmup == WarmupExtent::Partial {
            return None;
        }
        self.noted = true;
        match seen {
            DeviceUse::Bytes(_) => Some(self.peak.max(on_device.peak)),
            DeviceUse::Nothing | DeviceUse::Blind(_) => Some(on_device.peak.saturating_add(UNSEEN)),
            DeviceUse::Lost(_) => None,
        }
    }

    /// Whether it may be asked to give back now.
    pub(super) fn may_trim(&mut self) -> bool {
        std::mem::replace(&mut self.trim, Trim::Asked) == Trim::Answered
    }

    /// It has given back what it could. An error if nobody had asked.
    pub(super) fn trimmed(&mut self) -> Result<(), String> {
        match std::mem::replace(&mut self.trim, Trim::Answered) {
            Trim::Asked => Ok(()),
            Trim::Answered => Err("an answer to a command that was not given".into()),
        }
    }

    pub(super) fn view(&self) -> DeviceView {
        let (place, used, blind) = (Arc::clone(&self.place), self.used.clone(), self.blind);
        DeviceView { place, enforcement: self.enforcement(), used, blind }
    }

    fn enforcement(&self) -> Enforcement {
        let on_device = self.loaded.and_then(|(_, on_device)| on_device);
        let limited = on_device.is_some_and(|on_device| on_device.allocator_limit.is_some());
        match (self.hard, limited, &self.used) {
            (Hard::Yes, _, _) => Enforcement::Hard,
            (Hard::No, true, _) => Enforcement::Allocator,
            (Hard::No, false, DeviceUse::Bytes(_)) => Enforcement::Watchdog,
            (Hard::No, false, DeviceUse::Nothing | DeviceUse::Blind(_) | DeviceUse::Lost(_)) => {
                Enforcement::None
            }
        }
    }
}
