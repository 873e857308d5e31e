//! `bulkhead devices`, and a server beside fake GPUs.

use serde_json::Value;
use tests::supervisor::command;
use tests::{Echo, FakeDevice, FakeNvml, Infer, Machine, Release, Supervisor, wait};

use crate::watch::GB;

/// What it prints; it ends well.
fn list(setting: &str, further: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("there is a folder for temporary files");
    let mut arguments = vec!["devices", "--set", setting];
    arguments.extend(further);
    let output = command(folder.path(), &arguments).output().expect("the program can be started");
    assert!(output.status.success(), "{output:?}");
    // There are no logs, and nothing to complain of.
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout).expect("text")
}

fn machine() -> Machine {
    let busy = FakeDevice::new("GPU-a").name("NVIDIA Fake").busy(7).compute(41, GB);
    let blind = FakeDevice::new("GPU-b").answers("nvmlDeviceGetComputeRunningProcesses_v3", 4);
    Machine::of(&[busy, blind, FakeDevice::new("GPU-c").cut_into(&[FakeDevice::new("MIG-1")])])
}

#[test]
fn all_devices_are_listed_the_processor_first() {
    let fake = FakeNvml::with(Release::Older, &machine());
    let table = list(&fake.setting(), &[]);
    let lines: Vec<&str> = table.lines().collect();
    let starts = |number: usize, with: &str| lines[number].starts_with(with);
    assert!(starts(0, "DEVICE ") && starts(1, "cpu ") && starts(2, "0 "), "{table}");
    assert!(lines[2].contains("NVIDIA Fake") && lines[2].contains("7 %"), "{table}");
    assert!(lines[3].contains("unknown: ") && lines[3].contains("permission"), "{table}");
    assert!(lines[4].contains("MIG-1, of GPU-c"), "{table}");
    assert_eq!(lines.last(), Some(&"The GPU driver is 580.82."));
}

#[test]
fn programs_get_json() {
    let fake = FakeNvml::with(Release::Older, &machine());
    let listed: Value = serde_json::from_str(&list(&fake.setting(), &["--json"])).unwrap();
    assert_eq!(listed["driver"]["version"], "580.82");
    let devices = listed["devices"].as_array().unwrap();
    let kinds: Vec<_> = devices.iter().map(|device| device["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["cpu", "gpu", "gpu", "gpu"]);
    assert!(devices[0]["cores"].as_u64().unwrap() > 0);
    assert_eq!(devices[1]["processes"][0]["bytes"], GB);
    assert_eq!(devices[3]["slice_of"], "GPU-c");
}

#[test]
fn without_a_gpu_there_is_the_processor_and_the_reason() {
    for (setting, why) in [
        ("devices.nvml=off", "devices.nvml is \"off\""),
        ("devices.nvml=/nonexistent/nvml.so", "cannot be loaded"),
    ] {
        let table = list(setting, &[]);
        assert_eq!(table.lines().filter(|line| line.starts_with("cpu ")).count(), 1);
        let last = table.lines().last().unwrap();
        assert!(last.starts_with("There is no GPU: ") && last.contains(why), "{table}");
    }
    let fake = FakeNvml::with(Release::Older, &Machine::default().fails_to_initialise(18));
    let listed: Value = serde_json::from_str(&list(&fake.setting(), &["--json"])).unwrap();
    assert_eq!(listed["driver"]["state"], "absent");
}

#[test]
fn a_driver_that_hangs_is_said_to() {
    let fake = FakeNvml::with(Release::Older, &Machine::default().hangs("*"));
    let table = list(&fake.setting(), &["--set", "devices.answer_timeout=100ms"]);
    assert!(table.contains("The GPU driver does not answer"), "{table}");
}

#[test]
fn a_wrong_setting_is_the_commands_error() {
    let folder = tempfile::tempdir().unwrap();
    let output = command(folder.path(), &["devices", "--set", "devices.nvml=here"]).output();
    assert_eq!(output.unwrap().status.code(), Some(2));
}

#[test]
fn a_server_tells_of_its_gpus() {
    let fake = FakeNvml::with(Release::Older, &machine());
    let server = Supervisor::with_echo("echo").gpus(&fake).start();
    let told = |message: &str| {
        let events = server.logs().events().into_iter();
        events.filter(|event| event["message"] == message).count()
    };
    wait::until_true("a line for each", || told("a GPU") == 3);
    assert_eq!(told("the GPU driver answers"), 1);
    server.infer(&Infer::echo("echo")).assert_status(200);
}

#[test]
fn a_server_starts_beside_a_driver_that_hangs() {
    let fake = FakeNvml::with(Release::Older, &Machine::default().hangs("*"));
    let server = Supervisor::new()
        .echo("echo", &Echo::default())
        .gpus(&fake)
        .set("devices.answer_timeout", "100ms")
        .start();
    server.infer(&Infer::echo("echo")).assert_status(200);
}

#[test]
fn a_server_without_gpus_complains_of_nothing() {
    let server = Supervisor::with_echo("echo").start();
    server.infer(&Infer::echo("echo")).assert_status(200);
    let complaint = |event: &&Value| {
        let target = event["target"].as_str().unwrap_or_default();
        target.starts_with("supervisor::device") && event["level"] != "INFO"
    };
    assert_eq!(server.logs().events().iter().find(complaint), None);
}
