//! Workers that have more than they may, or of which nothing is known.

use tests::{Echo, FakeDevice, Infer, Machine, wait};

use crate::stage::{GIB, Gpus, assert_exits, assert_serves, number, on_gpu, seat};

/// A model for any one GPU whose allocator holds it to nothing.
fn unbounded() -> Echo {
    on_gpu().parameter("device_limit", "none")
}

#[test]
fn who_has_more_than_its_quota_look_after_look_is_ended_and_nobody_else() {
    let Some(gpus) = Gpus::by_number_or_skip(
        "who_has_more_than_its_quota_look_after_look_is_ended_and_nobody_else",
    ) else {
        return;
    };
    let server = gpus.server().echo("m", &unbounded()).echo("other", &on_gpu()).start();
    let (worker, other) = (server.worker("m"), server.worker("other"));
    let load = server.load_on("other");
    gpus.hold(&[(worker.pid, 4 * GIB + 1), (other.pid, GIB)]);
    assert_exits(&server, "m", &["quota"]);
    gpus.hold(&[(other.pid, GIB)]);
    server.wait_until_ready("m");
    assert_eq!(server.worker("other"), other);
    load.wait_for_more(10);
    load.assert_no_errors();
}

#[test]
fn beyond_the_soft_limit_batches_are_smaller_until_it_is_over() {
    let Some(gpus) =
        Gpus::by_number_or_skip("beyond_the_soft_limit_batches_are_smaller_until_it_is_over")
    else {
        return;
    };
    let server = gpus.server().echo("m", &unbounded().with("max_batch_size: 8")).start();
    let worker = server.worker("m");
    gpus.hold(&[(worker.pid, 3 * GIB + 9 * GIB / 10)]);
    server.logs().wait_for("a shortage", |event| event["message"] == "device memory is short");
    let reason = server.client().index("m").pop().unwrap().reason;
    assert!(reason.contains("batches of at most 4"), "{reason}");
    let batch = |rows: usize| {
        let values = vec![0_u8; 4 * rows];
        Infer::new("m").tensor("INPUT0", "FP32", &[rows, 1], &values)
    };
    server.infer(&batch(4)).assert_status(200);
    let refused = server.infer(&batch(5));
    assert!(refused.assert_status(507).error().contains("at most 4"), "{}", refused.text());
    gpus.hold(&[(worker.pid, GIB)]);
    let over = "device memory is no longer short";
    server.logs().wait_for("its end", |event| event["message"] == over);
    wait::until_true("whole batches", || server.infer(&batch(8)).status == 200);
    assert_eq!(server.worker("m"), worker);
}

#[test]
fn what_is_not_said_is_not_zero_and_ends_nobody() {
    let Some(gpus) = Gpus::by_number_or_skip("what_is_not_said_is_not_zero_and_ends_nobody") else {
        return;
    };
    let server = gpus.server().echo("m", &unbounded()).start();
    let worker = server.worker("m");
    gpus.hold(&[(worker.pid, GIB)]);
    let held_by = |enforcement: &'static str| {
        wait::until_true(enforcement, || {
            let seats = server.logs().about("m", "worker on devices");
            seats.last().is_some_and(|seat| seat["enforcement"] == enforcement)
        });
    };
    held_by("watchdog");
    let unknown = FakeDevice::new("GPU-a").memory(10 * GIB, 0, 9 * GIB);
    gpus.say(&Machine::of(&[unknown.compute_unknown(number(worker.pid))]));
    held_by("none");
    assert_serves(&server, "m");
    assert_eq!(server.worker("m"), worker);
    gpus.hold(&[(worker.pid, GIB)]);
    held_by("watchdog");
}

#[test]
fn the_process_below_a_worker_in_namespaces_is_the_worker_s() {
    let Some(gpus) =
        Gpus::by_number_or_skip("the_process_below_a_worker_in_namespaces_is_the_worker_s")
    else {
        return;
    };
    let server = gpus.server().echo("m", &unbounded()).set("worker.confinement", "strict").start();
    // The worker itself, as the driver knows it.
    let worker = server.worker("m");
    gpus.hold(&[(worker.pid, 5 * GIB)]);
    assert_exits(&server, "m", &["quota"]);
}

/// A model whose largest request is known, and so slow to load that the driver can be told of its process
/// before it is there.
const CLOSED: &str = r#"
    backend: "echo"
    max_batch_size: 4
    input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ 16 ] } ]
    output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 16 ] } ]
    parameters { key: "load_delay_ms" value { string_value: "500" } }
    instance_group [ { kind: KIND_GPU count: 1 } ]
"#;

#[test]
fn what_a_model_was_seen_to_need_is_granted_at_its_next_load() {
    let Some(gpus) =
        Gpus::by_number_or_skip("what_a_model_was_seen_to_need_is_granted_at_its_next_load")
    else {
        return;
    };
    let measured = gpus.fake.folder().join("measured.json");
    let server = gpus
        .server()
        .config("m", CLOSED)
        .set("devices.measured", &format!("{measured:?}"))
        .start_unready();
    let pid = || server.workers_of("m").first().map(|worker| worker.pid);
    gpus.hold(&[(wait::until("a process", pid), GIB)]);
    server.wait_until_ready("m");
    assert_eq!(seat(&server, "m", 1)["quota"].as_u64(), Some(4 * GIB));
    wait::until_true("a figure", || measured.is_file());
    gpus.say(&gpus.idle());
    server.client().unload("m").assert_status(200);
    server.client().load("m").assert_status(200);
    // And a little more.
    assert_eq!(seat(&server, "m", 2)["quota"].as_u64(), Some(GIB + (256 << 20)));
}
