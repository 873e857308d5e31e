//! A worker that ends, hangs or is stopped in the middle of requests: its requests get an error, it
//! comes back, and its neighbour notices nothing.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tests::supervisor::Builder;
use tests::workers::WorkerProcess;
use tests::{Echo, Infer, Supervisor, wait};

/// What a worker may take over a request, and then some: a server that counts it would end the worker.
const LIMIT: Duration = Duration::from_millis(500);
const LONGER: Duration = Duration::from_secs(3);

/// A model for faults, and one that must not notice them. Restarts are quick and never run out.
fn victim_and_neighbour() -> Builder {
    Supervisor::with_echo("victim")
        .echo("neighbour", &Echo::default())
        .set("restart.max_restarts", "1000")
        .set("restart.backoff.initial", "20ms")
        .set("restart.backoff.factor", "1.0")
}

#[track_caller]
fn assert_serves(server: &Supervisor, model: &str) {
    let echo = Infer::echo(model);
    let answer = server.infer(&echo);
    assert!(echo.is_echoed_by(&answer), "{} {}", answer.status, answer.text());
}

#[test]
fn a_worker_that_is_killed_in_a_request_fails_only_that() {
    // It is the same request each time, and not it that kills.
    let server = victim_and_neighbour().set("worker.poison_after", "0").start();
    let neighbour = server.load_on("neighbour");
    for signal in [Signal::SIGKILL, Signal::SIGSEGV, Signal::SIGABRT, Signal::SIGTERM] {
        let (worker, hanging) = (server.worker("victim"), server.hang("victim"));
        worker.kill(signal);
        let answer = hanging.answer();
        answer.assert_status(500);
        assert!(answer.error().contains("the worker of model 'victim' ended"), "{signal}");
        assert_serves(&server, "victim");
        assert!(server.worker("victim").generation > worker.generation);
    }
    neighbour.assert_no_errors();
}

#[test]
fn a_worker_that_crashes_fails_only_the_request_that_it_had() {
    let server = victim_and_neighbour().start();
    let neighbour = server.load_on("neighbour");
    for crash in ["segv", "abort", "kill", "exit", "exit 3"] {
        let worker = server.worker("victim");
        let answer = server.infer(&Infer::command("victim", &format!("crash {crash}")).once());
        assert_eq!(answer.status, 500, "{crash}: {}", answer.text());
        assert_serves(&server, "victim");
        assert!(server.worker("victim").generation > worker.generation, "{crash}");
    }
    neighbour.assert_no_errors();
}

/// Rust's handler takes itself away and returns, for the fault to come again. One that was sent does not.
#[test]
fn a_signal_that_a_thread_survives_does_not_end_its_worker() {
    let server = Supervisor::with_echo("m").start();
    let worker = server.worker("m");
    let before = worker.caught_signals();
    worker.signal_thread("control", Signal::SIGSEGV);
    wait::until_true("a handler that has run", || worker.caught_signals() != before);
    for _ in 0..20 {
        server.infer(&Infer::echo("m")).assert_status(200);
    }
    assert_eq!(server.worker("m"), worker);
    server.client().unload("m").assert_status(200);
    let exits = server.logs().wait_for_number(1, "m", "worker exited");
    assert_eq!(exits[0]["kind"], "retired", "{exits:?}");
}

#[test]
fn every_end_is_logged_with_how_and_when() {
    let server = victim_and_neighbour().start();
    for crash in ["segv", "exit 3"] {
        server
            .infer(&Infer::command("victim", &format!("crash {crash}")).once())
            .assert_status(500);
        assert_serves(&server, "victim");
    }
    let exits = server.logs().wait_for_number(2, "victim", "worker exited");
    let how: Vec<&str> = exits.iter().filter_map(|exit| exit["how"].as_str()).collect();
    assert!(how[0].contains("signal 11") && how[1].contains("code 3"), "{how:?}");
    assert_eq!(exits[0]["generation"], 1);
    assert_eq!(exits[0]["during"], "ready");
}

#[test]
fn a_hang_gets_a_deadline_error_and_a_new_worker() {
    let hangs = ["hang", "hang sleep", "stop"];
    let victims = (0..).zip(hangs).fold(victim_and_neighbour(), |builder, (i, _)| {
        builder
            .echo(&format!("v{i}"), &Echo::default())
            .set(&format!("models.v{i}.infer_timeout"), "500ms")
            .set(&format!("models.v{i}.stop_timeout"), "200ms")
    });
    let server = victims.start();
    let neighbour = server.load_on("neighbour");
    let aside = |(i, hang): (usize, &&str)| {
        let model = format!("v{i}");
        (server.infer_aside(Infer::command(&model, hang)), server.worker(&model), model)
    };
    let hanging: Vec<_> = hangs.iter().enumerate().map(aside).collect();
    for (answer, worker, model) in hanging {
        answer.answer().assert_status(504);
        wait::until_true("the end of a worker that hangs", || !worker.is_alive());
        assert_serves(&server, &model);
        assert!(server.worker(&model).generation > worker.generation);
    }
    neighbour.assert_no_errors();
}

