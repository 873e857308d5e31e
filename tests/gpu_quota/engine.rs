//! What the worker's own allocator refuses, and devices that refuse the worker.

use tests::{Echo, Infer};

use crate::stage::{GIB, Gpus, assert_exits, assert_serves, on_gpu, seat};

#[test]
fn a_request_that_needs_more_is_refused_by_the_quota_s_name_and_the_worker_lives() {
    let gpus = Gpus::new(&["GPU-a"]);
    let server = gpus.server().echo("m", &on_gpu()).start();
    assert_eq!(seat(&server, "m", 1)["enforcement"], "allocator");
    let worker = server.worker("m");
    for _ in 0..10 {
        let refused = server.infer(&Infer::command("m", "device-allocate 5GiB"));
        let error = refused.assert_status(507).error();
        assert!(
            error.contains("gpu_memory_limit") && error.contains(&(4 * GIB).to_string()),
            "{error}"
        );
    }
    assert_serves(&server, "m");
    assert_eq!(server.worker("m"), worker);
}

#[test]
fn memory_that_does_not_come_back_ends_the_worker_as_on_oom_says() {
    let gpus = Gpus::new(&["GPU-a"]);
    let server = gpus.server().echo("m", &on_gpu()).set("restart.on_oom", "\"stop\"").start();
    // An answer of the largest size, then so much that is kept that not even that fits any more.
    server.infer(&Infer::command("m", "device-allocate 100MiB")).assert_status(200);
    server.infer(&Infer::command("m", "device-leak 3500MiB")).assert_status(200);
    for _ in 0..3 {
        server.infer(&Infer::command("m", "device-allocate 100MiB")).assert_status(507);
    }
    assert_exits(&server, "m", &["device_oom"]);
    let reason = server.wait_for_state("m", "UNAVAILABLE");
    assert!(reason.contains("device_oom"), "{reason}");
}

#[test]
fn a_poisoned_context_ends_its_worker_and_no_neighbour_notices() {
    let gpus = Gpus::new(&["GPU-a"]);
    let server = gpus.server().echo("m", &on_gpu()).echo("neighbour", &on_gpu()).start();
    let load = server.load_on("neighbour");
    server.infer(&Infer::command("m", "device-fault").once()).assert_status(500);
    assert_exits(&server, "m", &["device_fault"]);
    assert_serves(&server, "m");
    load.wait_for_more(10);
    load.assert_no_errors();
}

#[test]
fn a_model_that_does_not_fit_its_quota_ends_as_out_of_device_memory() {
    let gpus = Gpus::new(&["GPU-a"]);
    let large = on_gpu().parameter("device_mb", "5000");
    let server = gpus
        .server()
        .echo("m", &large)
        .echo("cpu", &Echo::default())
        .set("repository.required", "[\"cpu\"]")
        .set("restart.max_restarts", "1")
        .start();
    assert_exits(&server, "m", &["device_oom", "device_oom"]);
    let reason = server.wait_for_state("m", "UNAVAILABLE");
    assert!(reason.contains("device_oom"), "{reason}");
}
