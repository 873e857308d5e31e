//! A worker that ends, hangs or is stopped in the middle of requests: its requests get an error, it
//! comes back, and its neighbour notices nothing.

use nix::sys::signal::Signal;
use tests::supervisor::Builder;
use tests::{Echo, Infer, Supervisor};

/// A model for faults, and one that must not notice them.
fn two_models() -> Builder {
    Supervisor::with_echo("victim")
        .echo("neighbour", &Echo::default())
        .set("restart.max_restarts", "100")
        .set("restart.backoff.initial", "20ms")
        .set("restart.backoff.factor", "1.0")
}

#[test]
fn a_worker_that_is_killed_in_a_request_fails_only_that() {
    let server = two_models().start();
    let neighbour = server.load_on("neighbour");
    for signal in [Signal::SIGKILL, Signal::SIGSEGV, Signal::SIGABRT, Signal::SIGTERM] {
        let (worker, hanging) = (server.worker("victim"), server.hang("victim"));
        worker.signal(signal);
        let answer = hanging.join().unwrap().unwrap();
        answer.assert_status(500);
        assert!(answer.error().contains("the worker of model 'victim' ended"), "{signal}");
        let echo = Infer::echo("victim");
        assert!(echo.is_echoed_by(&server.infer(&echo)), "{signal}: it does not come back");
        assert!(server.worker("victim").generation > worker.generation);
    }
    neighbour.assert_no_errors();
}
