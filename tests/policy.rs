//! What an end of a worker is called, and what follows it: restart, quarantine, smaller batches, or
//! rest while nobody uses the model.

use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::supervisor::Builder;
use tests::{Echo, Infer, Supervisor, wait};

/// A model whose restarts are quick and never run out.
fn patient(name: &str, echo: &Echo) -> Builder {
    Supervisor::new()
        .echo(name, echo)
        .set("restart.max_restarts", "1000")
        .set("restart.backoff.initial", "20ms")
        .set("restart.backoff.factor", "1.0")
        .set("worker.stop_timeout", "300ms")
}

/// The newest line about an end of a worker of `model`, of so many.
fn exit_line(server: &Supervisor, model: &str, number: usize) -> Value {
    server.logs().wait_for_number(number, model, "worker exited").swap_remove(number - 1)
}

/// The line about the end of this generation.
fn exit_of(server: &Supervisor, model: &str, generation: u64) -> Value {
    server.logs().wait_for("the end of a generation", |event| {
        event["message"] == "worker exited"
            && event["model"] == model
            && event["generation"] == generation
    })
}

/// Has the worker end in a request, which fails one way or another.
#[track_caller]
fn end_in_a_request(server: &Supervisor, command: &str) {
    let answer = server.infer(&Infer::command("m", command));
    assert_ne!(answer.status, 200, "{command}: {}", answer.text());
}

fn idle_after(limit: &str) -> Builder {
    Supervisor::with_echo("m").set("worker.idle_timeout", limit)
}

fn wait_until_it_rests(server: &Supervisor) {
    wait::until_true("an idle model without a worker", || server.workers_of("m").is_empty());
}

#[test]
fn an_end_in_a_request_is_called_by_its_kind() {
    let server = patient("m", &Echo::default()).set("worker.infer_timeout", "400ms").start();
    let ends = [
        ("crash segv", "SIGSEGV"),
        ("crash abort", "SIGABRT"),
        ("crash kill", "SIGKILL"),
        ("crash exit", "code 0"),
        ("crash exit 9", "code 9"),
        ("crash exit 7", "device_oom"),
        ("crash exit 8", "device_fault"),
        ("hang", "hang"),
        ("hang sleep", "hang"),
        ("stop", "hang"),
        ("malformed-fact", "violation"),
        ("forge", "violation"),
        ("flood-bell 10000000", "flood"),
    ];
    for (command, kind) in ends {
        server.infer(&Infer::echo("m")).assert_status(200);
        let generation = server.worker("m").generation;
        let _answered_or_not = server.infer(&Infer::command("m", command));
        let line = exit_of(&server, "m", generation);
        assert_eq!(line["kind"], kind, "{command}: {line}");
        assert!(line["lived_ms"].as_u64() >= line["healthy_ms"].as_u64(), "{line}");
    }
}

#[test]
fn what_was_in_flight_at_the_end_is_counted() {
    let server = patient("m", &Echo::default()).start();
    let _not_waited_for = server.hang("m");
    let worker = server.worker("m");
    worker.kill(Signal::SIGKILL);
    let line = exit_of(&server, "m", worker.generation);
    assert_eq!((&line["kind"], &line["in_flight"]), (&"SIGKILL".into(), &1.into()), "{line}");
}

