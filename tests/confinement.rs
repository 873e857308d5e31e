//! What a confined worker can reach: its model, its slots, its supervisor's ear, and nothing else.
//!
//! The echo engine tries and says how it went: see its `probe` command. That a probe is a real
//! attempt is shown by workers without a confinement, for which it succeeds.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that uses it")]

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use tests::supervisor::{Builder, binaries};
use tests::{
    Echo, Infer, Supervisor, another_user_or_skip, another_user_with_torch_or_skip, folder_or_skip,
    holds_or_skip, skipped, strict_or_skip, wait,
};

const LEVELS: [&str; 2] = ["standard", "strict"];
/// What a kernel may lack of what keeps a worker of each level in, by the names that the log has.
const MEASURES: &[&str] =
    &["landlock files (ABI ", "landlock tcp", "landlock scopes", "seccomp (", "capabilities ("];
/// Whom files belong to that belong to nobody; here an ordinary user.
const NOBODY: u32 = 65534;

/// Calls that do nothing, and that no confined worker may make: see `calls` of the echo engine.
const CALLS: &[&str] = &[
    // Sockets; the supervisor's own is there already.
    "socketpair-stream socketpair-datagram socketpair-packet connect bind listen accept",
    // Signals by the worker's hand or the kernel's, and requests to devices.
    "tkill pidfd-signal setown-ex setsig fiosetown siocspgrp pdeathsig tiocsti tioclinux figetbsz",
    // Other processes, further programs.
    "kcmp advise release nice-others ioprio-others execveat",
    // Files and the tree of them.
    "chown utimensat setxattr mount umount chroot open-tree file-handle",
    // What was given up.
    "setresuid capset setns personality",
    // What counts for a user or the machine.
    "lease notify inotify inotify-watch io-setup huge-pages huge-object semctl msgctl mq-open",
    "keyctl add-key request-key clock-set syncfs",
    // Ways into the kernel.
    "bpf perf userfaultfd io-uring seccomp ldt fanotify vmsplice",
];
/// The same with another process.
const CALLS_TO_OTHERS: &str =
    "tgkill sigqueue write-memory scheduler sched-param sched-attr ioprio";
/// Refused as if the kernel had none of it: the C library has another way.
const ABSENT: &str = "clone3";
/// Refused where the limit on private memory is the only one.
const UNCOUNTED: &str = "shared-memory object secret-object";

/// The same of `strict` alone.
const NAMESPACES: &[&str] = &["namespaces (", "proc"];

/// What is outside of the worker of `m`, to be reached for.
struct Outside {
    server: Supervisor,
    tcp: TcpListener,
    udp: UdpSocket,
    folder: tempfile::TempDir,
    _unix: UnixListener,
}

