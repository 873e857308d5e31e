//! Workers that never come up: nobody waits for them, and a repaired model can be loaded.

use std::time::Duration;

use tests::supervisor::Builder;
use tests::{Echo, Infer, Supervisor};

use crate::scene::{Scene, VICTIM, beside_a_neighbour};

const SOON: Duration = Duration::from_secs(1);

/// A model that cannot be loaded because of `parameter` has so many workers that end in this way, while
/// others serve; and none of it stays.
fn never_up(parameter: (&str, &str), settings: &[(&str, &str)], workers: usize, kind: &str) {
    never_up_on(Supervisor::new(), parameter, settings, (workers, kind));
}

fn never_up_on(
    server: Builder,
    parameter: (&str, &str),
    settings: &[(&str, &str)],
    (workers, kind): (usize, &str),
) {
    let set = |builder: Builder, (key, value): &(&str, &str)| {
        builder.set(&format!("models.{VICTIM}.{key}"), value)
    };
    let server = settings.iter().fold(beside_a_neighbour(server), set).start();
    let scene = Scene::of(server, Infer::echo(VICTIM), SOON);
    let broken = Echo::default().parameter(parameter.0, parameter.1);
    scene.server.repository().echo(VICTIM, &broken);
    scene.assert_cannot_be_loaded(workers, kind);
    scene.server.repository().echo(VICTIM, &Echo::default());
    scene.assert_can_be_loaded();
}

#[test]
fn a_slow_load() {
    let settings = [("load_timeout", "300ms"), ("restart.max_restarts", "0")];
    never_up(("load_delay_ms", "60000"), &settings, 1, "start_timeout");
}

#[test]
fn a_load_that_crashes() {
    never_up(("load_crash", "segv"), &[("restart.max_restarts", "2")], 3, "SIGSEGV");
}

#[test]
fn a_load_that_aborts_and_is_not_tried_again() {
    never_up(("load_crash", "abort"), &[("restart.no_retry_on", "[\"signal\"]")], 1, "SIGABRT");
}

#[test]
fn a_load_that_fails() {
    never_up(("load_fail", "no such luck"), &[], 1, "load_error");
}

/// The worker says so itself; a control group would end it.
#[test]
fn a_load_that_needs_too_much_memory() {
    let server = Supervisor::new().set("limits.cgroup", "off");
    let settings = [("memory_limit", "64MiB"), ("restart.max_restarts", "1")];
    never_up_on(server, ("allocate_mb", "300"), &settings, (2, "load_error"));
}
