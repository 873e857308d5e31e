//! What one worker may use of the machine: each limit held by what the machine has, said on which
//! rung, and nothing left over of it.

use std::fs::{self, DirBuilder};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use tests::cgroups::{self, groups_of, leaves_of, setting};
use tests::supervisor::Builder;
use tests::{Echo, Infer, Supervisor, another_user_or_skip, torch_or_skip, wait};

/// A user who owns nothing.
const NOBODY: u32 = 65534;

fn victim_and_neighbour() -> Builder {
    Supervisor::with_echo("victim")
        .echo("neighbour", &Echo::default())
        .set("log.filter", "info,supervisor::lifecycle::driver=debug")
        .set("restart.max_restarts", "1000")
        .set("restart.backoff.initial", "20ms")
        .set("restart.backoff.factor", "1.0")
}

/// What was said to hold the newest worker of `model`.
fn limits_of(server: &Supervisor, model: &str) -> String {
    let said = server.logs().wait_for_number(1, model, "worker started");
    said.last().and_then(|event| event["limits"].as_str()).unwrap_or_default().to_owned()
}

fn last_exit(server: &Supervisor, model: &str) -> (String, String) {
    let exits = server.logs().wait_for_number(1, model, "worker exited");
    let text = |key: &str| exits[0][key].as_str().unwrap_or_default().to_owned();
    (text("how"), text("why"))
}

/// Whether control groups hold this, or the test said that it is skipped.
fn is_held_by_groups(server: &Supervisor, what: &str, test: &str) -> bool {
    let limits = limits_of(server, "victim");
    let held = limits.split("; ").any(|part| part.starts_with(what) && part.contains("cgroup v"));
    if !held {
        tests::skipped(test, &format!("no control groups for {what}: {limits}"));
    }
    held
}

/// Everything that the server has made for workers.
fn folders(server: &Supervisor) -> Vec<PathBuf> {
    let mut roots = groups_of(server.pid());
    roots.extend(inside(&server.scratch()));
    roots.iter().flat_map(inside).collect()
}

fn inside(folder: &PathBuf) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Waits until there is nothing but what belongs to so many workers.
fn wait_for_folders_of(server: &Supervisor, workers: usize) {
    let scratch = || inside(&server.scratch()).iter().map(|own| inside(own).len()).sum::<usize>();
    let leaves = || groups_of(server.pid()).iter().all(|group| inside(group).len() == workers);
    wait::until_true("folders of no more workers", || scratch() == workers && leaves());
}

#[test]
fn a_memory_bomb_ends_its_worker_and_no_other() {
    let test = "a_memory_bomb_ends_its_worker_and_no_other";
    let server = victim_and_neighbour().set("models.victim.memory_limit", "64MiB").start();
    if !is_held_by_groups(&server, "memory", test) {
        return;
    }
    let neighbour = server.load_on("neighbour");
    server.infer(&Infer::command("victim", "leak 300MiB").once()).assert_status(500);
    let (how, why) = last_exit(&server, "victim");
    assert_eq!((how.as_str(), why.as_str()), ("it ran out of host memory", how.as_str()));
    server.infer(&Infer::echo("victim")).assert_status(200);
    neighbour.wait_for_more(10);
    neighbour.assert_no_errors();
}

#[test]
fn the_same_signal_without_a_word_of_the_kernel_is_not_memory() {
    let server = victim_and_neighbour().set("models.victim.memory_limit", "64MiB").start();
    server.infer(&Infer::command("victim", "crash kill").once()).assert_status(500);
    assert_eq!(last_exit(&server, "victim").0, "it was ended by signal 9 (SIGKILL)");
}

#[test]
fn where_nothing_else_holds_it_memory_is_watched() {
    let server = victim_and_neighbour()
        .set("limits.cgroup", "off")
        .set("worker.confinement", "none")
        .set("models.victim.memory_limit", "64MiB")
        // The kill comes at once, whatever time a worker has to end by itself.
        .set("worker.stop_timeout", "1h")
        .start();
    assert!(limits_of(&server, "victim").contains("by a watchdog only"));
    server.logs().wait_for_number(1, "victim", "memory_limit is held by a watchdog only");
    assert!(server.logs().about("neighbour", "memory_limit is held by a watchdog only").is_empty());
    let neighbour = server.load_on("neighbour");
    let hoarder = server.infer_aside(Infer::command("victim", "leak 300MiB"));
    let (_, why) = last_exit(&server, "victim");
    assert!(why.contains("of host memory, memory_limit is 67108864"), "{why}");
    // It may have answered between two looks.
    let _late = hoarder.answer();
    server.infer(&Infer::echo("victim")).assert_status(200);
    neighbour.assert_no_errors();
}