impl Outside {
    fn new(builder: Builder) -> Self {
        let server = builder.start();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        for given in [folder.path(), &path] {
            // Root alone may, and not in every namespace; then it reaches them itself.
            let _kept = std::os::unix::fs::chown(given, Some(NOBODY), Some(NOBODY));
        }
        let (tcp, udp) = (TcpListener::bind("127.0.0.1:0"), UdpSocket::bind("127.0.0.1:0"));
        Self { server, tcp: tcp.unwrap(), udp: udp.unwrap(), folder, _unix: listener }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What must fail for a confined worker, and succeeds for another.
    fn probes(&self) -> Vec<String> {
        let models = self.server.repository().path();
        let (supervisor, other) = (self.server.pid(), self.server.worker("other").pid);
        let runtime = self.server.runtime_file().display();
        let mut probes = vec![
            format!("read {runtime}"),
            format!("write {runtime}"),
            format!("chmod {runtime}"),
            format!("read {}", models.join("other/config.pbtxt").display()),
            format!("list {}", models.join("other/1").display()),
            format!("list {}", models.display()),
            "read /etc/passwd".into(),
            format!("chmod {}", models.join("other/1").display()),
            format!("write {}", self.file("new").display()),
            format!("write {}", models.join("m/1/new").display()),
            format!("tcp {}", self.tcp.local_addr().unwrap()),
            format!("tcp {}", self.server.address()),
            format!("udp {}", self.udp.local_addr().unwrap()),
            format!("unix {}", self.file("socket").display()),
            "socket".into(),
            "fork".into(),
            "exec".into(),
            "shared".into(),
        ];
        for pid in [i64::from(supervisor), i64::from(other)] {
            probes.push(format!("list /proc/{pid}/fd"));
            let ways = ["kill", "ptrace", "memory", "pidfd", "limits", "affinity", "own"];
            probes.extend(ways.map(|way| format!("{way} {pid}")));
        }
        probes
    }

    #[track_caller]
    fn assert_all_refused(&self, level: &str, test: &str) {
        if !is_fully_confined(&self.server, level, test) {
            return;
        }
        let more = ["namespace", "new-call", "group", "kill -1", "kill 0"].map(String::from);
        for probe in self.probes().into_iter().chain(more) {
            let answer = self.server.infer(&Infer::command("m", &format!("probe {probe}")));
            // By an error of the kernel, which the worker has lived through.
            assert_eq!(answer.status, 500, "{level}: {probe}: {}", answer.text());
            assert!(!answer.text().contains("ended"), "{level}: {probe}: {}", answer.text());
        }
        assert_eq!(self.server.worker("m").generation, 1);
        let echo = Infer::echo("m");
        assert!(echo.is_echoed_by(&self.server.infer(&echo)));
    }
}

fn two_models(level: &str) -> Builder {
    Supervisor::with_echo("m").echo("other", &Echo::default()).set("worker.confinement", level)
}

/// Whether this kernel has all that a worker of this level can be kept in by, or `test` is skipped.
fn is_fully_confined(server: &Supervisor, level: &str, test: &str) -> bool {
    holds_or_skip(server, "m", MEASURES, test)
        && (level != "strict" || strict_or_skip(server, "m", test))
}

#[test]
fn a_confined_worker_reaches_nothing() {
    for level in LEVELS {
        let outside = Outside::new(two_models(level));
        outside.assert_all_refused(level, "a_confined_worker_reaches_nothing");
    }
}

#[test]
fn a_confined_worker_of_an_ordinary_user_reaches_nothing() {
    let test = "a_confined_worker_of_an_ordinary_user_reaches_nothing";
    if !another_user_or_skip(test) {
        return;
    }
    for level in LEVELS {
        Outside::new(two_models(level).user(NOBODY)).assert_all_refused(level, test);
    }
}

/// What came of a call: the error that it was refused with, or `None`, let through.
fn refusal(server: &Supervisor, call: &str) -> Option<String> {
    let answer = server.infer(&Infer::command("m", &format!("probe call {call}")));
    match answer.status {
        200 => None,
        500 => Some(answer.text()),
        _ => panic!("{call}: {}", answer.text()),
    }
}

#[track_caller]
fn assert_refused(server: &Supervisor, calls: impl IntoIterator<Item = String>, error: &str) {
    for call in calls {
        let refused = refusal(server, &call);
        assert!(refused.as_ref().is_some_and(|text| text.contains(error)), "{call}: {refused:?}");
    }
}

fn calls(names: &str) -> impl Iterator<Item = String> {
    names.split_whitespace().map(str::to_owned)
}

/// All that are refused with `EPERM`.
fn all_calls(server: &Supervisor) -> Vec<String> {
    let other = server.worker("other").pid;
    let to_others = calls(CALLS_TO_OTHERS).map(|call| format!("{call} {other}"));
    CALLS.iter().flat_map(|names| calls(names)).chain(to_others).collect()
}

fn users(another: bool) -> Vec<Option<u32>> {
    if another { vec![None, Some(NOBODY)] } else { vec![None] }
}

fn levels_and_users(test: &str) -> Vec<(&'static str, Option<u32>)> {
    at_every_level(&users(another_user_or_skip(test)))
}

fn at_every_level(users: &[Option<u32>]) -> Vec<(&'static str, Option<u32>)> {
    LEVELS.into_iter().flat_map(|level| users.iter().map(move |user| (level, *user))).collect()
}

fn of_user(builder: Builder, user: Option<u32>) -> Builder {
    user.into_iter().fold(builder, Builder::user)
}

#[test]
fn every_call_is_refused_as_the_table_says() {
    let test = "every_call_is_refused_as_the_table_says";
    for (level, user) in levels_and_users(test) {
        let server = of_user(two_models(level), user).start();
        if !holds_or_skip(&server, "m", &["seccomp ("], test) {
            continue;
        }
        let neighbour = server.load_on("other");
        assert_refused(&server, all_calls(&server), "EPERM");
        assert_refused(&server, calls(ABSENT), "ENOSYS");
        assert_eq!(server.worker("m").generation, 1);
        neighbour.wait_for_more(10);
        neighbour.assert_no_errors();
    }
}

/// Without this the test above would show nothing: each call is there, and neither root's powers nor
/// the want of them decide.
#[test]
fn every_call_is_let_through_without_a_confinement() {
    let test = "every_call_is_let_through_without_a_confinement";
    // As in a container, whose filter refuses many of them to the server already.
    let filtered = fs::read_to_string("/proc/self/status").unwrap().contains("Seccomp:\t2");
    for user in users(another_user_or_skip(test)) {
        let server = of_user(two_models("none"), user).start();
        for call in all_calls(&server).into_iter().chain(calls(ABSENT)) {
            let Some(refused) = refusal(&server, &call) else { continue };
            // The one call that a setting of the machine refuses with the same error.
            let by_the_machine = filtered || refused.contains("ENOSYS") || call == "io-uring";
            assert!(by_the_machine, "{user:?}: {call}: {refused}");
            skipped(test, &format!("{call}: nobody here may: {refused}"));
        }
    }
}

#[test]
fn memory_that_the_only_limit_does_not_count_is_refused() {
    for level in LEVELS {
        let off = two_models(level).set("limits.cgroup", "off");
        let limited = off.set("models.m.memory_limit", "1GiB").start();
        let test = "memory_that_the_only_limit_does_not_count_is_refused";
        if !holds_or_skip(&limited, "m", &["seccomp ("], test) {
            continue;
        }
        assert_refused(&limited, calls(UNCOUNTED), "EPERM");
        limited.infer(&Infer::echo("other")).assert_status(200);
        let unlimited = two_models(level).start();
        for call in calls(UNCOUNTED) {
            let refused = refusal(&unlimited, &call);
            // A kernel without secret memory says so.
            assert!(refused.is_none_or(|text| text.contains("ENOSYS")), "{level}: {call}");
        }
    }
}

/// Without this the tests of what a confined worker reaches would show nothing.
#[test]
fn a_worker_without_a_confinement_reaches_all_of_it() {
    let outside = Outside::new(two_models("none"));
    let yama = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let traces = geteuid().is_root() || ["", "0"].contains(&yama.trim());
    if !traces {
        let test = "a_worker_without_a_confinement_reaches_all_of_it";
        skipped(test, "reading other processes: Yama keeps this user from it");
    }
    let reads_others = |probe: &String| {
        ["ptrace", "memory", "pidfd", "list /proc"].iter().any(|way| probe.starts_with(way))
    };
    for probe in outside.probes().into_iter().filter(|probe| traces || !reads_others(probe)) {
        let answer = outside.server.infer(&Infer::command("m", &format!("probe {probe}")));
        assert_eq!(answer.status, 200, "{probe}: {}", answer.text());
    }
    assert!(outside.server.logs().about("m", "worker confined").is_empty());
}

#[test]
fn its_own_things_are_a_worker_s_to_use() {
    for level in LEVELS {
        let server = two_models(level).set("worker.slot_size", "4KiB").start();
        let own = server.repository().version("m", 1);
        fs::write(own.join("weights"), "1").unwrap();
        for probe in [
            format!("read {}", own.join("weights").display()),
            format!("list {}", own.display()),
            "read /proc/self/maps".into(),
            "list /proc/self/fd".into(),
            "write /dev/null".into(),
        ] {
            let answer = server.infer(&Infer::command("m", &format!("probe {probe}")));
            assert_eq!(answer.status, 200, "{level}: {probe}: {}", answer.text());
        }
        // Memory objects of its own, in both directions.
        let large = Infer::new("m").floats(&vec![1.5; 100_000]);
        assert!(large.is_echoed_by(&server.infer(&large)), "{level}");
    }
}

/// What does not hold is warned of.
#[test]
fn what_holds_is_logged_for_each_worker() {
    for level in LEVELS {
        let server = two_models(level).start();
        let event = server.logs().wait_for_number(1, "m", "worker confined").remove(0);
        let holds = event["holds"].as_str().unwrap_or_default();
        let missing = server.logs().about("m", "confinement: a measure is missing");
        // Without namespaces nothing is said of what is in them.
        let all = MEASURES.iter().chain(if level == "strict" { &NAMESPACES[..1] } else { &[] });
        for measure in all {
            let name = measure.split(" (").next().unwrap_or(measure);
            let told = missing.iter().any(|event| event["measure"] == name);
            assert!(holds.contains(measure) != told, "{level}: {measure}: {holds}; {missing:?}");
        }
        let _said = is_fully_confined(&server, level, "what_holds_is_logged_for_each_worker");
    }
}

#[test]
fn what_the_kernel_does_not_give_is_logged_and_the_worker_serves() {
    // In a user namespace that may have no further ones, nor any of processes.
    let none = "cd /proc/sys/user && echo 0 > max_user_namespaces && \
                echo 0 > max_pid_namespaces && cd - && exec \"$@\"";
    let program = ["unshare", "--user", "--map-root-user", "sh", "-c", none, "sh"];
    let name = "what_the_kernel_does_not_give_is_logged_and_the_worker_serves";
    let tried = std::process::Command::new(program[0]).args(&program[1..]).arg("true").output();
    if !tried.is_ok_and(|output| output.status.success()) {
        return skipped(name, "this user cannot make a user namespace");
    }
    let server = two_models("strict").within(&program).start();
    let missing = "confinement: a measure is missing";
    let event = server.logs().wait_for_number(1, "m", missing).remove(0);
    assert_eq!(event["measure"], "namespaces", "{event}");
    assert!(event["why"].as_str().is_some_and(|why| !why.is_empty()), "{event}");
    server.infer(&Infer::echo("m")).assert_status(200);
    // The same once more is no news.
    server.worker("m").kill(Signal::SIGKILL);
    server.wait_for_generation("m", 2);
    server.logs().wait_for_number(2, "m", "worker confined");
    assert_eq!(server.logs().about("m", missing).len(), 1);
}

#[test]
fn the_end_of_a_worker_in_namespaces_is_seen_as_it_was() {
    let server = two_models("strict")
        .set("restart.max_restarts", "1000")
        .set("restart.backoff.initial", "20ms")
        .set("restart.backoff.factor", "1.0")
        .start();
    if !strict_or_skip(&server, "m", "the_end_of_a_worker_in_namespaces_is_seen_as_it_was") {
        return;
    }
    let ends = [
        ("crash segv", "signal 11"),
        ("crash abort", "signal 6"),
        ("crash kill", "signal 9"),
        ("crash exit 3", "code 3"),
    ];
    for (number, (crash, how)) in (1..).zip(ends) {
        server.infer(&Infer::command("m", crash).once()).assert_status(500);
        let exits = server.logs().wait_for_number(number, "m", "worker exited");
        let seen = exits[number - 1]["how"].as_str().unwrap_or_default();
        assert!(seen.contains(how), "{crash}: {seen}");
        server.infer(&Infer::echo("m")).assert_status(200);
    }
}

#[test]
fn a_worker_in_namespaces_that_hangs_and_ignores_sigterm_is_killed() {
    let server = Supervisor::with_echo("m")
        .set("worker.confinement", "strict")
        .set("worker.infer_timeout", "300ms")
        .set("worker.stop_timeout", "200ms")
        .start();
    let test = "a_worker_in_namespaces_that_hangs_and_ignores_sigterm_is_killed";
    if !strict_or_skip(&server, "m", test) {
        return;
    }
    let worker = server.worker("m");
    server.infer(&Infer::command("m", "ignore-term")).assert_status(200);
    server.infer(&Infer::command("m", "hang")).assert_status(504);
    wait::until_true("the end of a worker that hangs", || !worker.is_alive());
    server.wait_until_ready("m");
}

#[test]
fn nothing_in_namespaces_outlives_a_supervisor_that_is_killed() {
    let mut server = two_models("strict").start();
    let test = "nothing_in_namespaces_outlives_a_supervisor_that_is_killed";
    if !["m", "other"].into_iter().all(|model| strict_or_skip(&server, model, test)) {
        return;
    }
    server.infer(&Infer::command("m", "ignore-term")).assert_status(200);
    let pid = server.pid();
    assert_eq!(processes_of(pid), 6, "two models, three processes each");
    server.kill(Signal::SIGKILL);
    wait::until_true("the end of all processes", || processes_of(pid) == 0);
}

/// Whatever says on its command line that it belongs to this supervisor.
fn processes_of(supervisor: u32) -> usize {
    let wanted = format!("supervisor={supervisor}");
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.split(|b| *b == 0).any(|word| word == wanted.as_bytes())).count()
}

