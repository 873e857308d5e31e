//! How the server ends: by itself with everything answered, or by force with nothing left behind.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tests::workers::workers_of;
use tests::{Echo, Infer, Supervisor, wait};

fn wait_until_it_drains(server: &Supervisor) {
    server.logs().wait_for("draining", |event| {
        event["message"].as_str().is_some_and(|message| message.starts_with("draining"))
    });
}

#[test]
fn sigterm_lets_requests_finish() {
    let slow = Echo::default().parameter("delay_us", "500000");
    let mut server = Supervisor::new().echo("slow", &slow).start();
    let answer = server.infer_aside(Infer::command("slow", "print the request has come"));
    server.logs().wait_for("a request", |event| event["message"] == "the request has come");
    server.signal(Signal::SIGTERM);
    answer.answer().assert_status(200);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    assert!(!server.runtime_file().exists());
    assert!(server.workers().is_empty());
    assert_eq!(became_of_requests(&server), [1, 0, 0]);
}

/// Of those that there were from the first signal on, as the last line says it: finished, refused,
/// broken off.
fn became_of_requests(server: &Supervisor) -> [u64; 3] {
    let last = server.logs().wait_for("the last line", |event| event["message"] == "ended");
    ["finished", "refused", "broken_off"].map(|key| last[key].as_u64().expect("it is counted"))
}

#[test]
fn readiness_ends_first_and_the_rest_goes_on_for_the_grace_time() {
    let mut server = Supervisor::with_echo("m").set("shutdown.grace", "1h").start();
    server.signal(Signal::SIGTERM);
    wait::until_true("the end of readiness", || {
        server.client().get("/v2/health/ready").status == 503
    });
    server.client().get("/v2/health/live").assert_status(200);
    let answer = server.infer(&Infer::echo("m"));
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(4));
    assert_eq!(became_of_requests(&server), [1, 0, 0]);
}

#[test]
fn clients_that_look_at_readiness_lose_nothing() {
    let mut server = Supervisor::with_echo("m").set("shutdown.grace", "5s").start();
    let load = server.load_on("m");
    load.wait_for_more(50);
    server.signal(Signal::SIGTERM);
    wait::until_true("the end of readiness", || {
        server.client().get("/v2/health/ready").status == 503
    });
    load.wait_for_more(10);
    load.assert_no_errors();
    assert_eq!(server.wait_for_exit().code(), Some(0));
    let [finished, refused, broken_off] = became_of_requests(&server);
    assert!(finished >= 10 && (refused, broken_off) == (0, 0), "{finished} {refused} {broken_off}");
}

#[test]
fn sigterm_lets_a_body_arrive() {
    let mut server = Supervisor::with_echo("m").start();
    let (length, body) = Infer::echo("m").binary();
    let head = format!(
        "POST /v2/models/m/infer HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\
         Inference-Header-Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    let mut client = server.client();
    client.send(head.as_bytes()).unwrap();
    assert_eq!(client.receive_head().unwrap().status, 100);
    server.signal(Signal::SIGTERM);
    wait_until_it_drains(&server);
    client.send(&body).unwrap();
    client.receive().unwrap().assert_status(200);
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[test]
fn a_draining_server_takes_no_new_connections() {
    let mut server = Supervisor::with_echo("m").start();
    let hanging = server.hang("m");
    server.signal(Signal::SIGINT);
    wait_until_it_drains(&server);
    wait::until_true("a closed listener", || {
        server.client().request("GET", "/v2/health/live", &[], b"").is_err()
    });
    server.worker("m").kill(Signal::SIGKILL);
    hanging.answer().assert_status(500);
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[test]
fn a_drain_does_not_wait_for_ever() {
    let mut server = Supervisor::with_echo("m")
        .set("shutdown.drain_timeout", "300ms")
        .set("worker.drain_timeout", "200ms")
        .set("worker.stop_timeout", "200ms")
        .start();
    let hanging = server.hang("m");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    // Its connection was closed, or it was told; it must not wait for its own deadline.
    let _answer_or_end = hanging.outcome();
    assert_eq!(became_of_requests(&server), [0, 0, 1]);
    assert!(server.workers().is_empty());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = Supervisor::with_echo("m").start();
    let hanging = server.hang("m");
    server.signal(Signal::SIGTERM);
    wait_until_it_drains(&server);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(4));
    let pid = server.pid();
    wait::within(Duration::from_secs(1), "the end of all workers", || workers_of(pid).is_empty());
    assert!(!server.runtime_file().exists());
    let _answer_or_end = hanging.outcome();
}

/// Promised: when the supervisor dies, by any signal, all workers are gone within a second.
fn workers_end_with_the_supervisor(signal: Signal) {
    let slow_to_load = Echo::default().parameter("load_delay_ms", "60000");
    let mut server = Supervisor::with_echo("idle")
        .echo("busy", &Echo::default().with("instance_group [ { count: 2 } ]"))
        .echo("loading", &slow_to_load)
        .set("repository.required", r#"["idle", "busy"]"#)
        .start();
    let busy = server.infer_aside(Infer::command("busy", "hang"));
    let stuck = server.infer_aside(Infer::command("idle", "ignore-term"));
    stuck.answer().assert_status(200);
    wait::until_true("all workers", || server.workers().len() == 4);
    let struck = Instant::now();
    server.kill(signal);
    let pid = server.pid();
    let all_gone = || workers_of(pid).is_empty();
    wait::within(Duration::from_secs(1), "the end of all workers", all_gone);
    let took = struck.elapsed();
    tests::say(&format!("workers were gone {took:?} after the supervisor got {signal}"));
    assert!(busy.outcome().is_err());
}

#[test]
fn workers_end_with_a_supervisor_that_is_killed() {
    workers_end_with_the_supervisor(Signal::SIGKILL);
}

#[test]
fn workers_end_with_a_supervisor_that_crashes() {
    workers_end_with_the_supervisor(Signal::SIGSEGV);
}

#[test]
fn workers_end_with_a_supervisor_that_aborts() {
    workers_end_with_the_supervisor(Signal::SIGABRT);
}
