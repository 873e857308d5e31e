//! What is taken from a driver that answers, is absent, fails, or is silent.

use std::collections::BTreeMap;
use std::path::PathBuf;

use supervisor::config::NvmlLibrary;
use supervisor::device::{Devices, Driver, Memory, Processes, Slice, State, Used};
use tests::{FakeDevice, FakeNvml, Machine, Release, wait};
use tokio::time::timeout;

use crate::watch::{GB, Watch, devices, id, impatient, without_library};

fn one() -> Machine {
    Machine::of(&[FakeDevice::new("GPU-a")])
}

#[tokio::test]
async fn everything_that_is_said_is_there() {
    let busy = FakeDevice::new("GPU-a")
        .name("NVIDIA H200")
        .memory(10 * GB, GB, 2 * GB)
        .busy(35)
        .compute(41, GB)
        .compute(42, GB / 2);
    let watch = Watch::of(&Machine::of(&[busy, FakeDevice::new("GPU-b")])).await;
    let snapshot = watch.now();
    assert_eq!(snapshot.driver, Driver::Answers("580.82".into()));
    let names: Vec<_> = devices(&snapshot).iter().map(|d| (d.index, d.id.to_string())).collect();
    assert_eq!(names, [(0, "GPU-a".into()), (1, "GPU-b".into())]);
    let reading = &snapshot.readings[0];
    assert_eq!(
        (reading.device.name.as_str(), &reading.device.slice),
        ("NVIDIA H200", &Slice::Whole)
    );
    assert_eq!(reading.state, State::Usable);
    // Without what the driver keeps for itself.
    assert_eq!(reading.memory, Some(Memory { total: 9 * GB, used: 2 * GB }));
    assert_eq!(reading.busy, Some(35));
    let seen = BTreeMap::from([(41, Used::Bytes(GB)), (42, Used::Bytes(GB / 2))]);
    assert_eq!(reading.processes, Processes::Seen(seen));
    assert_eq!(snapshot.readings[1].processes, Processes::Seen(BTreeMap::new()));
}

#[tokio::test]
async fn it_is_asked_again_and_again_and_when_somebody_is_in_a_hurry() {
    let watch = Watch::of(&one()).await;
    watch.fake.say(&Machine::of(&[FakeDevice::new("GPU-a").memory(10 * GB, 0, 3 * GB)]));
    watch.until("news", |s| s.readings[0].memory.is_some_and(|m| m.used == 3 * GB)).await;
    let slow = supervisor::config::Devices {
        poll_interval: wait::WATCHDOG * 2,
        ..crate::watch::settings(&watch.fake)
    };
    let devices = Devices::start(&slow);
    devices.settled().await;
    let watch = Watch { devices, fake: watch.fake };
    let before = watch.now().taken;
    watch.devices.hurry();
    watch.until("a hurried answer", |s| s.taken > before).await;
}

#[tokio::test]
async fn where_there_is_no_library_there_are_no_devices_and_nothing_runs() {
    let missing = NvmlLibrary::Path(PathBuf::from("/nonexistent/libnvidia-ml.so"));
    for (nvml, expected) in [(missing, "cannot be loaded"), (NvmlLibrary::Off, "off")] {
        let devices = Devices::start(&without_library(nvml));
        devices.settled().await;
        let snapshot = devices.snapshots().borrow().clone();
        assert!(snapshot.readings.is_empty());
        assert!(
            matches!(&snapshot.driver, Driver::Absent(why) if why.contains(expected)),
            "{snapshot:?}"
        );
        // Nobody answers to it, and it does no harm.
        devices.hurry();
        assert!(devices.limit(id("GPU-a"), PathBuf::from("/"), 1).await.is_err());
    }
}

#[tokio::test]
async fn a_library_that_fails_is_tried_again() {
    // The driver is not loaded; it is another one than the library's.
    for (code, expected) in [(9, "not loaded"), (18, "mismatch")] {
        let watch = Watch::of(&one().fails_to_initialise(code)).await;
        let driver = watch.now().driver.clone();
        assert!(matches!(&driver, Driver::Absent(why) if why.contains(expected)), "{driver:?}");
        watch.fake.say(&one());
        watch.devices.hurry();
        assert_eq!(watch.until_answers().await.readings.len(), 1);
    }
}

#[tokio::test]
async fn a_driver_that_takes_its_time_answers_all_the_same() {
    let watch = Watch::of(&one().delays(3)).await;
    let first = watch.now();
    assert!(matches!(first.driver, Driver::Answers(_)));
    assert!(watch.next_round().await.taken > first.taken);
}

#[tokio::test]
async fn a_silent_driver_is_told_and_recovers_by_itself() {
    let fake = FakeNvml::with(Release::Older, &one());
    let devices = Devices::start(&impatient(&fake));
    devices.settled().await;
    let watch = Watch { fake, devices };
    watch.until_answers().await;
    watch.fake.say(&one().hangs("nvmlDeviceGetMemoryInfo_v2"));
    let silent = watch.until("silence", |s| s.driver == Driver::Silent).await;
    // What it said before is still there.
    assert_eq!(silent.readings.len(), 1);
    assert_eq!(silent.readings[0].memory, Some(Memory { total: 10 * GB, used: 0 }));
    watch.fake.say(&Machine::of(&[FakeDevice::new("GPU-a").memory(10 * GB, 0, GB)]));
    let news = |s: &supervisor::device::Snapshot| {
        matches!(s.driver, Driver::Answers(_)) && s.readings[0].memory.is_some_and(|m| m.used == GB)
    };
    assert!(watch.until("an answer again", news).await.taken > silent.taken);
}

#[tokio::test]
async fn nobody_waits_for_a_driver_that_hangs_from_the_start() {
    let fake = FakeNvml::with(Release::Older, &one().hangs("*"));
    let devices = Devices::start(&impatient(&fake));
    timeout(wait::WATCHDOG, devices.settled()).await.expect("it settles in silence");
    let watch = Watch { fake, devices };
    assert_eq!(watch.now().driver, Driver::Silent);
    watch.fake.say(&one());
    watch.until_answers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_thread_ends_with_the_handle_and_nobody_waits_for_it() {
    let watch = Watch::of(&one()).await;
    let clone = watch.devices.clone();
    let Watch { fake, devices } = watch;
    drop(devices);
    drop(clone);
    // It lets go of the library.
    let let_go = || fake.log().iter().any(|line| line == "shutdown");
    wait::until_true("the end of the thread", let_go);
}

#[tokio::test]
async fn a_handle_can_go_while_the_driver_hangs() {
    let fake = FakeNvml::with(Release::Older, &one().hangs("nvmlDeviceGetCount_v2"));
    let devices = Devices::start(&impatient(&fake));
    devices.settled().await;
    drop(devices);
    fake.say(&one());
}

#[tokio::test]
async fn a_driver_that_goes_leaves_its_devices_known_and_unseen() {
    let machine = Machine::of(&[FakeDevice::new("GPU-a").compute(41, GB)]);
    let watch = Watch::of(&machine).await;
    watch.fake.say(&machine.clone().answers("nvmlDeviceGetCount_v2", 1));
    let gone = watch.until("the driver's end", |s| matches!(s.driver, Driver::Absent(_))).await;
    let reading = &gone.readings[0];
    // Not lost: it may be there and at work. Not empty either.
    assert_eq!((&reading.state, reading.memory), (&State::Usable, None));
    assert!(matches!(reading.processes, Processes::Blind(_)));
    watch.fake.say(&machine);
    watch.devices.hurry();
    assert_eq!(watch.until_answers().await.readings[0].device.index, 0);
}