#[test]
fn a_hang_that_ignores_sigterm_is_killed() {
    let server = Supervisor::with_echo("victim")
        .set("worker.infer_timeout", "300ms")
        .set("worker.stop_timeout", "200ms")
        .start();
    let worker = server.worker("victim");
    server.infer(&Infer::command("victim", "ignore-term")).assert_status(200);
    server.infer(&Infer::command("victim", "hang")).assert_status(504);
    wait::until_true("the end of a worker that hangs", || !worker.is_alive());
    server.wait_until_ready("victim");
}

#[test]
fn requests_that_wait_for_a_slot_outlive_the_worker() {
    let server = Supervisor::with_echo("victim").set("worker.slots", "1").start();
    let (worker, hanging) = (server.worker("victim"), server.hang("victim"));
    let waiting: Vec<_> = (0..5).map(|_| server.infer_aside(Infer::echo("victim"))).collect();
    worker.kill(Signal::SIGKILL);
    hanging.answer().assert_status(500);
    for answer in waiting {
        answer.answer().assert_status(200);
    }
}

#[test]
fn a_worker_that_breaks_the_protocol_is_replaced() {
    let server = victim_and_neighbour()
        .set("models.victim.infer_timeout", "2s")
        .set("models.victim.stop_timeout", "200ms")
        .start();
    let neighbour = server.load_on("neighbour");
    for attack in ["malformed-fact", "forge", "scribble"] {
        let worker = server.worker("victim");
        let answer = server.infer(&Infer::command("victim", attack).once());
        assert!([200, 500, 504].contains(&answer.status), "{attack}: {}", answer.text());
        wait::until_true("the end of a hostile worker", || !worker.is_alive());
        assert_serves(&server, "victim");
    }
    neighbour.assert_no_errors();
}

#[test]
fn a_model_that_crashes_in_loading_is_quarantined_until_it_is_loaded_again() {
    let server = Supervisor::with_echo("neighbour")
        .echo("victim", &Echo::default().parameter("load_crash", "segv"))
        .set("repository.required", r#"["neighbour"]"#)
        .set("restart.max_restarts", "2")
        .set("restart.backoff.initial", "10ms")
        .start();
    let neighbour = server.load_on("neighbour");
    let reason = server.wait_for_state("victim", "UNAVAILABLE");
    assert!(reason.contains("signal 11"), "{reason}");
    let exits = server.logs().wait_for_number(3, "victim", "worker exited");
    assert_eq!(exits.len(), 3, "one start, two restarts");
    server.infer(&Infer::echo("victim")).assert_status(404);
    server.client().load("victim").assert_status(400);
    server.repository().echo("victim", &Echo::default());
    server.client().load("victim").assert_status(200);
    assert_serves(&server, "victim");
    neighbour.assert_no_errors();
}

#[test]
fn a_model_that_crashes_too_often_is_quarantined_until_it_is_loaded_again() {
    let server = victim_and_neighbour().set("restart.max_restarts", "2").start();
    let neighbour = server.load_on("neighbour");
    for crash in ["crash abort", " crash abort", "crash  abort"] {
        server.infer(&Infer::command("victim", crash).once()).assert_status(500);
    }
    let reason = server.wait_for_state("victim", "UNAVAILABLE");
    assert!(reason.contains("signal 6"), "{reason}");
    server.infer(&Infer::echo("victim")).assert_status(404);
    assert!(server.workers_of("victim").is_empty());
    server.client().load("victim").assert_status(200);
    assert_serves(&server, "victim");
    neighbour.assert_no_errors();
}

#[test]
fn a_client_in_a_hurry_does_not_have_a_slow_worker_killed() {
    // Longer than the grace after which a worker without progress would count as hung.
    let slow = Echo::default().parameter("delay_us", "1300000");
    let server = Supervisor::new().echo("slow", &slow).start();
    let worker = server.worker("slow");
    let patient = server.infer_aside(Infer::echo("slow"));
    let hurry = r#"{"parameters":{"timeout":1000},"inputs":
        [{"name":"INPUT0","datatype":"FP32","shape":[1],"data":[1]}]}"#;
    let answer = server.client().post("/v2/models/slow/infer", hurry);
    assert!([503, 504].contains(&answer.status), "{} {}", answer.status, answer.text());
    patient.answer().assert_status(200);
    assert_serves(&server, "slow");
    assert_eq!(server.worker("slow").generation, worker.generation);
}

