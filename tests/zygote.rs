//! Workers that come up as copies of a process that has their framework loaded.

use std::path::Path;

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tests::workers::{private_kilobytes, zygotes_of};
use tests::{Echo, Infer, Supervisor, folder_or_skip, wait};

fn wait_until_ready(server: &Supervisor, times: usize) {
    let ready = |event: &&serde_json::Value| event["message"] == "zygote ready";
    wait::until_true("a zygote that is ready", || {
        server.logs().events().iter().filter(ready).count() >= times
    });
}

#[test]
fn a_worker_is_a_child_of_the_supervisor_and_outlives_the_zygote() {
    let server = Supervisor::with_echo("m").start();
    let (worker, zygotes) = (server.worker("m"), zygotes_of(server.pid()));
    assert_eq!(zygotes.len(), 1, "{zygotes:?}");
    assert_eq!(worker.parent(), Some(server.pid()));
    let load = server.load_on("m");
    zygotes[0].kill(Signal::SIGKILL);
    load.wait_for_more(20);
    load.assert_no_errors();
    assert!(worker.is_alive());
    // It comes back by itself, and makes workers again.
    wait_until_ready(&server, 2);
    let new = wait::until("another zygote", || zygotes_of(server.pid()).pop());
    assert_ne!(new.pid, zygotes[0].pid);
    worker.kill(Signal::SIGKILL);
    server.wait_for_generation("m", 2);
}

#[test]
fn without_a_zygote_workers_start_as_programs() {
    let server = Supervisor::with_echo("m").set("worker.start", "exec").start();
    assert!(zygotes_of(server.pid()).is_empty());
    server.infer(&Infer::echo("m")).assert_status(200);
    server.worker("m").kill(Signal::SIGKILL);
    server.wait_for_generation("m", 2);
}

/// The environment that the kernel shows is the zygote's.
#[test]
fn a_copy_knows_its_own_scratch_folder() {
    let server = Supervisor::with_echo("m").start();
    wait_until_ready(&server, 1);
    server.worker("m").kill(Signal::SIGKILL);
    server.wait_for_generation("m", 2);
    server.infer(&Infer::command("m", "variable TMPDIR")).assert_status(200);
    let scratch = format!("TMPDIR={}", server.scratch().display());
    let said = server.logs().wait_for("the variable", |event| {
        event["message"].as_str().is_some_and(|text| text.starts_with(&scratch))
    });
    assert_eq!(said["generation"], 2, "{said}");
}

#[test]
fn a_zygote_that_does_not_answer_is_replaced_and_the_worker_comes_as_a_program() {
    let server = Supervisor::with_echo("m").start();
    let zygote = zygotes_of(server.pid()).remove(0);
    zygote.signal(Signal::SIGSTOP);
    server.worker("m").kill(Signal::SIGKILL);
    server.wait_for_generation("m", 2);
    wait::until_true("the end of the zygote that hangs", || !zygote.is_alive());
    wait_until_ready(&server, 2);
    server.worker("m").kill(Signal::SIGKILL);
    server.wait_for_generation("m", 3);
}

/// Whoever wants the model gone is heard while its next worker is being made.
#[test]
fn an_unload_is_heard_while_a_zygote_hangs() {
    let server = Supervisor::with_echo("m").start();
    let zygote = zygotes_of(server.pid()).remove(0);
    zygote.signal(Signal::SIGSTOP);
    server.worker("m").kill(Signal::SIGKILL);
    // Not for the pause before it, but for the worker.
    wait::until_true("a worker that is being made", || {
        let listed = server.client().index("m").pop();
        listed.is_some_and(|listed| listed.state == "LOADING" && listed.reason.is_empty())
    });
    let mut client = server.client();
    let unload = std::thread::spawn(move || client.unload("m").status);
    server.wait_for_state("m", "UNLOADING");
    assert!(zygote.is_alive(), "the launch was over already");
    zygote.signal(Signal::SIGCONT);
    assert_eq!(unload.join().unwrap(), 200);
    server.wait_for_state("m", "UNAVAILABLE");
    wait::until_true("the end of the worker that nobody wants", || server.workers().is_empty());
    server.client().load("m").assert_status(200);
    server.infer(&Infer::echo("m")).assert_status(200);
}

/// Killed in the moment between the copy and the word of it, which takes a debugger to hit.
#[test]
fn a_copy_that_its_zygote_could_not_tell_of_is_ended_and_reaped() {
    let server = Supervisor::with_echo("m").start();
    let zygote = Pid::from_raw(zygotes_of(server.pid()).remove(0).pid);
    let stops = Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACECLONE;
    if let Err(error) = ptrace::seize(zygote, stops) {
        let name = "a_copy_that_its_zygote_could_not_tell_of_is_ended_and_reaped";
        return tests::skipped(name, &format!("it may not trace: {error}"));
    }
    server.worker("m").kill(Signal::SIGKILL);
    wait::until_true("a copy", || {
        let seen = waitpid(zygote, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL));
        matches!(seen, Ok(WaitStatus::PtraceEvent(..)))
    });
    let copy = ptrace::getevent(zygote).expect("it stands at the event");
    let copy = Pid::from_raw(i32::try_from(copy).expect("a process id"));
    kill(zygote, Signal::SIGKILL).expect("it is there");
    wait::until_true("a copy that can be let go", || {
        let _seen = waitpid(copy, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL));
        ptrace::detach(copy, None).is_ok()
    });
    let _seen = waitpid(zygote, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL));
    wait::until_true("nothing of the copy", || !Path::new(&format!("/proc/{copy}")).exists());
    server.wait_for_generation("m", 2);
}

#[test]
fn nothing_is_left_of_zygotes_when_the_server_is_killed() {
    let mut server = Supervisor::with_echo("m").start();
    let pid = server.pid();
    assert_eq!(zygotes_of(pid).len(), 1);
    server.kill(Signal::SIGKILL);
    wait::until_true("no zygote", || zygotes_of(pid).is_empty());
}

/// Promised: at most 15 MB of its own for an idle worker of a small model.
#[test]
fn copies_share_the_framework() {
    let name = "copies_share_the_framework";
    let Some(models) = folder_or_skip("BULKHEAD_MODELS", name) else { return };
    let file = models.join("digits/1/model.pt");
    let mut builder = Supervisor::new().echo("echo", &Echo::default());
    for i in 0..3 {
        builder = builder.torch(&format!("m{i}"), &file);
    }
    let server = builder.start();
    for i in 0..3 {
        let private = private_kilobytes(server.worker(&format!("m{i}")).pid);
        tests::say(&format!("an idle worker of a small model has {private} kB of its own"));
        assert!(private > 0 && private < 15_000, "{private} kB");
    }
}
