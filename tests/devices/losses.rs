//! Devices that go, come back, are cut into slices, or report errors.

use supervisor::device::{Processes, Slice, State, Used};
use tests::{FakeDevice, Machine};

use crate::watch::{GB, Watch, devices, id, is_lost};

const GPU_IS_LOST: u32 = 15;
const IN_USE: u32 = 19;

fn gpu(text: &str) -> FakeDevice {
    FakeDevice::new(text)
}

#[tokio::test]
async fn a_lost_device_is_told_and_the_others_stay_what_they_are() {
    let watch = Watch::of(&Machine::of(&[gpu("GPU-a"), gpu("GPU-b")])).await;
    watch.fake.say(&Machine::of(&[gpu("GPU-a").lost(GPU_IS_LOST), gpu("GPU-b")]));
    let lost = watch.until_state("GPU-a", is_lost).await;
    assert!(matches!(&lost.state, State::Lost(why) if why.contains("bus")), "{lost:?}");
    assert_eq!(lost.memory, None);
    let other = watch.until_state("GPU-b", |state| *state == State::Usable).await;
    assert_eq!(other.device.index, 1);
    watch.fake.say(&Machine::of(&[gpu("GPU-a"), gpu("GPU-b")]));
    let back = watch.until_state("GPU-a", |state| *state == State::Usable).await;
    assert_eq!(back.device.index, 0);
}

#[tokio::test]
async fn a_device_that_is_not_named_any_more_is_lost_and_not_forgotten() {
    let watch = Watch::of(&Machine::of(&[gpu("GPU-a"), gpu("GPU-b")])).await;
    // The other one has its number now, and is the other one all the same.
    watch.fake.say(&Machine::of(&[gpu("GPU-b"), gpu("GPU-c")]));
    watch.until_state("GPU-a", is_lost).await;
    let snapshot = watch.next_round().await;
    let names: Vec<_> = devices(&snapshot).iter().map(|d| (d.index, d.id.to_string())).collect();
    assert_eq!(names, [(0, "GPU-a".into()), (1, "GPU-b".into()), (2, "GPU-c".into())]);
    assert_eq!(snapshot.readings[1].state, State::Usable);
}

#[tokio::test]
async fn one_question_that_says_so_is_enough() {
    for function in ["nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetComputeRunningProcesses_v3"] {
        let watch = Watch::of(&Machine::of(&[gpu("GPU-a")])).await;
        watch.fake.say(&Machine::of(&[gpu("GPU-a").answers(function, GPU_IS_LOST)]));
        watch.until_state("GPU-a", is_lost).await;
    }
}

#[tokio::test]
async fn slices_take_the_place_of_their_device() {
    let slices = [
        gpu("MIG-1").name("Fake 1g").memory(GB, 0, 0).compute(7, GB / 2),
        gpu("MIG-2").name("Fake 1g").memory(GB, 0, 0),
    ];
    let machine = Machine::of(&[gpu("GPU-a").busy(50).cut_into(&slices), gpu("GPU-b")]);
    let watch = Watch::of(&machine).await;
    let snapshot = watch.now();
    let names: Vec<_> = devices(&snapshot).iter().map(|d| (d.index, d.id.to_string())).collect();
    assert_eq!(names, [(0, "MIG-1".into()), (1, "MIG-2".into()), (2, "GPU-b".into())]);
    let slice = &snapshot.readings[0];
    assert_eq!(slice.device.slice, Slice::Of(id("GPU-a")));
    assert_eq!((slice.busy, slice.memory.map(|m| m.total)), (None, Some(GB)));
    let Processes::Seen(seen) = &slice.processes else { panic!("{slice:?}") };
    assert_eq!(seen.get(&7), Some(&Used::Bytes(GB / 2)));
    // Cut anew: what was there is lost, its neighbours are not.
    let other = [gpu("MIG-2").memory(GB, 0, 0), gpu("MIG-3").memory(GB, 0, 0)];
    watch.fake.say(&Machine::of(&[gpu("GPU-a").cut_into(&other), gpu("GPU-b")]));
    watch.until_state("MIG-1", is_lost).await;
    let new = watch.until_state("MIG-3", |state| *state == State::Usable).await;
    assert_eq!(new.device.index, 3);
    watch.until_state("MIG-2", |state| *state == State::Usable).await;
}

#[tokio::test]
async fn a_device_in_mig_mode_without_slices_is_none() {
    let watch = Watch::of(&Machine::of(&[gpu("GPU-a").cut_into(&[]), gpu("GPU-b")])).await;
    assert_eq!(devices(&watch.now()).len(), 1);
}

#[tokio::test]
async fn a_device_that_will_not_say_whether_it_is_cut_keeps_its_slices_unseen() {
    let cut = || gpu("GPU-a").cut_into(&[gpu("MIG-1")]);
    let watch = Watch::of(&Machine::of(&[cut()])).await;
    let machine = gpu("GPU-a").answers("nvmlDeviceGetMigMode", IN_USE).cut_into(&[gpu("MIG-1")]);
    watch.fake.say(&Machine::of(&[machine]));
    let blind =
        |s: &supervisor::device::Snapshot| matches!(s.readings[0].processes, Processes::Blind(_));
    let snapshot = watch.until("blindness", blind).await;
    assert_eq!(snapshot.readings.len(), 1);
    assert_eq!(snapshot.readings[0].state, State::Usable);
}

#[tokio::test]
async fn an_error_of_a_process_costs_nobody_the_device() {
    let watch = Watch::of(&Machine::of(&[gpu("GPU-a").xid("first", 31).xid("second", 13)])).await;
    watch.next_round().await;
    assert_eq!(watch.next_round().await.readings[0].state, State::Usable);
}

#[tokio::test]
async fn an_error_that_takes_a_reset_is_the_loss_of_the_device_and_its_slices() {
    let cut = || gpu("GPU-a").cut_into(&[gpu("MIG-1")]);
    let watch = Watch::of(&Machine::of(&[cut(), gpu("GPU-b")])).await;
    let broken = gpu("GPU-a").xid("once", 79).cut_into(&[gpu("MIG-1")]);
    watch.fake.say(&Machine::of(&[broken, gpu("GPU-b")]));
    let lost = watch.until_state("MIG-1", is_lost).await;
    assert_eq!(lost.state, State::Lost("it has fallen off its bus (Xid 79)".into()));
    // It answers well enough, and through another initialisation of the library.
    watch.fake.say(&Machine::of(&[cut()]).answers("nvmlDeviceGetCount_v2", 1));
    watch
        .until("the driver's end", |s| matches!(s.driver, supervisor::device::Driver::Absent(_)))
        .await;
    watch.fake.say(&Machine::of(&[cut(), gpu("GPU-b")]));
    watch.devices.hurry();
    let snapshot = watch.until_answers().await;
    assert!(is_lost(&snapshot.reading(&id("MIG-1")).unwrap().state));
    assert_eq!(snapshot.reading(&id("GPU-b")).unwrap().state, State::Usable);
}

#[tokio::test]
async fn a_device_that_cannot_report_errors_is_used_without() {
    for function in ["nvmlDeviceGetSupportedEventTypes", "nvmlDeviceRegisterEvents"] {
        let device = gpu("GPU-a").answers(function, 3).xid("unheard", 79);
        let watch = Watch::of(&Machine::of(&[device])).await;
        assert_eq!(watch.next_round().await.readings[0].state, State::Usable);
    }
}
