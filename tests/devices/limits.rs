//! Hard limits that the driver holds, or does not.

use std::path::PathBuf;

use supervisor::device::{Devices, HardLimit};
use tests::{FakeDevice, FakeNvml, Machine, Release, wait};

use crate::watch::{GB, id, impatient, settings};

fn machine() -> Machine {
    Machine::of(&[FakeDevice::new("GPU-a")])
}

/// Any folder will do.
fn group(fake: &FakeNvml) -> PathBuf {
    fake.folder().to_owned()
}

async fn limit(fake: &FakeNvml) -> Result<HardLimit, String> {
    let devices = Devices::start(&settings(fake));
    devices.limit(id("GPU-a"), group(fake), 3 * GB).await
}

/// Every limit that was asked for so far.
fn asked(fake: &FakeNvml) -> Vec<String> {
    fake.log().into_iter().filter(|line| line.starts_with("set")).collect()
}

fn set(fake: &FakeNvml) -> String {
    format!("set GPU-a {} 0 {}", group(fake).display(), 3 * GB)
}

fn cleared(fake: &FakeNvml) -> String {
    format!("set GPU-a {} 0 {}", group(fake).display(), u64::MAX)
}

#[tokio::test]
async fn a_limit_that_reads_back_is_one_until_it_is_cleared() {
    let fake = FakeNvml::with(Release::R615, &machine());
    let limit = limit(&fake).await.unwrap();
    assert_eq!(limit.bytes(), 3 * GB);
    assert_eq!(asked(&fake), [set(&fake)]);
    limit.clear().await;
    assert_eq!(asked(&fake), [set(&fake), cleared(&fake)]);
}

#[tokio::test]
async fn a_limit_that_is_dropped_is_cleared() {
    let fake = FakeNvml::with(Release::R615, &machine());
    drop(limit(&fake).await.unwrap());
    wait::until_true("a limit that is cleared", || asked(&fake) == [set(&fake), cleared(&fake)]);
}

#[tokio::test]
async fn an_older_driver_has_none() {
    let fake = FakeNvml::with(Release::Older, &machine());
    let why = limit(&fake).await.unwrap_err();
    assert!(why.contains("R615"), "{why}");
}

#[tokio::test]
async fn a_driver_that_refuses_has_none() {
    let fake = FakeNvml::with(Release::R615, &machine().refuses_limits(4));
    let why = limit(&fake).await.unwrap_err();
    assert!(why.contains("nvmlDeviceSetMemoryLimits_v1 gave 4 (it takes root)"), "{why}");
    let gone = Machine::of(&[FakeDevice::new("GPU-b")]);
    let fake = FakeNvml::with(Release::R615, &gone);
    let why = limit(&fake).await.unwrap_err();
    assert!(why.contains("no such device"), "{why}");
}

#[tokio::test]
async fn what_reads_back_as_something_else_is_no_limit_and_is_cleared() {
    for (soft, hard) in [(0, 4 * GB), (GB, 3 * GB), (0, u64::MAX), (0, 0)] {
        let fake = FakeNvml::with(Release::R615, &machine().reads_limits(soft, hard));
        let why = limit(&fake).await.unwrap_err();
        assert!(why.contains(&format!("hard {hard}, soft {soft}")), "{why}");
        assert_eq!(asked(&fake), [set(&fake), cleared(&fake)]);
    }
}

#[tokio::test]
async fn what_cannot_be_read_back_is_no_limit_and_is_cleared() {
    let device = FakeDevice::new("GPU-a").answers("nvmlDeviceGetMemoryLimits_v1", 999);
    let fake = FakeNvml::with(Release::R615, &Machine::of(&[device]));
    let why = limit(&fake).await.unwrap_err();
    assert!(why.contains("nvmlDeviceGetMemoryLimits_v1 gave 999"), "{why}");
    assert_eq!(asked(&fake), [set(&fake), cleared(&fake)]);
}

#[tokio::test]
async fn nobody_waits_for_a_driver_that_hangs_and_what_it_sets_late_is_cleared() {
    let fake = FakeNvml::with(Release::R615, &machine().hangs("nvmlDeviceGetMemoryLimits_v1"));
    let devices = Devices::start(&impatient(&fake));
    let why = devices.limit(id("GPU-a"), group(&fake), 3 * GB).await.unwrap_err();
    assert!(why.contains("did not answer"), "{why}");
    // The driver is asked about its devices meanwhile.
    devices.settled().await;
    fake.say(&machine());
    wait::until_true("a limit that is cleared", || asked(&fake) == [set(&fake), cleared(&fake)]);
}

#[tokio::test]
async fn a_group_that_is_gone_has_no_limit_to_clear() {
    let fake = FakeNvml::with(Release::R615, &machine());
    let devices = Devices::start(&settings(&fake));
    let group = fake.folder().join("group");
    std::fs::create_dir(&group).unwrap();
    let limit = devices.limit(id("GPU-a"), group.clone(), GB).await.unwrap();
    std::fs::remove_dir(&group).unwrap();
    limit.clear().await;
    assert_eq!(asked(&fake).len(), 1);
}