#[test]
fn a_real_model_runs_in_every_confinement() {
    let test = "a_real_model_runs_in_every_confinement";
    let Some(models) = folder_or_skip("BULKHEAD_MODELS", test) else { return };
    if !binaries().join("bulkhead-worker-torch").is_file() {
        return skipped(test, "bulkhead-worker-torch is not built; use scripts/test");
    }
    for (level, user) in at_every_level(&users(another_user_with_torch_or_skip(test))) {
        let builder = Supervisor::new()
            .copy_of("digits", &models.join("digits"))
            .set("worker.slot_size", "4KiB")
            .set("worker.confinement", level);
        let server = of_user(builder, user).start();
        let said = server.logs().wait_for_number(1, "digits", "worker confined");
        assert!(said[0]["holds"].as_str().is_some_and(|holds| holds.contains("seccomp")));
        // 32 images of 256 bytes are more than a slot has.
        let images = vec![0; 32 * 64 * 4];
        let infer = Infer::new("digits").tensor("image", "FP32", &[32, 1, 8, 8], &images);
        let answer = server.infer(&infer);
        assert_eq!(answer.assert_status(200).data().len(), 32 * 10 * 4, "{level}");
        let all = MEASURES.iter().chain(if level == "strict" { NAMESPACES } else { &[] });
        let _said = holds_or_skip(&server, "digits", &all.copied().collect::<Vec<_>>(), test);
    }
}

#[test]
fn a_real_model_has_large_outputs_in_every_confinement() {
    let test = "a_real_model_has_large_outputs_in_every_confinement";
    let Some(models) = folder_or_skip("BULKHEAD_TEST_MODELS", test) else { return };
    if !binaries().join("bulkhead-worker-torch").is_file() {
        return skipped(test, "bulkhead-worker-torch is not built; use scripts/test");
    }
    for level in LEVELS {
        let server = Supervisor::new()
            .torch("t", &models.join("identity.pt"))
            .set("worker.slot_size", "4KiB")
            .set("worker.confinement", level)
            .start();
        let bytes: Vec<u8> = (0..10_000_u16).flat_map(|i| f32::from(i).to_le_bytes()).collect();
        let infer = Infer::new("t").tensor("x", "FP32", &[10_000], &bytes);
        assert_eq!(server.infer(&infer).assert_status(200).data(), bytes, "{level}");
    }
}
