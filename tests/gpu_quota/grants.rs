//! Who gets which device, and how much of it.

use tests::scrape::Scrape;
use tests::{Echo, Infer, Machine, Supervisor, wait};

use crate::stage::{GIB, Gpus, assert_serves, holding, on_gpu, seat};

/// What the environment of the worker of `model` says of devices.
fn visible(server: &Supervisor, model: &str) -> String {
    server.infer(&Infer::command(model, "variable CUDA_VISIBLE_DEVICES")).assert_status(200);
    let said = |event: &serde_json::Value| {
        let line = event["message"].as_str()?.strip_prefix("CUDA_VISIBLE_DEVICES=")?;
        (event["model"] == model).then(|| line.to_owned())
    };
    said(&server.logs().wait_for("a variable", |event| said(event).is_some())).unwrap()
}

#[test]
fn a_worker_sees_its_own_device_and_one_on_the_cpu_sees_none() {
    let gpus = Gpus::new(&["GPU-a", "GPU-b"]);
    let second = Echo::default().with("instance_group [ { kind: KIND_GPU gpus: [ 1 ] } ]");
    let server = gpus.server().echo("second", &second).echo("cpu", &Echo::default()).start();
    assert_eq!(visible(&server, "second"), "GPU-b");
    assert_eq!(visible(&server, "cpu"), "");
    let seat = seat(&server, "second", 1);
    assert_eq!((&seat["devices"], seat["quota"].as_u64()), (&"GPU-b".into(), Some(4 * GIB)));
}

#[test]
fn instances_of_a_version_are_spread_and_models_packed() {
    let gpus = Gpus::new(&["GPU-a", "GPU-b"]);
    let two = Echo::default().with("instance_group [ { kind: KIND_GPU count: 2 } ]");
    let server = gpus.server().echo("two", &two).set("worker.gpu_memory_limit", "3GiB").start();
    let seats = server.logs().wait_for_number(2, "two", "worker on devices");
    let mut devices: Vec<_> = seats.iter().filter_map(|seat| seat["devices"].as_str()).collect();
    devices.sort_unstable();
    assert_eq!(devices, ["GPU-a", "GPU-b"]);
}

#[test]
fn operators_are_shown_who_holds_what() {
    let gpus = Gpus::new(&["GPU-a", "GPU-b"]);
    let server = gpus.server().echo("m", &on_gpu()).start();
    seat(&server, "m", 1);
    let parsed = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap();
    let quota = parsed(server.told(&["quota", "--json"]));
    let account = &quota["devices"][0];
    assert_eq!((&account["id"], account["used"].as_u64()), (&"GPU-a".into(), Some(4 * GIB)));
    let holder =
        serde_json::json!({"model": "m", "version": 1, "bytes": 4 * GIB, "leaving": false});
    assert_eq!(account["holders"], serde_json::json!([holder]));
    assert_eq!(quota["devices"][1]["holders"], serde_json::json!([]));
    assert!(server.told(&["quota"]).contains("  m 1"));
    let status = parsed(server.told(&["status", "--json"]));
    let device = &status["devices"]["devices"][0];
    assert_eq!(
        (device["granted"].as_u64(), device["grantable"].as_u64()),
        (Some(4 * GIB), Some(10 * GIB))
    );
    assert!(server.told(&["status", "m"]).contains("of 4.0 GiB"));
    assert!(server.told(&["devices", "--server"]).contains("4.0 GiB of 10.0 GiB"));
    let worker = server.worker("m");
    gpus.hold(&[(worker.pid, GIB)]);
    // To the byte; how busy it is, only the driver knows.
    let gib = |count: u64| f64::from(u32::try_from((count * GIB) >> 20).unwrap()) * 1_048_576.0;
    let ([a, m], [b]) = ([("gpu_uuid", "GPU-a"), ("model", "m")], [("gpu_uuid", "GPU-b")]);
    let expected = [
        ("nv_gpu_memory_total_bytes", a, gib(10)),
        ("nv_gpu_memory_used_bytes", a, gib(1)),
        ("nv_gpu_memory_used_bytes", b, 0.0),
        ("bulkhead_device_granted_bytes", a, gib(4)),
        ("bulkhead_device_granted_bytes", b, 0.0),
        ("bulkhead_device_grantable_bytes", a, gib(10)),
        ("bulkhead_device_lost", a, 0.0),
        ("bulkhead_device_suspect", a, 0.0),
        ("bulkhead_worker_device_memory_bytes", m, gib(1)),
        ("bulkhead_worker_device_quota_bytes", m, gib(4)),
        ("bulkhead_worker_device", m, 1.0),
    ];
    wait::until_true("what the driver says", || {
        Scrape::of(server.metrics_address()).sum("nv_gpu_memory_used_bytes", &[a]) == gib(1)
    });
    wait::until_true("what the worker has", || {
        let name = "bulkhead_worker_device_memory_bytes";
        Scrape::of(server.metrics_address()).sum(name, &[m]) == gib(1)
    });
    let scrape = Scrape::of(server.metrics_address());
    for (name, of, value) in expected {
        assert_eq!(scrape.sum(name, &[of]), value, "{name} {of:?}");
    }
}

#[test]
fn what_does_not_fit_is_denied_with_the_numbers_until_it_does() {
    let gpus = Gpus::new(&["GPU-a"]);
    let server = gpus
        .server()
        .echo("first", &on_gpu())
        .echo("second", &on_gpu())
        .set("worker.gpu_memory_limit", "6GiB")
        .set("repository.startup", "[\"first\"]")
        .start();
    let refused = server.client().load("second");
    let error = refused.assert_status(400).error();
    assert!(error.contains(&format!("{} bytes of GPU memory asked", 6 * GIB)), "{error}");
    assert!(error.contains(&format!("{} free on GPU 0", 4 * GIB)), "{error}");
    assert_serves(&server, "first");
    server.client().unload("first").assert_status(200);
    server.client().load("second").assert_status(200);
    assert_serves(&server, "second");
}

