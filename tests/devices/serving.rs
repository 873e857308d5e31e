//! Models on fake GPUs, served by the real server: the driver names its workers, and what it says of them
//! has consequences.
//!
//! The echo engine takes nothing of a device. What a worker has is what the fake driver says of its process.

use std::path::Path;

use nix::sys::signal::Signal;
use tests::supervisor::Builder;
use tests::workers::WorkerProcess;
use tests::{Echo, FakeDevice, FakeNvml, Infer, Machine, Release, Supervisor, wait};

const GIB: u64 = 1 << 30;

fn server(fake: &FakeNvml) -> Builder {
    let on_gpu = Echo::default().with("instance_group [ { kind: KIND_GPU } ]");
    Supervisor::new()
        .echo("victim", &on_gpu)
        .echo("neighbour", &Echo::default())
        .gpus(fake)
        .set("devices.poll_interval", "50ms")
        .set("worker.gpu_memory_limit", "1GiB")
        .set("restart.max_restarts", "1000")
        .set("restart.backoff.initial", "20ms")
        .set("restart.backoff.factor", "1.0")
}

fn idle() -> FakeDevice {
    FakeDevice::new("GPU-a")
}

/// The device with this worker on it.
fn with(worker: &WorkerProcess, bytes: u64) -> FakeDevice {
    idle().memory(16 * GIB, 0, bytes).compute(worker.pid.cast_unsigned(), bytes)
}

fn say(fake: &FakeNvml, device: FakeDevice) {
    fake.say(&Machine::of(&[device]));
}

/// Whether numbers of processes mean the same to a driver and to this machine's `/proc`; elsewhere, as in
/// most containers, nobody is known by them.
fn numbers_or_skip(test: &str) -> bool {
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let initial = namespace == Path::new("pid:[4026531836]");
    if !initial {
        tests::skipped(test, "this is not the initial namespace of processes");
    }
    initial
}

#[test]
fn a_worker_is_given_its_device_and_no_other() {
    let fake = FakeNvml::with(Release::Older, &Machine::of(&[idle(), FakeDevice::new("GPU-b")]));
    let server = server(&fake).start();
    let visible = |model: &str| {
        let pid = server.worker(model).pid;
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        let text = String::from_utf8_lossy(&environment).into_owned();
        let found = text.split('\0').find_map(|v| v.strip_prefix("CUDA_VISIBLE_DEVICES="));
        found.map(str::to_owned)
    };
    assert!(["GPU-a", "GPU-b"].map(|id| Some(id.to_owned())).contains(&visible("victim")));
    assert!(visible("neighbour").unwrap_or_default().is_empty());
    server.infer(&Infer::echo("victim")).assert_status(200);
}

#[test]
fn a_worker_that_keeps_more_than_its_quota_is_ended_and_no_other() {
    if !numbers_or_skip("a_worker_that_keeps_more_than_its_quota_is_ended_and_no_other") {
        return;
    }
    // In the second the process that the driver names is a grandchild of the one that is known.
    for confinement in ["standard", "strict"] {
        let fake = FakeNvml::with(Release::Older, &Machine::of(&[idle()]));
        let server = server(&fake).set("worker.confinement", confinement).start();
        let neighbour = server.load_on("neighbour");
        let worker = server.worker("victim");
        say(&fake, with(&worker, 2 * GIB));
        let exits = server.logs().wait_for_number(1, "victim", "worker exited");
        let why = exits[0]["why"].as_str().unwrap_or_default();
        assert!(why.contains(&(2 * GIB).to_string()), "{why}");
        // The driver lets go of what it had.
        say(&fake, idle());
        server.wait_for_generation("victim", worker.generation + 1);
        neighbour.wait_for_more(10);
        neighbour.assert_no_errors();
    }
}

