//! Workers that come up as copies of a process that has their framework loaded.

use std::path::{Path, PathBuf};

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tests::cgroups::{groups_of, leaves_of, setting};
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

/// A copy that has not run yet, and the zygote that stands where it made it.
struct Newborn {
    zygote: Pid,
    copy: Pid,
}

impl Newborn {
    /// Of the worker that takes the place of `m`, which is killed; `None` after saying that `test` is
    /// skipped. It takes a debugger to see this moment.
    fn of_next_worker(server: &Supervisor, test: &str) -> Option<Self> {
        let zygote = Pid::from_raw(zygotes_of(server.pid()).remove(0).pid);
        let stops = Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACECLONE;
        if let Err(error) = ptrace::seize(zygote, stops) {
            tests::skipped(test, &format!("it may not trace: {error}"));
            return None;
        }
        server.worker("m").kill(Signal::SIGKILL);
        wait::until_true("a copy", || {
            let seen = waitpid(zygote, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL));
            matches!(seen, Ok(WaitStatus::PtraceEvent(..)))
        });
        let copy = ptrace::getevent(zygote).expect("it stands at the event");
        Some(Self { zygote, copy: Pid::from_raw(i32::try_from(copy).expect("a process id")) })
    }

    fn let_copy_run(&self) {
        wait::until_true("a copy that can be let go", || {
            let _seen = waitpid(self.copy, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL));
            ptrace::detach(self.copy, None).is_ok()
        });
    }
}

/// Killed in the moment between the copy and the word of it.
#[test]
fn a_copy_that_its_zygote_could_not_tell_of_is_ended_and_reaped() {
    let server = Supervisor::with_echo("m").start();
    let test = "a_copy_that_its_zygote_could_not_tell_of_is_ended_and_reaped";
    let Some(newborn) = Newborn::of_next_worker(&server, test) else { return };
    let (zygote, copy) = (newborn.zygote, newborn.copy);
    kill(zygote, Signal::SIGKILL).expect("it is there");
    newborn.let_copy_run();
    let _seen = waitpid(zygote, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL));
    wait::until_true("nothing of the copy", || !Path::new(&format!("/proc/{copy}")).exists());
    server.wait_for_generation("m", 2);
}

/// Whether the server has groups, and the process a leaf of its own in each of them.
fn has_leaves(server: &Supervisor, pid: i32) -> bool {
    let (groups, leaves) = (groups_of(server.pid()), leaves_of(pid));
    let own = |leaf: &PathBuf| setting(std::slice::from_ref(leaf), "cgroup.procs");
    leaves.len() == groups.len() && leaves.iter().all(|leaf| own(leaf) == Some(pid.to_string()))
}

#[test]
fn a_copy_is_in_leaves_of_its_own_and_its_zygote_in_none() {
    let test = "a_copy_is_in_leaves_of_its_own_and_its_zygote_in_none";
    let server = Supervisor::with_echo("m").echo("other", &Echo::default()).start();
    if groups_of(server.pid()).is_empty() {
        return tests::skipped(test, "there are no control groups to be had");
    }
    wait_until_ready(&server, 1);
    for model in ["m", "other"] {
        server.worker(model).kill(Signal::SIGKILL);
        server.wait_for_generation(model, 2);
        let worker = server.worker(model);
        assert!(has_leaves(&server, worker.pid), "{model}");
        // A program would show its own.
        assert_eq!(worker.variable("TMPDIR"), zygotes_of(server.pid())[0].variable("TMPDIR"));
    }
    let zygotes = zygotes_of(server.pid());
    assert!(zygotes.iter().all(|zygote| leaves_of(zygote.pid).is_empty()), "{zygotes:?}");
}

/// A copy that has not run has not been greeted either.
#[test]
fn a_copy_is_in_its_leaves_before_it_is_greeted() {
    let test = "a_copy_is_in_its_leaves_before_it_is_greeted";
    let server = Supervisor::with_echo("m").start();
    if groups_of(server.pid()).is_empty() {
        return tests::skipped(test, "there are no control groups to be had");
    }
    let Some(newborn) = Newborn::of_next_worker(&server, test) else { return };
    ptrace::detach(newborn.zygote, None).expect("it stands at the event");
    let copy = newborn.copy.as_raw();
    wait::until_true("its leaves", || has_leaves(&server, copy));
    newborn.let_copy_run();
    server.wait_for_generation("m", 2);
    let worker = server.worker("m");
    assert_eq!((worker.pid, worker.generation), (copy, 2));
    assert!(has_leaves(&server, copy));
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
        let said = server.logs().wait_for_number(1, &format!("m{i}"), "worker memory");
        let told = said[0]["private_kb"].as_u64().expect("a number");
        assert!(told > 0 && told < 15_000, "{told} kB");
    }
}
