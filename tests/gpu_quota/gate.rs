//! When what a worker had of a device can be given to another.

use std::process::Command;

use nix::sys::signal::Signal;
use tests::scrape::Scrape;
use tests::{Infer, wait};

use crate::stage::{GIB, Gpus, assert_exits, assert_serves, on_gpu};

#[test]
fn an_unload_is_answered_when_the_driver_names_the_process_no_more() {
    let Some(gpus) =
        Gpus::by_number_or_skip("an_unload_is_answered_when_the_driver_names_the_process_no_more")
    else {
        return;
    };
    let server = gpus.server().echo("m", &on_gpu()).set("worker.gpu_memory_limit", "9GiB").start();
    let worker = server.worker("m");
    gpus.hold(&[(worker.pid, 5 * GIB)]);
    wait::until_true("a look", || !server.logs().about("m", "worker on devices").is_empty());
    let unload = server.unload_aside("m");
    wait::until_true("the end of the worker", || !worker.is_alive());
    let freed = || server.logs().events().iter().any(|e| e["message"] == "device memory returned");
    // The process is gone, and the driver still has it.
    assert!(!unload.is_finished() && !freed());
    gpus.say(&gpus.idle());
    unload.answer().assert_status(200);
    assert!(freed());
    server.client().load("m").assert_status(200);
}

#[test]
fn one_that_does_not_wait_is_answered_at_once() {
    let Some(gpus) = Gpus::by_number_or_skip("one_that_does_not_wait_is_answered_at_once") else {
        return;
    };
    let server = gpus.server().echo("m", &on_gpu()).start();
    let worker = server.worker("m");
    gpus.hold(&[(worker.pid, GIB)]);
    let unload = "/v2/repository/models/m/unload";
    server.client().post(unload, r#"{"parameters":{"wait":false}}"#).assert_status(200);
    wait::until_true("the end of the worker", || !worker.is_alive());
    gpus.say(&gpus.idle());
    server.client().load("m").assert_status(200);
    assert_serves(&server, "m");
}

#[test]
fn who_asks_while_memory_is_on_its_way_back_waits_for_it() {
    let Some(gpus) =
        Gpus::by_number_or_skip("who_asks_while_memory_is_on_its_way_back_waits_for_it")
    else {
        return;
    };
    let server = gpus
        .server()
        .echo("first", &on_gpu())
        .echo("second", &on_gpu())
        .set("worker.gpu_memory_limit", "9GiB")
        .set("repository.startup", "[\"first\"]")
        .start();
    let worker = server.worker("first");
    gpus.hold(&[(worker.pid, 5 * GIB)]);
    let unload = server.unload_aside("first");
    wait::until_true("the end of the worker", || !worker.is_alive());
    let load = server.load_aside("second");
    gpus.say(&gpus.idle());
    unload.answer().assert_status(200);
    load.answer().assert_status(200);
}

#[test]
fn what_stays_makes_the_device_suspect_until_it_is_gone() {
    let Some(gpus) =
        Gpus::by_number_or_skip("what_stays_makes_the_device_suspect_until_it_is_gone")
    else {
        return;
    };
    let server = gpus
        .server()
        .echo("m", &on_gpu())
        .set("worker.gpu_memory_limit", "6GiB")
        .set("devices.release_timeout", "300ms")
        .start();
    let worker = server.worker("m");
    gpus.hold(&[(worker.pid, GIB)]);
    worker.kill(Signal::SIGKILL);
    assert_exits(&server, "m", &["SIGKILL"]);
    let late = "device memory of a worker that has ended is not returned";
    server.logs().wait_for("a suspicion", |event| event["message"] == late);
    // The model waits, and says for what.
    wait::until_true("a reason", || {
        let lines = server.client().index("m");
        lines.iter().any(|line| line.reason.contains("suspect"))
    });
    let suspects =
        || Scrape::of(server.metrics_address()).sum("bulkhead_device_suspect", &[]) == 1.0;
    assert!(suspects());
    assert!(server.told(&["devices", "--server"]).contains("suspect"));
    gpus.say(&gpus.idle());
    server.infer(&Infer::echo("m")).assert_status(200);
    assert!(!suspects());
}

#[test]
fn a_number_that_another_process_has_now_holds_nothing_up() {
    let Some(gpus) =
        Gpus::by_number_or_skip("a_number_that_another_process_has_now_holds_nothing_up")
    else {
        return;
    };
    let server = gpus.server().echo("m", &on_gpu()).start();
    let worker = server.worker("m");
    // A process of somebody else's takes the worker's place under the driver's eyes, in the end.
    let mut other = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
    gpus.hold(&[(worker.pid, GIB), (i32::try_from(other.id()).unwrap(), GIB)]);
    wait::until_true("a look", || !server.logs().about("m", "worker on devices").is_empty());
    let unload = server.unload_aside("m");
    wait::until_true("the end of the worker", || !worker.is_alive());
    gpus.hold(&[(i32::try_from(other.id()).unwrap(), GIB)]);
    unload.answer().assert_status(200);
    drop(other.stdin.take());
    other.wait().unwrap();
}
