//! The rows that make sense with libtorch, and files of real models.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use tests::supervisor::Builder;
use tests::{
    Infer, Supervisor, another_user_with_torch_or_skip, skipped, strict_or_skip, torch_or_skip,
};

use crate::row::Row;
use crate::scene::{Scene, VICTIM, beside_a_neighbour};

/// A user who owns nothing.
const NOBODY: u32 = 65534;
const SOON: Duration = Duration::from_secs(1);
const FAULTY: &str = "BULKHEAD_TEST_MODELS";
const DIGITS: &str = "BULKHEAD_MODELS";

/// What `faulty.pt` of scripts/models/testing.py is told to do.
#[derive(Clone, Copy)]
enum What {
    Nothing = 0,
    Loop = 1,
    Hoard = 2,
    Raise = 3,
}

fn faulty(what: What) -> Infer {
    let values = [1.0_f32, 2.0].map(f32::to_le_bytes).concat();
    let what = (what as i64).to_le_bytes();
    let infer = Infer::new(VICTIM).tensor("x", "FP32", &[2], &values);
    infer.tensor("what", "INT64", &[], &what)
}

/// With that model as the victim; or nothing, after saying that `test` is skipped.
fn row(test: &str) -> Option<Row> {
    let file = torch_or_skip(FAULTY, test)?.join("faulty.pt");
    if !file.is_file() {
        skipped(test, "there is no faulty.pt in BULKHEAD_TEST_MODELS; use scripts/test");
        return None;
    }
    Some(Row::of(Supervisor::new().torch(VICTIM, &file), faulty(What::Nothing)))
}

/// The same in both ways to start a worker.
fn both(test: &str, then: impl Fn(Row) -> Row) {
    for start in ["zygote", "exec"] {
        let Some(row) = row(test) else { return };
        then(row.server("worker.start", start)).run();
    }
}

#[test]
fn torch_sigkill() {
    both("torch_sigkill", |row| {
        row.signal(Signal::SIGKILL, faulty(What::Loop).once()).back_after("SIGKILL")
    });
}

#[test]
fn torch_sigsegv() {
    let Some(row) = row("torch_sigsegv") else { return };
    row.signal(Signal::SIGSEGV, faulty(What::Loop).once()).back_after("SIGSEGV").run();
}

#[test]
fn torch_sigabrt() {
    let Some(row) = row("torch_sigabrt") else { return };
    row.signal(Signal::SIGABRT, faulty(What::Loop).once()).back_after("SIGABRT").run();
}

#[test]
fn torch_an_endless_loop() {
    both("torch_an_endless_loop", |row| {
        row.deadline(1500).request(faulty(What::Loop).once(), &[504], "").back_after("hang")
    });
}

#[test]
fn torch_a_memory_bomb() {
    let Some(row) = row("torch_a_memory_bomb") else { return };
    let row = row.set("memory_limit", "256MiB");
    let row = row.request(faulty(What::Hoard).once(), &[500], "ended");
    row.back_after("host_oom").run_if(|server| {
        crate::exhaustion::held_by_groups(server, "memory", "torch_a_memory_bomb")
    });
}

#[test]
fn torch_a_memory_bomb_that_the_worker_s_own_limit_holds() {
    let Some(row) = row("torch_a_memory_bomb_that_the_worker_s_own_limit_holds") else { return };
    let row = row.server("limits.cgroup", "off").set("memory_limit", "256MiB");
    row.request(faulty(What::Hoard), &[507], "").run();
}

/// It takes memory that nobody gives it, on a second worker as well, and then gets none.
#[test]
fn torch_a_request_that_ends_its_worker_every_time() {
    let Some(row) = row("torch_a_request_that_ends_its_worker_every_time") else { return };
    let row = row.server("limits.cgroup", "off").set("confinement", "none");
    // Not much more than it has: a first run takes memory slowly.
    let row = row.set("memory_limit", "112MiB");
    let row = row.request(faulty(What::Hoard), &[422], "ended 2 workers of model 'victim'");
    row.request(faulty(What::Hoard).once(), &[422], "").back_after_all(2, "host_oom").run();
}

