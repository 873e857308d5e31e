//! What cannot be true, or is not said, is unknown, and never zero.

use std::collections::BTreeMap;

use supervisor::device::{Processes, Snapshot, State, Used};
use tests::{FakeDevice, Machine};

use crate::watch::{GB, Watch, devices};

const FUNCTION_NOT_FOUND: u32 = 13;
const NOT_SUPPORTED: u32 = 3;
const NO_PERMISSION: u32 = 4;

async fn of(device: FakeDevice) -> std::sync::Arc<Snapshot> {
    Watch::of(&Machine::of(&[device])).await.now()
}

fn seen(snapshot: &Snapshot) -> Vec<(u32, Used)> {
    match &snapshot.readings[0].processes {
        Processes::Seen(seen) => seen.iter().map(|(number, used)| (*number, *used)).collect(),
        Processes::Blind(why) => panic!("blind: {why}"),
    }
}

#[tokio::test]
async fn what_a_process_has_may_be_unknown() {
    let device = FakeDevice::new("GPU-a").compute_unknown(1).compute(2, 11 * GB).compute(3, 0);
    let unknown = [1, 2, 3].map(|number| (number, Used::Unknown));
    assert_eq!(seen(&*of(device).await), unknown);
}

#[tokio::test]
async fn a_process_of_both_kinds_counts_once() {
    let device = FakeDevice::new("GPU-a").compute(1, GB).graphics(1, 2 * GB).graphics(2, GB);
    let expected = [(1, Used::Bytes(2 * GB)), (2, Used::Bytes(GB))];
    assert_eq!(seen(&*of(device).await), expected);
}

#[tokio::test]
async fn who_uses_a_device_may_be_unknown() {
    let compute = "nvmlDeviceGetComputeRunningProcesses_v3";
    let device = FakeDevice::new("GPU-a").compute(1, GB).answers(compute, NO_PERMISSION);
    let snapshot = of(device).await;
    let reading = &snapshot.readings[0];
    assert!(
        matches!(&reading.processes, Processes::Blind(why) if why.contains("permission")),
        "{reading:?}"
    );
    assert_eq!(reading.state, State::Usable);
}

#[tokio::test]
async fn a_device_that_cannot_draw_has_nobody_who_draws() {
    let graphics = "nvmlDeviceGetGraphicsRunningProcesses_v3";
    let device = FakeDevice::new("GPU-a").compute(1, GB).answers(graphics, NOT_SUPPORTED);
    assert_eq!(seen(&*of(device).await), [(1, Used::Bytes(GB))]);
}

#[tokio::test]
async fn the_older_form_of_a_list_serves_where_the_newer_is_missing_or_nonsense() {
    let device = || FakeDevice::new("GPU-a").compute(1, GB).graphics(2, GB);
    let older = device()
        .answers("nvmlDeviceGetComputeRunningProcesses_v3", FUNCTION_NOT_FOUND)
        .answers("nvmlDeviceGetGraphicsRunningProcesses_v3", FUNCTION_NOT_FOUND);
    let expected = [(1, Used::Bytes(GB)), (2, Used::Bytes(GB))];
    assert_eq!(seen(&*of(older).await), expected);
    assert_eq!(seen(&*of(device().garbled()).await), expected);
}

#[tokio::test]
async fn absurd_counts_are_not_believed() {
    let device = FakeDevice::new("GPU-a").counts_processes(4_000_000_000);
    let watch = Watch::of(&Machine::of(&[device]).counts(4_000_000_000)).await;
    let snapshot = watch.now();
    assert_eq!(snapshot.readings.len(), 1);
    assert!(matches!(snapshot.readings[0].processes, Processes::Blind(_)));
}

#[tokio::test]
async fn figures_that_cannot_be_are_none() {
    for (total, reserved, used) in [(GB, 0, 2 * GB), (GB, 2 * GB, 0), (u64::MAX, 0, 0), (0, 0, 0)] {
        let device = FakeDevice::new("GPU-a").memory(total, reserved, used).busy(3_000_000_000);
        let snapshot = of(device).await;
        let reading = &snapshot.readings[0];
        assert_eq!((reading.memory, reading.busy), (None, None), "{total} {reserved} {used}");
        assert_eq!(reading.state, State::Usable);
    }
}

#[tokio::test]
async fn names_are_clean_and_a_device_without_a_good_id_is_none() {
    let odd = FakeDevice::new("GPU-a,GPU-b");
    let long = FakeDevice::new(&"x".repeat(200));
    let twice = FakeDevice::new("GPU-c").name("evil \u{1b}[31m");
    let snapshot = Watch::of(&Machine::of(&[odd, long, twice.clone(), twice])).await.now();
    let names: Vec<_> = devices(&snapshot).iter().map(|d| (d.id.to_string(), &d.name)).collect();
    assert_eq!(names, [("GPU-c".to_owned(), &"evil  [31m".to_owned())]);
    assert_eq!(snapshot.readings[0].processes, Processes::Seen(BTreeMap::new()));
}
