//! The commonest ends of a worker, in each way to start, confine and own it.

use nix::sys::signal::Signal;
use tests::{another_user_or_skip, strict_or_skip};

use crate::ends::hang;
use crate::exhaustion::disk_bombs;
use crate::row::Row;
use crate::scene::VICTIM;

/// A user who owns nothing.
const NOBODY: u32 = 65534;

/// What holds memory differs from mode to mode, and so does what a worker that takes too much says.
fn commonest() -> Vec<Row> {
    vec![
        Row::new().signal(Signal::SIGKILL, hang()).back_after("SIGKILL"),
        Row::new().strike("crash segv", &[500], "ended").back_after("SIGSEGV"),
        Row::new().deadline(1000).strike("hang", &[504], "").back_after("hang"),
    ]
}

fn each(rows: Vec<Row>, mode: impl Fn(Row) -> Row) {
    for row in rows {
        mode(row).run();
    }
}

/// Where namespaces cannot be had, nothing of it would be what it says.
fn each_strict(test: &str, rows: Vec<Row>, mode: impl Fn(Row) -> Row) {
    for row in rows {
        let row = mode(row.set("confinement", "strict"));
        row.run_if(|server| strict_or_skip(server, VICTIM, test));
    }
}

/// Held by the worker itself, which answers, or by a watchdog, which kills.
fn memory_bombs() -> Vec<Row> {
    let row = || Row::new().server("limits.cgroup", "off").set("memory_limit", "64MiB");
    let unconfined = row().set("confinement", "none");
    vec![
        row().set("confinement", "standard").strike("leak 300MiB", &[507], "out of memory"),
        unconfined.strike("leak 300MiB", &[200, 500], "ended").back_after("host_oom"),
    ]
}

#[test]
fn as_programs() {
    let exec = |row: Row| row.server("worker.start", "exec");
    each(commonest(), exec);
    each(memory_bombs(), exec);
}

#[test]
fn in_namespaces() {
    each_strict("in_namespaces", commonest(), |row| row);
    each_strict("in_namespaces", disk_bombs(), |row| row);
}

#[test]
fn in_namespaces_as_programs() {
    let exec = |row: Row| row.server("worker.start", "exec");
    each_strict("in_namespaces_as_programs", commonest(), exec);
}

#[test]
fn without_a_confinement() {
    each(commonest(), |row| row.set("confinement", "none"));
}

#[test]
fn of_an_ordinary_user() {
    if another_user_or_skip("of_an_ordinary_user") {
        each(commonest(), |row| row.user(NOBODY));
        each(memory_bombs(), |row| row.user(NOBODY));
        each(disk_bombs(), |row| row.user(NOBODY));
    }
}

#[test]
fn of_an_ordinary_user_without_a_confinement() {
    if another_user_or_skip("of_an_ordinary_user_without_a_confinement") {
        each(commonest(), |row| row.user(NOBODY).set("confinement", "none"));
    }
}
