//! Loading, unloading and replacing models over HTTP, and models that cannot be loaded.

use serde_json::json;
use tests::{Echo, Infer, Supervisor};

#[test]
fn unload_answers_when_the_process_is_gone() {
    let server = Supervisor::with_echo("m").start();
    let mut client = server.client();
    for _ in 0..10 {
        let worker = server.worker("m");
        client.unload("m").assert_status(200);
        assert!(!worker.is_alive());
        assert!(!client.is_ready("m"));
        server.infer(&Infer::echo("m")).assert_status(404);
        client.load("m").assert_status(200);
        assert!(client.is_ready("m"));
        server.infer(&Infer::echo("m")).assert_status(200);
    }
}

#[test]
fn an_unload_lets_a_request_finish() {
    let slow = Echo::default().parameter("delay_us", "300000");
    let server = Supervisor::new().echo("m", &slow).start();
    let answer = server.infer_aside(Infer::command("m", "print the request has come"));
    server.logs().wait_for("a request", |event| event["message"] == "the request has come");
    server.client().unload("m").assert_status(200);
    answer.answer().assert_status(200);
    assert!(server.workers().is_empty());
}

#[test]
fn an_unload_can_be_answered_before_its_processes_are_gone() {
    let server = Supervisor::with_echo("m").start();
    let (worker, hanging) = (server.worker("m"), server.hang("m"));
    let mut client = server.client();
    let unload = "/v2/repository/models/m/unload";
    client.post(unload, r#"{"parameters":{"wait":false}}"#).assert_status(200);
    assert!(worker.is_alive() && !client.is_ready("m"));
    server.infer(&Infer::echo("m")).assert_status(503);
    client.post(unload, r#"{"parameters":{"wait":1}}"#).assert_status(400);
    worker.signal(nix::sys::signal::Signal::SIGKILL);
    client.unload("m").assert_status(200);
    assert!(!worker.is_alive());
    drop(hanging);
}

#[test]
fn a_reload_under_load_fails_no_request() {
    let server = Supervisor::with_echo("m").start();
    let load = server.load_on("m");
    for _ in 0..5 {
        let worker = server.worker("m");
        load.wait_for_more(10);
        server.client().load("m").assert_status(200);
        load.wait_for_more(10);
        tests::wait::until_true("the end of the old worker", || !worker.is_alive());
    }
    load.assert_no_errors();
}

#[test]
fn a_reload_that_fails_leaves_what_serves() {
    let server = Supervisor::with_echo("m").start();
    let (load, worker) = (server.load_on("m"), server.worker("m"));
    server.repository().echo("m", &Echo::default().parameter("load_fail", "no such luck"));
    let answer = server.client().load("m");
    assert!(answer.assert_status(400).error().contains("no such luck"), "{}", answer.text());
    assert!(worker.is_alive());
    load.wait_for_more(10);
    load.assert_no_errors();
}

#[test]
fn bad_models_are_listed_and_keep_nothing_from_serving() {
    let server = Supervisor::with_echo("good")
        .config("unreadable", "backend: {")
        .config("engineless", r#"backend: "astrology""#)
        .echo("unloadable", &Echo::default().parameter("load_fail", "no such luck"))
        .echo("versionless", &Echo::default().versions(&[]))
        .set("repository.required", r#"["good"]"#)
        .start();
    std::fs::create_dir(server.repository().path().join("empty")).unwrap();
    server.infer(&Infer::echo("good")).assert_status(200);
    let parts = [
        ("unreadable", "config.pbtxt"),
        ("engineless", "astrology"),
        ("unloadable", "no such luck"),
        ("versionless", "no version folder"),
    ];
    for (model, part) in parts {
        let reason = server.wait_for_state(model, "UNAVAILABLE");
        assert!(reason.contains(part), "{model}: {reason}");
        let answer = server.client().load(model);
        assert!(answer.assert_status(400).error().contains(part), "{}", answer.text());
    }
    let answer = server.client().load("empty");
    assert!(answer.assert_status(400).error().contains("no config.pbtxt"), "{}", answer.text());
}

#[test]
fn unknown_models_cannot_be_loaded() {
    let server = Supervisor::new().start();
    let mut client = server.client();
    for model in ["nobody", "..", "%2e%2e%2fetc", "a%2fb"] {
        let answer = client.load(model);
        assert!((400..500).contains(&answer.status), "{model}: {}", answer.text());
        assert!((400..500).contains(&client.unload(model).status), "{model}");
    }
    assert!(server.workers().is_empty());
}

#[test]
fn nothing_is_loaded_at_the_start_if_so_configured() {
    let server = Supervisor::with_echo("m").set("repository.startup", "none").start();
    assert!(server.workers().is_empty());
    assert_eq!(server.client().index("m").len(), 1);
    server.client().load("m").assert_status(200);
    server.infer(&Infer::echo("m")).assert_status(200);
    server.repository().echo("new", &Echo::default());
    server.client().load("new").assert_status(200);
    server.infer(&Infer::echo("new")).assert_status(200);
}

#[test]
fn disabled_models_are_listed_and_stay_unloaded() {
    let server = Supervisor::with_echo("m").set("models.m.enabled", "false").start();
    assert!(server.wait_for_state("m", "UNAVAILABLE").contains("disabled"));
    let answer = server.client().load("m");
    assert!(answer.assert_status(400).error().contains("disabled"), "{}", answer.text());
}

#[test]
fn instances_share_the_work_and_stand_in_for_each_other() {
    let server = Supervisor::with_echo("m")
        .set("models.m.instances", "3")
        .set("models.m.slots", "1")
        .start();
    tests::wait::until_true("all instances", || server.workers_of("m").len() == 3);
    server.wait_for_instances("m", 3);
    let hanging = [(); 2].map(|()| server.infer_aside(Infer::command("m", "hang sleep")));
    let load = server.load_on("m");
    load.wait_for_more(20);
    let instances: Vec<u64> = server.workers_of("m").iter().map(|w| w.instance).collect();
    assert_eq!(instances, [0, 1, 2]);
    assert!(hanging.iter().all(|request| !request.is_finished()));
    load.assert_no_errors();
}

#[test]
fn version_policies_choose_what_is_served() {
    let with = |policy| Echo::default().versions(&[1, 2, 10]).with(policy);
    let server = Supervisor::new()
        .echo("latest", &with(""))
        .echo("latest2", &with("version_policy { latest { num_versions: 2 } }"))
        .echo("all", &with("version_policy { all {} }"))
        .echo("some", &with("version_policy { specific { versions: [1, 2] } }"))
        .start();
    let expected: [(&str, &[u64]); 4] =
        [("latest", &[10]), ("latest2", &[2, 10]), ("all", &[1, 2, 10]), ("some", &[1, 2])];
    for (model, versions) in expected {
        server.wait_for_instances(model, versions.len());
        let running: Vec<u64> = server.workers_of(model).iter().map(|w| w.version).collect();
        assert_eq!(running, versions, "{model}");
        for version in [1, 2, 10] {
            let answer = server.infer(&Infer::echo(model).version(version));
            let status = if versions.contains(&version) { 200 } else { 404 };
            answer.assert_status(status);
        }
        let answer = server.infer(&Infer::echo(model));
        assert_eq!(answer.json()["model_version"], json!(versions.last().unwrap().to_string()));
    }
}

#[test]
fn a_reload_takes_a_new_version_and_drops_the_old_one() {
    let server = Supervisor::with_echo("m").start();
    let load = server.load_on("m");
    server.repository().version("m", 2);
    server.client().load("m").assert_status(200);
    load.wait_for_more(10);
    let answer = server.infer(&Infer::echo("m"));
    assert_eq!(answer.json()["model_version"], "2");
    tests::wait::until_true("one worker", || server.workers_of("m").len() == 1);
    server.infer(&Infer::echo("m").version(1)).assert_status(404);
    load.assert_no_errors();
}

#[test]
fn a_version_that_crashes_leaves_the_others() {
    let both = Echo::default().versions(&[1, 2]).with("version_policy { all {} }");
    let server = Supervisor::new().echo("m", &both).set("restart.max_restarts", "0").start();
    server.wait_for_instances("m", 2);
    let crashed = server.infer(&Infer::command("m", "crash segv"));
    // There is no worker to try it again with, and no promise that it did not run.
    assert!(crashed.assert_status(500).error().contains("not tried again"), "{}", crashed.text());
    server.wait_for_state("m", "UNAVAILABLE");
    let answer = server.infer(&Infer::echo("m"));
    assert_eq!(answer.assert_status(200).json()["model_version"], "1");
    server.infer(&Infer::echo("m").version(2)).assert_status(404);
}

#[test]
fn workers_beyond_the_limit_are_denied_with_the_reason() {
    let server = Supervisor::with_echo("a")
        .echo("b", &Echo::default())
        .set("repository.startup", "none")
        .set("limits.max_workers", "1")
        .start();
    server.client().load("a").assert_status(200);
    let answer = server.client().load("b");
    assert!(answer.assert_status(400).error().contains("limits.max_workers"), "{}", answer.text());
    let reason = server.wait_for_state("b", "UNAVAILABLE");
    assert!(reason.contains("limits.max_workers"), "{reason}");
    server.client().unload("a").assert_status(200);
    server.client().load("b").assert_status(200);
    server.infer(&Infer::echo("b")).assert_status(200);
}

#[test]
fn repository_control_can_be_switched_off() {
    let server = Supervisor::with_echo("m").set("http.repository_control", "false").start();
    server.client().unload("m").assert_status(403);
    server.client().load("m").assert_status(403);
    server.infer(&Infer::echo("m")).assert_status(200);
}

#[test]
fn memory_beyond_the_limit_is_denied_with_the_reason() {
    let server = Supervisor::with_echo("a")
        .set("worker.slot_size", "1MiB")
        .set("worker.slots", "8")
        .set("limits.arena_memory", "20MiB")
        .start();
    server.repository().echo("b", &Echo::default());
    let answer = server.client().load("b");
    assert!(answer.assert_status(400).error().contains("arena_memory"), "{}", answer.text());
    server.infer(&Infer::echo("a")).assert_status(200);
}

#[test]
fn an_unload_ends_a_load() {
    let slow = Echo::default().parameter("load_delay_ms", "60000");
    let server = Supervisor::new().echo("m", &slow).set("repository.startup", "none").start();
    let mut client = server.client();
    let loading = std::thread::spawn(move || client.load("m"));
    tests::wait::until_true("a worker", || server.workers_of("m").len() == 1);
    server.client().unload("m").assert_status(200);
    assert!(server.workers().is_empty());
    let answer = loading.join().unwrap();
    assert!(answer.assert_status(503).error().contains("unloaded"), "{}", answer.text());
}

#[test]
fn loads_and_unloads_at_once_end_in_the_last_one() {
    let server = Supervisor::with_echo("m").start();
    let operator = |number: usize| {
        let mut client = server.client();
        std::thread::spawn(move || {
            for i in 0..6 {
                let answer = if (number + i).is_multiple_of(3) {
                    client.unload("m")
                } else {
                    client.load("m")
                };
                assert!([200, 503].contains(&answer.status), "{} {}", answer.status, answer.text());
            }
        })
    };
    let operators: Vec<_> = (0..4).map(operator).collect();
    for operator in operators {
        operator.join().unwrap();
    }
    server.client().load("m").assert_status(200);
    server.infer(&Infer::echo("m")).assert_status(200);
    tests::wait::until_true("one worker", || server.workers().len() == 1);
    server.client().unload("m").assert_status(200);
    assert!(server.workers().is_empty());
}

#[test]
fn a_torchscript_file_needs_no_configuration() {
    let test = "a_torchscript_file_needs_no_configuration";
    let Some(models) = tests::folder_or_skip("BULKHEAD_TEST_MODELS", test) else { return };
    if !tests::supervisor::binaries().join("bulkhead-worker-torch").exists() {
        return tests::skipped(test, "bulkhead-worker-torch was not built; use scripts/test");
    }
    let server = Supervisor::with_echo("echo").torch("t", &models.join("identity.pt")).start();
    let infer = Infer::new("t").tensor("x", "FP32", &[2], &[0, 0, 128, 63, 0, 0, 0, 64]);
    let answer = server.infer(&infer);
    assert!(infer.is_echoed_by(&answer), "{} {}", answer.status, answer.text());
    assert!(server.worker("t").maps().contains("libtorch"));
    assert!(!server.worker("echo").maps().contains("libtorch"));
}