/// A confinement bounds private memory and each object by itself: the objects together are left to the
/// watchdog, which looks at the worker inside of its namespaces.
#[test]
fn what_a_confined_worker_hoards_past_its_own_limit_is_watched() {
    for level in ["standard", "strict"] {
        let server = victim_and_neighbour()
            .set("limits.cgroup", "off")
            .set("worker.confinement", level)
            .set("models.victim.memory_limit", "64MiB")
            .set("worker.stop_timeout", "1h")
            .start();
        let limits = limits_of(&server, "victim");
        assert!(limits.contains("by RLIMIT_DATA and a watchdog"), "{limits}");
        let neighbour = server.load_on("neighbour");
        // Refused, and lived through.
        server.infer(&Infer::command("victim", "leak 300MiB").once()).assert_status(507);
        assert_eq!(server.worker("victim").generation, 1);
        let hoarder = server.infer_aside(Infer::command("victim", "objects 300MiB").once());
        let (_, why) = last_exit(&server, "victim");
        assert!(why.contains("of host memory, memory_limit is 67108864"), "{level}: {why}");
        // It may have answered between two looks.
        let _late = hoarder.answer();
        server.infer(&Infer::echo("victim")).assert_status(200);
        neighbour.assert_no_errors();
    }
}

/// Three processes have in common what a framework took before they were made: it is the worker's once,
/// and the limit allows no more.
#[test]
fn what_a_worker_shares_with_the_processes_around_it_counts_once() {
    let test = "what_a_worker_shares_with_the_processes_around_it_counts_once";
    let Some(models) = torch_or_skip("BULKHEAD_MODELS", test) else { return };
    for start in ["zygote", "exec"] {
        let server = Supervisor::new()
            .copy_of("digits", &models.join("digits"))
            .echo("other", &Echo::default())
            .set("limits.cgroup", "off")
            .set("worker.start", start)
            .set("worker.confinement", "strict")
            .set("models.digits.memory_limit", "128MiB")
            .set("models.other.infer_timeout", "500ms")
            .start();
        let worker = server.worker("digits");
        let image = Infer::new("digits").tensor("image", "FP32", &[1, 1, 8, 8], &[0; 256]);
        server.infer(&image).assert_status(200);
        // Many looks later.
        server.infer(&Infer::command("other", "hang").once()).assert_status(504);
        server.logs().wait_for_number(1, "other", "worker exited");
        server.infer(&image).assert_status(200);
        assert_eq!(server.worker("digits"), worker, "{start}");
    }
}

#[test]
fn where_nothing_else_holds_them_threads_are_counted() {
    for (confinement, held) in [
        ("standard", "processes 64 by a watchdog (processes by its confinement)"),
        ("none", "processes 64 by a watchdog only"),
    ] {
        let server = victim_and_neighbour()
            .set("limits.cgroup", "off")
            .set("worker.confinement", confinement)
            .set("models.victim.max_processes", "64")
            .set("worker.stop_timeout", "1h")
            .start();
        let limits = limits_of(&server, "victim");
        assert!(limits.contains(held), "{limits}");
        let neighbour = server.load_on("neighbour");
        let hoarder = server.infer_aside(Infer::command("victim", "threads 200").once());
        let exits = server.logs().wait_for_number(1, "victim", "worker exited");
        let why = exits[0]["why"].as_str().unwrap_or_default();
        assert!(why.contains("threads, max_processes is 64"), "{why}");
        assert_eq!(exits[0]["kind"], "quota");
        // It may have answered between two looks.
        let _late = hoarder.answer();
        server.infer(&Infer::echo("victim")).assert_status(200);
        neighbour.assert_no_errors();
    }
}

#[test]
fn a_worker_that_limits_itself_is_said_to() {
    let server = victim_and_neighbour()
        .set("limits.cgroup", "off")
        .set("models.victim.memory_limit", "1GiB")
        .set("models.victim.cpu_limit", "0.5")
        .start();
    let limits = limits_of(&server, "victim");
    assert!(limits.starts_with("memory 1073741824 bytes by RLIMIT_DATA"), "{limits}");
    assert!(limits.contains("cpu 0.5 cores by nothing"), "{limits}");
    assert!(limits.contains("tree ended by its process group"), "{limits}");
    let said = "cpu_limit is not held: no control group for it";
    assert_eq!(server.logs().wait_for_number(1, "victim", said).len(), 1);
    assert!(groups_of(server.pid()).is_empty());
}