#[test]
fn an_end_in_a_load_is_called_by_its_kind_and_named_in_the_index() {
    let cases = [
        ("load_fail", "no such luck", "load_error"),
        ("load_fail_transient", "not now", "load_error"),
        ("load_crash", "segv", "SIGSEGV"),
        ("load_crash", "exit 5", "load_error"),
        ("load_crash", "exit", "code 0"),
        ("load_delay_ms", "60000", "start_timeout"),
    ];
    let named = cases.iter().enumerate().map(|(i, case)| (format!("m{i}"), case));
    let builder = named.clone().fold(Supervisor::with_echo("good"), |builder, (name, case)| {
        let limit = if case.2 == "start_timeout" { "300ms" } else { "1m" };
        builder
            .echo(&name, &Echo::default().parameter(case.0, case.1))
            .set(&format!("models.{name}.load_timeout"), limit)
    });
    let server = builder
        .set("repository.required", r#"["good"]"#)
        .set("restart.max_restarts", "0")
        .set("worker.stop_timeout", "200ms")
        .start();
    for (name, (parameter, value, kind)) in named {
        let line = exit_line(&server, &name, 1);
        assert_eq!(line["kind"], *kind, "{parameter} {value}: {line}");
        let reason = server.wait_for_state(&name, "UNAVAILABLE");
        assert!(reason.contains(&format!("{kind}: ")), "{parameter} {value}: {reason}");
        assert!(reason.contains("/load) clears this"), "{reason}");
    }
}

#[test]
fn a_worker_that_nobody_wants_is_retired_and_one_that_ends_with_the_server_is_clean() {
    let mut server = Supervisor::with_echo("m").start();
    server.client().unload("m").assert_status(200);
    let line = exit_line(&server, "m", 1);
    assert_eq!((&line["kind"], &line["level"]), (&"retired".into(), &"INFO".into()), "{line}");
    server.client().load("m").assert_status(200);
    server.signal(Signal::SIGTERM);
    server.wait_for_exit();
    assert_eq!(exit_line(&server, "m", 2)["kind"], "clean");
}

#[test]
fn a_restart_says_in_the_index_what_it_is_for_and_how_many_are_left() {
    let server = Supervisor::with_echo("m").set("restart.backoff.initial", "30s").start();
    let _not_waited_for = server.infer_aside(Infer::command("m", "crash segv"));
    let reason = server.wait_for_state("m", "LOADING");
    assert!(reason.contains("(1 of 5 within 60s): SIGSEGV: "), "{reason}");
}

#[test]
fn a_kind_that_is_never_retried_is_quarantined_until_the_model_is_loaded_again() {
    let server = patient("m", &Echo::default())
        .set("restart.no_retry_on", r#"["code 9", "SIGABRT"]"#)
        .start();
    end_in_a_request(&server, "crash segv");
    server.infer(&Infer::echo("m")).assert_status(200);
    for (command, kind) in [("crash exit 9", "code 9"), ("crash abort", "SIGABRT")] {
        end_in_a_request(&server, command);
        let reason = server.wait_for_state("m", "UNAVAILABLE");
        assert!(reason.contains(&format!("no_retry_on says for {kind}")), "{reason}");
        server.infer(&Infer::echo("m")).assert_status(404);
        server.client().load("m").assert_status(200);
        server.infer(&Infer::echo("m")).assert_status(200);
    }
}

#[test]
fn memory_that_ran_out_stops_a_model_if_so_configured() {
    let server = patient("m", &Echo::default()).set("models.m.restart.on_oom", "stop").start();
    end_in_a_request(&server, "crash exit 7");
    let reason = server.wait_for_state("m", "UNAVAILABLE");
    assert!(reason.contains("on_oom") && reason.contains("device_oom"), "{reason}");
    server.infer(&Infer::echo("m")).assert_status(404);
    server.client().load("m").assert_status(200);
    server.infer(&Infer::echo("m")).assert_status(200);
}

#[test]
fn memory_that_ran_out_makes_batches_smaller_if_so_configured() {
    let batches = Echo::default().with("max_batch_size: 8");
    let server = patient("m", &batches).set("restart.on_oom", "restart_with_smaller_batch").start();
    let rows =
        |rows: usize| Infer::new("m").tensor("INPUT0", "FP32", &[rows, 1], &vec![0; 4 * rows]);
    let command = b"\x0c\0\0\0crash exit 7";
    let oom = rows(1).tensor("COMMAND", "BYTES", &[1, 1], command);
    server.infer(&rows(8)).assert_status(200);
    assert_ne!(server.infer(&oom).status, 200);
    server.infer(&rows(1)).assert_status(200);
    // Halved for each worker that the request ended.
    let ended = server.logs().about("m", "worker exited").len();
    let most = 8 >> ended;
    server.infer(&rows(most)).assert_status(200);
    let answer = server.infer(&rows(most + 1));
    let cap = format!("batches of at most {most}");
    assert!(answer.assert_status(507).error().contains(&cap), "{}", answer.text());
    let reason = server.wait_for_state("m", "READY");
    assert!(reason.contains(&cap), "{reason}");
    server.client().load("m").assert_status(200);
    server.infer(&rows(8)).assert_status(200);
}

#[test]
fn an_idle_model_gives_up_its_worker_and_stays_ready() {
    let server = idle_after("150ms").start();
    for round in 1..=3 {
        wait_until_it_rests(&server);
        assert_eq!(exit_line(&server, "m", round)["kind"], "retired");
        let reason = server.wait_for_state("m", "READY");
        assert!(reason.contains("idle"), "{reason}");
        assert!(server.client().is_ready("m"));
        assert_eq!(server.client().get("/v2/health/ready").status, 200);
        server.infer(&Infer::echo("m")).assert_status(200);
    }
}

#[test]
fn requests_that_wake_a_model_start_one_worker() {
    let slow = Echo::default().parameter("load_delay_ms", "300");
    let server = Supervisor::new().echo("m", &slow).set("worker.idle_timeout", "100ms").start();
    wait_until_it_rests(&server);
    let requests = [(); 8].map(|()| server.infer_aside(Infer::echo("m")));
    wait::until_true("a worker that starts", || !server.workers_of("m").is_empty());
    assert!(server.client().is_ready("m"), "it will serve what is sent");
    for request in requests {
        request.answer().assert_status(200);
    }
    assert_eq!(server.logs().about("m", "worker started").len(), 2, "at the start, and now");
}

#[test]
fn a_model_that_is_used_does_not_rest() {
    let server = idle_after("600ms").start();
    let worker = server.worker("m");
    let slow = server.infer_aside(Infer::command("m", "delay 1500ms"));
    slow.answer().assert_status(200);
    assert!(worker.is_alive(), "a long request is not an idle model");
    wait_until_it_rests(&server);
}

#[test]
fn a_model_that_is_used_now_and_then_loses_no_request() {
    let server = idle_after("1ms").start();
    for _ in 0..20 {
        server.infer(&Infer::echo("m")).assert_status(200);
        // As close as can be to the moment at which the worker goes.
        wait::until_true("a worker on its way out", || {
            let withdrawn = server.logs().about("m", "route withdrawn").len();
            withdrawn >= server.logs().about("m", "route published").len()
        });
    }
}

#[test]
fn all_instances_rest_and_come_back() {
    let server = idle_after("150ms").set("models.m.instances", "3").start();
    wait_until_it_rests(&server);
    server.infer(&Infer::echo("m")).assert_status(200);
    wait_until_it_rests(&server);
}

#[test]
fn a_model_at_rest_is_unloaded_and_loaded_as_any_other() {
    let server = idle_after("150ms").start();
    wait_until_it_rests(&server);
    server.client().unload("m").assert_status(200);
    server.infer(&Infer::echo("m")).assert_status(404);
    server.client().load("m").assert_status(200);
    wait_until_it_rests(&server);
    server.client().load("m").assert_status(200);
    server.infer(&Infer::echo("m")).assert_status(200);
}

#[test]
fn what_the_server_lacks_is_waited_for_and_blamed_on_no_model() {
    let test = "what_the_server_lacks_is_waited_for_and_blamed_on_no_model";
    let server = patient("m", &Echo::default()).set("restart.max_restarts", "1").start();
    let most = |descriptors: u32| {
        let (pid, limit) = (server.pid().to_string(), format!("--nofile={descriptors}:4096"));
        Command::new("prlimit").args(["--pid", &pid, &limit]).status()
    };
    let mut client = server.client();
    assert!(client.is_ready("m"), "the connection that is kept");
    if !most(3).is_ok_and(|status| status.success()) {
        return tests::skipped(test, "there is no prlimit, or it may not");
    }
    server.worker("m").kill(Signal::SIGKILL);
    wait::until_true("tries that cost nothing", || {
        server.logs().about("m", "worker exited").len() > 4
    });
    let listed = client.index("m").swap_remove(0);
    assert_eq!(listed.state, "LOADING", "{}", listed.reason);
    assert!(most(4096).is_ok_and(|status| status.success()));
    wait::until_true("a worker again", || client.is_ready("m"));
    let line = exit_line(&server, "m", 2);
    assert_eq!(line["kind"], "spawn_failed", "{line}");
    server.infer(&Infer::echo("m")).assert_status(200);
}

#[test]
fn a_hang_behind_long_requests_is_found_by_its_own_time() {
    let server = patient("m", &Echo::default()).set("worker.infer_timeout", "1500ms").start();
    let long = [(); 3].map(|()| server.infer_aside(Infer::command("m", "delay 400ms")));
    wait::until_true("the first of them", || long.iter().any(|request| request.is_finished()));
    let hanging = server.infer_aside(Infer::command("m", "hang sleep"));
    for request in long {
        request.answer().assert_status(200);
    }
    hanging.answer().assert_status(504);
    assert_eq!(exit_line(&server, "m", 1)["kind"], "hang");
    server.infer(&Infer::echo("m")).assert_status(200);
}