#[test]
fn an_upload_outlives_the_worker_that_it_was_for() {
    let server = victim_and_neighbour().start();
    let infer = Infer::new("victim").floats(&[1.5; 30_000]);
    let (json, body) = infer.binary();
    let head = format!(
        "POST /v2/models/victim/infer HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\
         Inference-Header-Content-Length: {json}\r\n\r\n",
        body.len()
    );
    let mut client = server.client();
    client.send(&[head.as_bytes(), &body[..80_000]].concat()).unwrap();
    let worker = server.worker("victim");
    worker.kill(Signal::SIGKILL);
    server.wait_for_generation("victim", worker.generation + 1);
    client.send(&body[80_000..]).unwrap();
    assert!(infer.is_echoed_by(&client.receive().unwrap()));
}

/// A request is in the works when the server stops, for longer than its worker may take over it.
#[track_caller]
fn stalls(answered: Answered) {
    let server = victim_and_neighbour()
        .set("worker.infer_timeout", &format!("{}ms", LIMIT.as_millis()))
        .set("worker.stop_timeout", "200ms")
        .start();
    let (worker, neighbour) = (server.worker("victim"), server.worker("neighbour"));
    let asked = server.infer_aside(Infer::command("victim", "stop").once());
    worker.wait_until_stopped();
    let start = Instant::now();
    server.stop();
    if answered == Answered::Meanwhile {
        worker.signal(Signal::SIGCONT);
    }
    wait::until_passed(start, LONGER);
    worker.signal(Signal::SIGCONT);
    server.signal(Signal::SIGCONT);
    let answer = asked.answer();
    let expected: &[u16] = if answered == Answered::Meanwhile { &[200] } else { &[200, 504] };
    assert!(expected.contains(&answer.status), "{} {}", answer.status, answer.text());
    // It judges again, as long after as it would have taken to find what was overdue by then.
    server.infer(&Infer::command("neighbour", "hang").once()).assert_status(504);
    let exits = server.logs().wait_for_number(1, "neighbour", "worker exited");
    assert_eq!(exits[0]["kind"], "hang", "{exits:?}");
    assert_serves(&server, "victim");
    assert_eq!(server.worker("victim"), worker);
    assert!(!neighbour.is_alive());
}

/// When a worker answers whose server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answered {
    Meanwhile,
    /// It was stopped as well, as when a whole machine is.
    After,
}

#[test]
fn a_server_that_was_stopped_takes_in_the_answer_before_it_judges() {
    stalls(Answered::Meanwhile);
}

#[test]
fn time_in_which_the_server_was_stopped_is_held_against_nobody() {
    stalls(Answered::After);
}

/// Has the worker of `model` leave a process that is nobody's child, and finds it: it has the line of
/// the worker whose copy it is.
fn orphan_of(server: &Supervisor, model: &str) -> WorkerProcess {
    let worker = server.worker(model);
    server.infer(&Infer::command(model, "orphan")).assert_status(200);
    wait::until("an orphan that came to the server", || {
        let others = server.workers_of(model).into_iter().filter(|other| other.pid != worker.pid);
        let mut ours = others.filter(|other| other.parent() == Some(server.pid()));
        ours.next()
    })
}

/// With control groups, which know what a worker has started, and by the marks on a process alone.
#[test]
fn what_one_worker_leaves_goes_with_it_and_not_with_another() {
    for cgroup in ["auto", "off"] {
        let server = victim_and_neighbour()
            .set("limits.cgroup", cgroup)
            .set("worker.confinement", "none")
            .start();
        let helper = orphan_of(&server, "neighbour");
        for _ in 0..2 {
            let worker = server.worker("victim");
            let left = orphan_of(&server, "victim");
            worker.kill(Signal::SIGKILL);
            wait::until_true("the end of what it left", || !left.is_alive());
            server.wait_for_generation("victim", worker.generation + 1);
        }
        assert!(helper.is_alive(), "{cgroup}: it went with the worker of another model");
        assert_serves(&server, "neighbour");
        server.client().unload("neighbour").assert_status(200);
        wait::until_true("the end of the helper", || !helper.is_alive());
    }
}