#[test]
fn processors_are_limited_and_weighed() {
    let test = "processors_are_limited_and_weighed";
    let server = victim_and_neighbour()
        .set("models.victim.cpu_limit", "0.5")
        .set("models.victim.cpu_weight", "200")
        .start();
    if !is_held_by_groups(&server, "cpu", test) {
        return;
    }
    let leaves = leaves_of(server.worker("victim").pid);
    let (v1, v2) = (setting(&leaves, "cpu.cfs_quota_us"), setting(&leaves, "cpu.max"));
    assert!(v1.as_deref() == Some("50000") || v2.as_deref() == Some("50000 100000"), "{leaves:?}");
    let (v1, v2) = (setting(&leaves, "cpu.shares"), setting(&leaves, "cpu.weight"));
    assert!(v1.as_deref() == Some("2048") || v2.as_deref() == Some("200"), "{leaves:?}");
    // With the neighbour's 100. A group that weighed less would have each wait for the other.
    let around: Vec<PathBuf> =
        leaves.iter().filter_map(|leaf| leaf.parent()?.canonicalize().ok()).collect();
    let weigh = |v1: &str, v2: &str| {
        let is = |file, value: &str| setting(&around, file).as_deref() == Some(value);
        is("cpu.shares", v1) || is("cpu.weight", v2)
    };
    let (v1, v2) = match std::thread::available_parallelism().map_or(1, usize::from) {
        1 => ("2048", "200"),
        _ => ("3072", "300"),
    };
    assert!(weigh(v1, v2), "{around:?}");
    server.client().unload("victim").assert_status(200);
    wait::until_true("a group that weighs as its one leaf", || weigh("1024", "100"));
}

/// A shell that starts far more processes than a worker may have, once it is let go.
fn fork_bomb() -> Child {
    let script = "read go; i=0; while [ $i -lt 100 ]; do sleep 600 & i=$((i+1)); done; wait";
    let mut command = Command::new("setsid");
    command.args(["sh", "-c", script]).stdin(Stdio::piped()).stderr(Stdio::null());
    command.spawn().expect("there is a shell")
}

#[test]
fn processes_are_limited_and_all_end_with_their_worker() {
    let test = "processes_are_limited_and_all_end_with_their_worker";
    let server = victim_and_neighbour().set("models.victim.max_processes", "16").start();
    if !is_held_by_groups(&server, "processes", test) {
        return;
    }
    let worker = server.worker("victim");
    let leaves = leaves_of(worker.pid);
    let mut bomb = fork_bomb();
    cgroups::put(bomb.id(), &leaves);
    bomb.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let refused = || setting(&leaves, "pids.events").is_some_and(|text| text != "max 0");
    wait::until_true("a fork that was refused", refused);
    let count = setting(&leaves, "pids.current").and_then(|count| count.parse::<u32>().ok());
    assert!(count.is_some_and(|count| count <= 16), "{count:?}");
    worker.kill(Signal::SIGKILL);
    bomb.wait().unwrap();
    wait::until_true("the end of the whole tree", || leaves.iter().all(|leaf| !leaf.exists()));
    wait_for_folders_of(&server, 2);
    server.infer(&Infer::echo("victim")).assert_status(200);
}

