//! One worker on its devices: what it was granted, what holds it within that, and what was seen of it.

use std::sync::Arc;

use proto::control::{Loaded, OnDevice, WarmupExtent};
use shared::clock::MonotonicNanos;
use tokio::sync::watch;

use super::hard_limits::Hard;
use super::instance::{DeviceView, Enforcement};
use crate::health::{Advice, DeviceUse, DeviceWatch};
use crate::quota::{Grant, Place, Sample};
use crate::schedule::Squeeze;

/// What a process has of a device beside what its engine's allocator holds, where that cannot be seen:
/// the context, and the libraries' kernels and work space. About what CUDA 13 takes.
const UNSEEN: u64 = 512 << 20;

/// Looks that show nothing certain until it is taken that none will.
const UNTIL_BLIND: u64 = 5;

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
    squeeze: Option<Squeeze>,
    used: DeviceUse,
    peak: u64,
    blind: u64,
    /// What was last said of how it is held.
    told: Option<Enforcement>,
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
    pub(super) fn under(grant: &Grant, pid: i32, soft: f64, hard: Hard) -> Option<Self> {
        let place = grant.place()?.clone();
        Some(Self::new(place, grant.occupy(pid), soft, hard))
    }

    fn new(place: Place, samples: watch::Receiver<Sample>, soft: f64, hard: Hard) -> Self {
        let watch = DeviceWatch::new(place.bytes, soft);
        Self {
            place: Arc::new(place),
            samples,
            watch,
            hard,
            loaded: None,
            noted: false,
            trim: Trim::Answered,
            squeeze: None,
            used: DeviceUse::Nothing,
            peak: 0,
            blind: 0,
            told: None,
        }
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
        let seen = match &seen {
            // It holds its model there, so that it must be seen if anybody is.
            DeviceUse::Nothing if on_device.is_some() => {
                DeviceUse::Blind("the driver does not name its process".to_owned())
            }
            DeviceUse::Nothing | DeviceUse::Bytes(_) | DeviceUse::Blind(_) | DeviceUse::Lost(_) => {
                seen
            }
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
            // What the allocator had at most was beside the context, also if it has given some back.
            DeviceUse::Bytes(_) => Some(self.peak.max(on_device.peak.saturating_add(UNSEEN))),
            // A driver may be late to name a process; a few looks later it has had its time.
            DeviceUse::Nothing | DeviceUse::Blind(_) if self.blind < UNTIL_BLIND => {
                self.noted = false;
                None
            }
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

    /// Batches are smaller as long as there is one.
    pub(super) fn squeeze(&mut self, squeeze: Option<Squeeze>) {
        self.squeeze = squeeze;
    }

    /// How it is held, if that is not what was said before; nothing until it has loaded.
    pub(super) fn news(&mut self) -> Option<DeviceView> {
        self.loaded.as_ref()?;
        let enforcement = self.enforcement();
        let known = self.told.replace(enforcement);
        (known != Some(enforcement)).then(|| self.view())
    }

    pub(super) fn view(&self) -> DeviceView {
        DeviceView {
            place: Arc::clone(&self.place),
            enforcement: self.enforcement(),
            not_hard: match &self.hard {
                Hard::Yes => None,
                Hard::No(why) => Some(why.clone()),
            },
            used: self.used.clone(),
            blind: self.blind,
        }
    }

    fn enforcement(&self) -> Enforcement {
        let on_device = self.loaded.and_then(|(_, on_device)| on_device);
        let limited = on_device.is_some_and(|on_device| on_device.allocator_limit.is_some());
        match (&self.hard, limited, &self.used) {
            (Hard::Yes, _, _) => Enforcement::Hard,
            (Hard::No(_), true, _) => Enforcement::Allocator,
            (Hard::No(_), false, DeviceUse::Bytes(_)) => Enforcement::Watchdog,
            (Hard::No(_), false, DeviceUse::Nothing | DeviceUse::Blind(_) | DeviceUse::Lost(_)) => {
                Enforcement::None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Device, DeviceId, Slice};

    const GIB: u64 = 1 << 30;

    struct Driver {
        samples: watch::Sender<Sample>,
        taken: u64,
    }

    impl Driver {
        fn says(&mut self, tenancy: &mut Tenancy, seen: DeviceUse) -> Looked {
            self.taken += 10;
            self.samples.send_replace(Sample { taken: MonotonicNanos(self.taken), seen });
            tenancy.look()
        }
    }

    fn tenancy(hard: Hard) -> (Driver, Tenancy) {
        let nothing = Sample { taken: MonotonicNanos::default(), seen: DeviceUse::Nothing };
        let (samples, looks) = watch::channel(nothing);
        let device = Device {
            id: DeviceId::new("GPU-0").unwrap(),
            index: 0,
            name: "fake".into(),
            slice: Slice::Whole,
        };
        let place = Place { devices: vec![device], bytes: 4 * GIB };
        (Driver { samples, taken: 100 }, Tenancy::new(place, looks, 0.9, hard))
    }

    fn not_hard() -> Hard {
        Hard::No("no reason".into())
    }

    fn loaded(allocator_limit: Option<u64>, warmup: WarmupExtent) -> Loaded {
        let on_device = Some(OnDevice { allocator_limit, peak: GIB, warmup });
        Loaded {
            inputs: vec![],
            outputs: vec![],
            load_nanos: 0,
            warmup_nanos: 0,
            peak_rss: 0,
            build: "fake 1".into(),
            on_device,
        }
    }

    #[test]
    fn the_first_look_after_a_whole_warm_up_tells_what_the_model_needs() {
        let (mut driver, mut tenancy) = tenancy(not_hard());
        assert_eq!(driver.says(&mut tenancy, DeviceUse::Bytes(3 * GIB)).peak, None);
        tenancy.has_loaded(&loaded(None, WarmupExtent::Largest), MonotonicNanos(115));
        // Begun at 120: the peak is the most that any look has seen.
        assert_eq!(driver.says(&mut tenancy, DeviceUse::Bytes(2 * GIB)).peak, Some(3 * GIB));
        assert_eq!(driver.says(&mut tenancy, DeviceUse::Bytes(2 * GIB)).peak, None);
    }

    #[test]
    fn a_look_that_was_begun_before_the_end_of_the_warm_up_tells_nothing() {
        let (mut driver, mut tenancy) = tenancy(not_hard());
        tenancy.has_loaded(&loaded(None, WarmupExtent::Largest), MonotonicNanos(115));
        assert_eq!(driver.says(&mut tenancy, DeviceUse::Bytes(GIB)).peak, None);
        let blind = || DeviceUse::Blind("no right".into());
        for _ in 1..UNTIL_BLIND {
            assert_eq!(driver.says(&mut tenancy, blind()).peak, None);
        }
        assert_eq!(driver.says(&mut tenancy, blind()).peak, Some(GIB + UNSEEN));
    }

    #[test]
    fn what_was_seen_of_a_partial_warm_up_is_not_kept() {
        let (mut driver, mut tenancy) = tenancy(not_hard());
        tenancy.has_loaded(&loaded(None, WarmupExtent::Partial), MonotonicNanos(0));
        assert_eq!(driver.says(&mut tenancy, DeviceUse::Bytes(GIB)).peak, None);
    }

    #[test]
    fn enforcement_is_never_more_than_is_true() {
        let level = |hard, limit, seen| {
            let (mut driver, mut tenancy) = tenancy(hard);
            tenancy.has_loaded(&loaded(limit, WarmupExtent::Partial), MonotonicNanos(0));
            let _looked = driver.says(&mut tenancy, seen);
            tenancy.view().enforcement
        };
        let (bytes, blind) = (DeviceUse::Bytes(GIB), DeviceUse::Blind("no right".into()));
        assert_eq!(level(Hard::Yes, Some(GIB), bytes.clone()), Enforcement::Hard);
        assert_eq!(level(not_hard(), Some(GIB), blind.clone()), Enforcement::Allocator);
        assert_eq!(level(not_hard(), None, bytes), Enforcement::Watchdog);
        assert_eq!(level(not_hard(), None, blind), Enforcement::None);
        // It holds its model there: that nobody sees it is blindness, not absence.
        assert_eq!(level(not_hard(), None, DeviceUse::Nothing), Enforcement::None);
    }

    #[test]
    fn blind_looks_are_counted_once_the_model_is_there() {
        let (mut driver, mut tenancy) = tenancy(not_hard());
        let _before = driver.says(&mut tenancy, DeviceUse::Blind("no right".into()));
        tenancy.has_loaded(&loaded(None, WarmupExtent::Partial), MonotonicNanos(0));
        let _nothing = driver.says(&mut tenancy, DeviceUse::Nothing);
        let _blind = driver.says(&mut tenancy, DeviceUse::Blind("no right".into()));
        let view = tenancy.view();
        assert_eq!((view.blind, view.used), (2, DeviceUse::Blind("no right".into())));
    }

    #[test]
    fn a_worker_is_asked_again_only_once_it_has_answered() {
        let (_driver, mut tenancy) = tenancy(not_hard());
        assert!(tenancy.trimmed().is_err());
        assert!(tenancy.may_trim() && !tenancy.may_trim());
        assert_eq!(tenancy.trimmed(), Ok(()));
        assert!(tenancy.may_trim());
    }
}
