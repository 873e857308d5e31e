//! Workers that crash, exit, hang or are stopped.

use nix::sys::signal::Signal;
use tests::Infer;

use crate::row::Row;
use crate::scene::VICTIM;

const ENDED: &str = "the worker of model 'victim' ended";
/// Milliseconds that a request may take that hangs.
const SOON: u64 = 1000;

/// A request that computes for ever.
pub(crate) fn hang() -> Infer {
    Infer::command(VICTIM, "hang").once()
}

#[test]
fn sigsegv() {
    Row::new().strike("crash segv", &[500], ENDED).back_after("SIGSEGV").run();
}

#[test]
fn sigabrt() {
    Row::new().strike("crash abort", &[500], ENDED).back_after("SIGABRT").run();
}

#[test]
fn sigkill() {
    Row::new().signal(Signal::SIGKILL, hang()).back_after("SIGKILL").run();
}

#[test]
fn an_exit_with_0_while_busy() {
    Row::new().strike("crash exit 0", &[500], ENDED).back_after("code 0").run();
}

#[test]
fn sigstop() {
    Row::new().deadline(SOON).strike("stop", &[504], "").back_after("hang").run();
}

#[test]
fn an_endless_loop() {
    Row::new().deadline(SOON).strike("hang", &[504], "").back_after("hang").run();
}

#[test]
fn a_hang_that_ignores_sigterm() {
    let row = Row::new().deadline(SOON).strike("ignore-term", &[200], "");
    row.strike("hang sleep", &[504], "").back_after("hang").run();
}

/// It is given to a second worker, alone, and then to none.
#[test]
fn a_request_that_ends_its_worker_every_time() {
    let killer = || Infer::command(VICTIM, "crash segv");
    let row = Row::new().request(killer(), &[422], "ended 2 workers of model 'victim'");
    let row = row.request(killer(), &[422], "ended 2 workers of model 'victim'");
    row.request(killer().once(), &[422], "").back_after_all(2, "SIGSEGV").run();
}

#[test]
fn an_end_that_the_policy_forgives_once() {
    let row = Row::new().set("restart.max_restarts", "0").strike("crash abort", &[500], ENDED);
    row.bystanders_fail().quarantined_after("SIGABRT").run();
}

#[test]
fn an_end_that_the_policy_never_forgives() {
    let row = Row::new().set("restart.no_retry_on", "[\"SIGABRT\"]");
    let row = row.strike("crash abort", &[500], ENDED);
    row.bystanders_fail().quarantined_after("SIGABRT").run();
}