#[test]
fn an_unload_waits_until_the_driver_lets_go() {
    if !numbers_or_skip("an_unload_waits_until_the_driver_lets_go") {
        return;
    }
    let fake = FakeNvml::with(Release::Older, &Machine::of(&[idle()]));
    let server = server(&fake).set("devices.release_timeout", "1h").start();
    let worker = server.worker("victim");
    say(&fake, with(&worker, GIB / 2));
    server.logs().wait_for("a look at the worker", |event| event["enforcement"] == "watchdog");
    let mut client = server.client();
    let unload = std::thread::spawn(move || client.unload("victim").status);
    wait::until_true("the end of the process", || !worker.is_alive());
    // It is gone for the kernel, and still there for the driver.
    server.infer(&Infer::echo("neighbour")).assert_status(200);
    assert!(!unload.is_finished());
    say(&fake, idle());
    assert_eq!(unload.join().expect("no panic"), 200);
    assert!(server.logs().events().iter().any(|e| e["message"] == "device memory returned"));
}

#[test]
fn a_lost_device_costs_its_worker_and_the_model_moves_to_another() {
    let both = |first: FakeDevice| Machine::of(&[first, FakeDevice::new("GPU-b")]);
    let fake = FakeNvml::with(Release::Older, &both(idle()));
    let server = server(&fake).start();
    let neighbour = server.load_on("neighbour");
    let on = |generation: u64| {
        let placed = server.logs().wait_for("a worker on devices", |event| {
            event["message"] == "worker on devices" && event["generation"] == generation
        });
        placed["devices"].as_str().unwrap_or_default().to_owned()
    };
    let worker = server.worker("victim");
    let first = on(worker.generation);
    let broken = |id: &str| {
        let device = FakeDevice::new(id);
        if id == first { device.xid("once", 79) } else { device }
    };
    fake.say(&Machine::of(&[broken("GPU-a"), broken("GPU-b")]));
    let exits = server.logs().wait_for_number(1, "victim", "worker exited");
    assert!(exits[0]["why"].as_str().unwrap_or_default().contains("Xid 79"), "{exits:?}");
    server.wait_for_generation("victim", worker.generation + 1);
    assert_ne!(on(worker.generation + 1), first);
    neighbour.wait_for_more(10);
    neighbour.assert_no_errors();
}

#[test]
fn a_driver_that_falls_silent_ends_nobody() {
    let fake = FakeNvml::with(Release::Older, &Machine::of(&[idle()]));
    let server = server(&fake).set("devices.answer_timeout", "100ms").start();
    let worker = server.worker("victim");
    fake.say(&Machine::of(&[idle()]).hangs("*"));
    let said = |message: &'static str| {
        server.logs().wait_for(message, |event| event["message"] == message);
    };
    said("the GPU driver is silent");
    server.infer(&Infer::echo("victim")).assert_status(200);
    // What takes its place must wait for the driver: nobody knows what is free.
    worker.signal(Signal::SIGKILL);
    server.logs().wait_for_number(1, "victim", "worker exited");
    say(&fake, idle());
    said("the GPU driver answers again");
    server.wait_for_generation("victim", worker.generation + 1);
}

#[test]
fn the_driver_is_told_what_a_worker_may_have_and_to_forget_it() {
    let test = "the_driver_is_told_what_a_worker_may_have_and_to_forget_it";
    let fake = FakeNvml::with(Release::R615, &Machine::of(&[idle()]));
    let server = server(&fake).start();
    let placed = server.logs().wait_for_number(1, "victim", "worker on devices");
    let told = |what: &str| {
        let lines = fake.log().into_iter();
        lines.filter(|line| line.starts_with("set GPU-a ") && line.ends_with(what)).count()
    };
    if placed[0]["enforcement"] != "hard" {
        let why = placed[0]["not_hard"].as_str().unwrap_or_default();
        assert!(why.contains("control group"), "{why}");
        return tests::skipped(test, why);
    }
    assert_eq!(told(&format!(" 0 {GIB}")), 1);
    server.client().unload("victim").assert_status(200);
    wait::until_true("a limit that is cleared", || told(&format!(" 0 {}", u64::MAX)) == 1);
}
