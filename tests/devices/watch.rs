//! A handle on the devices of a fake machine, and waiting for what it shows.

use std::sync::Arc;
use std::time::Duration;

use supervisor::config::{self, Config, NvmlLibrary};
use supervisor::device::{Device, DeviceId, Devices, Driver, Reading, Snapshot, State};
use tests::wait::WATCHDOG;
use tests::{FakeNvml, Machine};
use tokio::time::timeout;

pub(crate) const GB: u64 = 1_000_000_000;

/// Asks often, and is patient.
pub(crate) fn settings(fake: &FakeNvml) -> config::Devices {
    let config = Config::load(None, &[fake.setting()]).expect("the defaults are good");
    let poll_interval = Duration::from_millis(2);
    config::Devices { poll_interval, answer_timeout: WATCHDOG, ..config.devices }
}

/// As [`settings`], for a test in which the driver does not answer.
pub(crate) fn impatient(fake: &FakeNvml) -> config::Devices {
    config::Devices { answer_timeout: Duration::from_millis(100), ..settings(fake) }
}

pub(crate) fn without_library(nvml: NvmlLibrary) -> config::Devices {
    let config = Config::load(None, &[]).expect("the defaults are good");
    config::Devices { nvml, ..config.devices }
}

pub(crate) struct Watch {
    pub(crate) fake: FakeNvml,
    pub(crate) devices: Devices,
}

impl Watch {
    pub(crate) async fn on(fake: FakeNvml) -> Self {
        let devices = Devices::start(&settings(&fake));
        devices.settled().await;
        Self { fake, devices }
    }

    pub(crate) async fn of(machine: &Machine) -> Self {
        Self::on(FakeNvml::with(tests::Release::Older, machine)).await
    }

    pub(crate) fn now(&self) -> Arc<Snapshot> {
        Arc::clone(&self.devices.snapshots().borrow())
    }

    /// Waits for a snapshot like this.
    pub(crate) async fn until(&self, what: &str, is: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let mut snapshots = self.devices.snapshots();
        let found = timeout(WATCHDOG, snapshots.wait_for(|snapshot| is(snapshot))).await;
        let last = self.now();
        let found = found.unwrap_or_else(|_| panic!("the watchdog barked: {what}; {last:#?}"));
        Arc::clone(&found.expect("the handle is there"))
    }

    pub(crate) async fn until_answers(&self) -> Arc<Snapshot> {
        self.until("a driver that answers", |s| matches!(s.driver, Driver::Answers(_))).await
    }

    /// Waits until this device is in such a state.
    pub(crate) async fn until_state(&self, text: &str, is: impl Fn(&State) -> bool) -> Reading {
        let of = |snapshot: &Snapshot| snapshot.reading(&id(text)).is_some_and(|r| is(&r.state));
        let found = self.until(&format!("the state of {text}"), of).await;
        found.reading(&id(text)).expect("it was found").clone()
    }

    /// Waits for a round of questions that began after this.
    pub(crate) async fn next_round(&self) -> Arc<Snapshot> {
        let now = shared::clock::MonotonicNanos::now();
        self.until("one more round", |snapshot| snapshot.taken > now).await
    }
}

pub(crate) fn id(text: &str) -> DeviceId {
    DeviceId::new(text).expect("a good id")
}

pub(crate) fn devices(snapshot: &Snapshot) -> Vec<&Device> {
    snapshot.readings.iter().map(|reading| &reading.device).collect()
}

pub(crate) fn is_lost(state: &State) -> bool {
    matches!(state, State::Lost(_))
}
