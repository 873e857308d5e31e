//! Workers that take all there is of something.

use tests::{Infer, Supervisor, skipped};

use crate::row::Row;
use crate::scene::VICTIM;

/// Whether control groups hold this on the server, or the test said that it is skipped.
pub(crate) fn held_by_groups(server: &Supervisor, what: &str, test: &str) -> bool {
    let said = server.logs().wait_for_number(1, VICTIM, "worker started");
    let limits = said[0]["limits"].as_str().unwrap_or_default();
    let held = limits.split("; ").any(|part| part.starts_with(what) && part.contains("cgroup v"));
    if !held {
        skipped(test, &format!("no control groups for {what}: {limits}"));
    }
    held
}

#[test]
fn a_memory_bomb_that_control_groups_hold() {
    let row = Row::new().set("memory_limit", "64MiB").strike("leak 300MiB", &[500], "ended");
    row.back_after("host_oom").run_if(|server| {
        held_by_groups(server, "memory", "a_memory_bomb_that_control_groups_hold")
    });
}

#[test]
fn a_memory_bomb_that_the_worker_s_own_limit_holds() {
    let row = Row::new().server("limits.cgroup", "off").set("memory_limit", "64MiB");
    row.strike("leak 300MiB", &[507], "out of memory").run();
}

/// It may have answered between two looks.
#[test]
fn a_memory_bomb_that_a_watchdog_holds() {
    let row = Row::new().server("limits.cgroup", "off").set("memory_limit", "64MiB");
    let row = row.set("confinement", "none").strike("leak 300MiB", &[200, 500], "ended");
    row.back_after("host_oom").run();
}

#[test]
fn a_fork_bomb_that_the_confinement_refuses() {
    Row::new().strike("fork-bomb 1000", &[500], "refused after 0 processes: EPERM").run();
}

/// The processes that there are end with the worker.
#[test]
fn a_fork_bomb_that_control_groups_hold() {
    let row = Row::new().set("confinement", "none").set("max_processes", "32");
    let row = row.strike("fork-bomb 1000", &[500], "processes: EAGAIN");
    row.strike("crash abort", &[500], "ended").back_after("SIGABRT").run_if(|server| {
        held_by_groups(server, "processes", "a_fork_bomb_that_control_groups_hold")
    });
}

/// Without a control group they end with the worker as well; how many there can be is not held.
#[test]
fn a_fork_bomb_that_nothing_holds() {
    let row = Row::new().server("limits.cgroup", "off").set("confinement", "none");
    let row = row.strike("fork-bomb 40", &[200], "").strike("crash abort", &[500], "ended");
    row.back_after("SIGABRT").run();
}

#[test]
fn an_orphan_that_the_confinement_refuses() {
    Row::new().strike("orphan", &[500], "EPERM").run();
}

#[test]
fn an_orphan_in_a_control_group() {
    let row = Row::new().set("confinement", "none").strike("orphan", &[200], "");
    row.strike("crash abort", &[500], "ended").back_after("SIGABRT").run();
}

#[test]
fn an_orphan_that_no_control_group_finds() {
    let row = Row::new().server("limits.cgroup", "off").set("confinement", "none");
    let row = row.strike("orphan", &[200], "").strike("crash abort", &[500], "ended");
    row.back_after("SIGABRT").run();
}

#[test]
fn threads_that_control_groups_hold() {
    let row = Row::new().set("max_processes", "64").strike("threads 1000", &[500], "unavailable");
    row.run_if(|server| held_by_groups(server, "processes", "threads_that_control_groups_hold"));
}

/// What fits its slots is served on. A large output has no memory object, and a large input ends the
/// worker, which could not receive it: the next one serves it.
#[test]
fn descriptor_exhaustion() {
    let exhausted = |row: Row| {
        row.set("max_descriptors", "128").strike("descriptors", &[500], "Too many open files")
    };
    let large_output = exhausted(Row::new()).strike("grow 1000000", &[507], "no memory");
    large_output.run();
    let large_input = Infer::new(VICTIM).floats(&vec![1.5; 20_000]);
    let row = exhausted(Row::new()).set("slot_size", "4KiB");
    row.request(large_input, &[200], "").back_after("code 6").run();
}

/// A file that has lost its name takes as much of the disk. A look may come before the answer.
pub(crate) fn disk_bombs() -> Vec<Row> {
    let row = || Row::new().set("scratch_limit", "8MiB");
    ["fill 64MiB", "fill-unnamed 64MiB"]
        .map(|command| row().strike(command, &[200, 500], "ended").back_after("quota"))
        .into()
}

#[test]
fn a_scratch_folder_that_grows_without_end() {
    disk_bombs().into_iter().for_each(Row::run);
}

#[test]
fn a_scratch_folder_without_a_limit() {
    Row::new().set("scratch_limit", "none").strike("fill 64MiB", &[200], "").run();
}

#[test]
fn a_stderr_flood() {
    Row::new().strike("flood-stderr 20000", &[200], "").run();
}