#[test]
fn a_worker_has_a_folder_of_its_own() {
    // The environment of a copy cannot be read from outside.
    let server = victim_and_neighbour().set("worker.start", "exec").start();
    let (one, other) = (server.worker("victim"), server.worker("neighbour"));
    let scratch = PathBuf::from(one.variable("TMPDIR").unwrap());
    assert_eq!(one.variable("HOME").as_deref(), scratch.to_str());
    assert!(scratch.starts_with(server.scratch()) && scratch.is_absolute());
    assert_ne!(one.variable("TMPDIR"), other.variable("TMPDIR"));
    assert_eq!(fs::metadata(&scratch).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn what_a_worker_leaves_in_its_folder_goes_with_it() {
    let server = victim_and_neighbour().set("worker.start", "exec").start();
    let worker = server.worker("victim");
    let scratch = PathBuf::from(worker.variable("TMPDIR").unwrap());
    let kept = tempfile::tempdir().unwrap();
    fs::write(kept.path().join("file"), "kept").unwrap();
    fs::create_dir_all(scratch.join("a/b/c/d")).unwrap();
    std::os::unix::fs::symlink(kept.path(), scratch.join("a/link")).unwrap();
    DirBuilder::new().mode(0o000).create(scratch.join("a/b/closed")).unwrap();
    worker.kill(Signal::SIGKILL);
    wait::until_true("the end of the folder", || !scratch.exists());
    wait_for_folders_of(&server, 2);
    assert!(kept.path().join("file").exists());
    server.infer(&Infer::echo("victim")).assert_status(200);
}

#[test]
fn nothing_is_left_of_an_unload_and_of_a_drained_server() {
    let mut server = victim_and_neighbour().start();
    wait_for_folders_of(&server, 2);
    server.client().unload("victim").assert_status(200);
    wait_for_folders_of(&server, 1);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    assert!(groups_of(server.pid()).is_empty());
    assert!(inside(&server.scratch()).is_empty());
}

#[test]
fn the_next_start_sweeps_what_a_killed_server_left_and_no_more() {
    let shared = tempfile::tempdir().unwrap();
    let scratch = format!("{:?}", shared.path());
    let start =
        || Supervisor::with_echo("m").set("scratch", &scratch).set("worker.start", "exec").start();
    let (living, mut killed) = (start(), start());
    let (pid, of_living) = (killed.pid(), groups_of(living.pid()));
    assert_eq!(inside(&shared.path().to_owned()).len(), 2);
    killed.kill(Signal::SIGKILL);
    let next = start();
    wait::until_true("what was swept", || {
        inside(&shared.path().to_owned()).len() == 2 && groups_of(pid).is_empty()
    });
    assert_eq!(groups_of(living.pid()), of_living);
    for server in [&living, &next] {
        let folder = server.worker("m").variable("TMPDIR").unwrap();
        assert!(PathBuf::from(folder).exists());
        server.infer(&Infer::echo("m")).assert_status(200);
    }
}

#[test]
fn an_ordinary_user_has_less_and_is_told_so() {
    if !another_user_or_skip("an_ordinary_user_has_less_and_is_told_so") {
        return;
    }
    let mut server = victim_and_neighbour()
        .set("models.victim.memory_limit", "64MiB")
        .set("models.victim.confinement", "none")
        .user(NOBODY)
        .start();
    assert!(limits_of(&server, "victim").contains("by a watchdog only"));
    assert!(groups_of(server.pid()).is_empty());
    let hoarder = server.infer_aside(Infer::command("victim", "leak 300MiB"));
    assert!(last_exit(&server, "victim").1.contains("memory_limit is 67108864"));
    let _late = hoarder.answer();
    server.infer(&Infer::echo("victim")).assert_status(200);
    wait_for_folders_of(&server, 2);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    assert!(folders(&server).is_empty());
}

#[test]
fn groups_are_made_where_the_configuration_says() {
    let test = "groups_are_made_where_the_configuration_says";
    let server = victim_and_neighbour().start();
    if !is_held_by_groups(&server, "processes", test) {
        return;
    }
    let leaves = leaves_of(server.worker("victim").pid);
    let leaf = leaves.iter().find(|leaf| leaf.join("pids.max").exists()).unwrap();
    let folder = leaf.ancestors().nth(2).unwrap().join(format!("of-test-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    let path = format!("{folder:?}");
    let mut only = victim_and_neighbour().set("limits.cgroup", &path).start();
    let limits = limits_of(&only, "victim");
    assert!(limits.contains("memory unlimited"), "{limits}");
    assert!(limits.contains("processes 256 by cgroup v"), "{limits}");
    assert!(leaves_of(only.worker("victim").pid).iter().all(|leaf| leaf.starts_with(&folder)));
    only.signal(Signal::SIGTERM);
    assert_eq!(only.wait_for_exit().code(), Some(0));
    fs::remove_dir(&folder).unwrap();
}

#[test]
fn a_folder_that_is_no_control_group_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let setting = format!("limits.cgroup={:?}", folder.path());
    let repository = tempfile::tempdir().unwrap();
    let models = format!("repository.paths=[{:?}]", repository.path());
    let arguments = ["serve", "--set", "http.listen=127.0.0.1:0", "--set", &models];
    let mut command = tests::supervisor::command(folder.path(), &arguments);
    let output = command.arg("--set").arg(&setting).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("limits.cgroup") && text.contains("no folder"), "{text}");
}