#[test]
fn what_others_use_is_not_granted() {
    let gpus = Gpus::new(&["GPU-a"]);
    // Of the test itself, which is no worker.
    let stranger = i32::try_from(std::process::id()).unwrap();
    gpus.hold(&[(stranger, 7 * GIB)]);
    let server = gpus.server().echo("m", &on_gpu()).set("repository.startup", "none").start();
    let error = server.client().load("m").assert_status(400).error();
    assert!(error.contains(&format!("{} free on GPU 0", 3 * GIB)), "{error}");
    gpus.say(&gpus.idle());
    tests::wait::until_true("a grant", || server.client().load("m").status == 200);
}

#[test]
fn a_model_of_several_devices_gets_all_or_none() {
    let gpus = Gpus::new(&["GPU-a", "GPU-b"]);
    let spread = Echo::default().with("instance_group [ { kind: KIND_MODEL gpus: [ 0, 1 ] } ]");
    let server = gpus
        .server()
        .echo("spread", &spread)
        .echo("small", &on_gpu())
        .set("models.spread.gpu_memory_limit", "8GiB")
        .set("repository.startup", "[\"small\"]")
        .start();
    // One of the two has no room.
    server.client().load("spread").assert_status(400);
    server.client().unload("small").assert_status(200);
    server.client().load("spread").assert_status(200);
    assert_eq!(visible(&server, "spread"), "GPU-a,GPU-b");
    // Nothing of a refusal has stayed: the rest of both is there.
    assert_eq!(seat(&server, "spread", 1)["quota"].as_u64(), Some(8 * GIB));
}

#[test]
fn without_a_gpu_a_model_for_one_says_so_and_others_serve() {
    let server = Supervisor::new()
        .set("devices.nvml", "off")
        .echo("gpu", &on_gpu())
        .echo("cpu", &Echo::default())
        .set("repository.required", "[\"cpu\"]")
        .start();
    let reason = server.wait_for_state("gpu", "UNAVAILABLE");
    assert!(reason.contains("there is no GPU"), "{reason}");
    assert_serves(&server, "cpu");
}

#[test]
fn with_no_software_of_nvidia_nothing_is_said_of_it() {
    let server = Supervisor::with_echo("m").start();
    assert_serves(&server, "m");
    let loud: Vec<_> = server
        .logs()
        .events()
        .into_iter()
        .filter(|event| event["level"] == "WARN" || event["level"] == "ERROR")
        .filter(|event| {
            ["nvml", "GPU", "device"].iter().any(|word| event.to_string().contains(word))
        })
        .collect();
    assert!(loud.is_empty(), "{loud:?}");
}

#[test]
fn a_lost_device_s_models_move_and_their_budget_is_whole() {
    let gpus = Gpus::new(&["GPU-a", "GPU-b"]);
    let server = gpus
        .server()
        .echo("m", &on_gpu())
        .echo("neighbour", &Echo::default())
        .set("restart.max_restarts", "0")
        .start();
    assert_eq!(seat(&server, "m", 1)["devices"], "GPU-a");
    let load = server.load_on("neighbour");
    gpus.say(&Machine::of(&[holding("GPU-a", &[]).lost(15), holding("GPU-b", &[])]));
    crate::stage::assert_exits(&server, "m", &["device_fault"]);
    tests::wait::until_true("another device", || {
        let seats = server.logs().about("m", "worker on devices");
        seats.last().is_some_and(|seat| seat["devices"] == "GPU-b")
    });
    assert_serves(&server, "m");
    load.assert_no_errors();
}

#[test]
fn a_silent_driver_ends_nobody_and_grants_nothing_until_it_answers() {
    let gpus = Gpus::new(&["GPU-a"]);
    let server = gpus
        .server()
        .echo("m", &on_gpu())
        .echo("later", &on_gpu())
        .set("repository.startup", "[\"m\"]")
        .start();
    let worker = server.worker("m");
    gpus.say(&gpus.idle().hangs("*"));
    server.logs().wait_for("silence", |event| event["message"] == "the GPU driver is silent");
    let error = server.client().load("later").assert_status(400).error();
    assert!(error.contains("the GPU driver does not answer"), "{error}");
    assert_serves(&server, "m");
    assert_eq!(server.worker("m"), worker);
    gpus.say(&gpus.idle());
    tests::wait::until_true("a grant", || server.client().load("later").status == 200);
    assert_eq!(server.worker("m"), worker);
}

#[test]
fn a_restart_that_finds_no_room_keeps_the_worker_unless_its_room_will_do() {
    let gpus = Gpus::new(&["GPU-a"]);
    let server = gpus.server().echo("m", &on_gpu()).set("worker.gpu_memory_limit", "6GiB").start();
    let load = server.load_on("m");
    server.told(&["restart", "m"]);
    let worker = server.worker("m");
    assert_eq!(worker.generation, 2, "there was no room for two");
    gpus.say(&gpus.idle().hangs("*"));
    server.logs().wait_for("silence", |event| event["message"] == "the GPU driver is silent");
    let error = server.told_otherwise(&["restart", "m"], 8);
    assert!(error.contains("the GPU driver does not answer"), "{error}");
    assert_eq!(server.worker("m"), worker);
    load.assert_no_errors();
    gpus.say(&gpus.idle());
}