/// The commonest ends, in a mode.
fn commonest(test: &str, mode: impl Fn(Row) -> Row, fits: impl Fn(&Supervisor) -> bool) {
    let strikes: [fn(Row) -> Row; 2] = [
        |row| row.signal(Signal::SIGKILL, faulty(What::Loop).once()).back_after("SIGKILL"),
        |row| row.deadline(1500).request(faulty(What::Loop).once(), &[504], "").back_after("hang"),
    ];
    for strike in strikes {
        let Some(row) = row(test) else { return };
        strike(mode(row)).run_if(&fits);
    }
}

#[test]
fn torch_in_namespaces() {
    let test = "torch_in_namespaces";
    let strict = |row: Row| row.set("confinement", "strict");
    commonest(test, strict, |server| strict_or_skip(server, VICTIM, test));
}

#[test]
fn torch_of_an_ordinary_user() {
    let test = "torch_of_an_ordinary_user";
    if another_user_with_torch_or_skip(test) {
        commonest(test, |row| row.user(NOBODY), |_| true);
    }
}

#[test]
fn torch_an_error_that_is_raised() {
    let Some(row) = row("torch_an_error_that_is_raised") else { return };
    row.request(faulty(What::Raise), &[500], "told to raise").run();
}

/// A request hangs in a stopped process of a real model.
#[test]
fn torch_sigstop() {
    let Some(models) = torch_or_skip(DIGITS, "torch_sigstop") else { return };
    let image = || Infer::new(VICTIM).tensor("image", "FP32", &[1, 1, 8, 8], &[0; 256]);
    let file = models.join("digits/1/model.pt");
    let row = Row::of(Supervisor::new().torch(VICTIM, &file), image()).deadline(1500);
    row.stopped(image().once(), &[504]).back_after("hang").run();
}

#[test]
fn torch_a_corrupt_file() {
    let Some(models) = torch_or_skip(DIGITS, "torch_a_corrupt_file") else { return };
    let good = models.join("digits/1/model.pt");
    let corruptions: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes.clear(),
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes[..64].fill(0xff),
        |bytes| bytes.iter_mut().step_by(97).for_each(|byte| *byte ^= 0x5a),
    ];
    for corrupt in corruptions {
        let mut bytes = fs::read(&good).unwrap();
        corrupt(&mut bytes);
        never_up(&bytes, &good);
    }
}

fn never_up(bytes: &[u8], good: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.pt");
    fs::write(&file, bytes).unwrap();
    let image = Infer::new(VICTIM).tensor("image", "FP32", &[1, 1, 8, 8], &[0; 256]);
    let scene = Scene::of(with_a_zygote(good, &[]), image, SOON);
    scene.server.repository().torch(VICTIM, &file);
    scene.assert_cannot_be_loaded(1, "load_error");
    scene.server.repository().torch(VICTIM, good);
    scene.assert_can_be_loaded();
}

/// The framework's zygote is there before, so that it is nothing that is left over.
fn with_a_zygote(model: &Path, settings: &[(&str, &str)]) -> Supervisor {
    let builder = beside_a_neighbour(Supervisor::new().torch("other", model));
    let set = |builder: Builder, (key, value): &(&str, &str)| builder.set(key, value);
    let server = settings.iter().fold(builder, set).start();
    server.wait_until_ready("other");
    server
}

#[test]
fn torch_a_slow_load() {
    let Some(models) = torch_or_skip(DIGITS, "torch_a_slow_load") else { return };
    let settings = [
        // A hundredth of a processor: what takes a twentieth of a second takes some.
        ("models.victim.cpu_limit", "0.01"),
        ("models.victim.load_timeout", "300ms"),
        ("models.victim.restart.max_restarts", "1"),
    ];
    let server = with_a_zygote(&models.join("digits/1/model.pt"), &settings);
    let of_processors = |event: &serde_json::Value| {
        let controllers = event["controllers"].as_str().unwrap_or_default();
        event["message"] == "control groups for workers" && controllers.contains("Cpu")
    };
    if !server.logs().events().iter().any(of_processors) {
        return skipped("torch_a_slow_load", "there are no control groups for processors");
    }
    let image = Infer::new(VICTIM).tensor("image", "FP32", &[1], &[0; 4]);
    let scene = Scene::of(server, image, SOON);
    scene.server.repository().torch(VICTIM, &models.join("resnet18/1/model.pt"));
    scene.assert_cannot_be_loaded(2, "start_timeout");
    scene.assert_nothing_else_happened();
}
