//! What the processes look like from outside: names, memory, descriptors, files.

use nix::sys::signal::Signal;
use tests::supervisor::Builder;
use tests::workers::{descriptors, private_memory};
use tests::{Echo, Infer, Supervisor, wait};

#[test]
fn ps_shows_which_worker_serves_what() {
    let two = Echo::default()
        .versions(&[3, 12])
        .with("version_policy { all {} }")
        .with("instance_group [ { count: 2 } ]");
    let server = Supervisor::new().echo("digits", &two).start();
    server.wait_for_instances("digits", 4);
    let lines: Vec<String> = server.workers().into_iter().map(|w| w.command_line).collect();
    let line = |version, instance| {
        let pid = server.pid();
        format!(
            "bulkhead-worker digits version={version} instance={instance} generation=1 \
             supervisor={pid}"
        )
    };
    assert_eq!(lines, [line(3, 0), line(3, 1), line(12, 0), line(12, 1)]);
}

#[test]
fn an_echo_worker_maps_no_libtorch() {
    let server = Supervisor::with_echo("m").start();
    server.infer(&Infer::echo("m")).assert_status(200);
    let maps = server.worker("m").maps();
    assert!(maps.contains("bulkhead-worker"), "{maps}");
    for library in ["libtorch", "libc10", "libcuda"] {
        assert!(!maps.contains(library), "{library}: {maps}");
    }
}

fn ten_models() -> Builder {
    (0..10).fold(Supervisor::new(), |builder, i| builder.echo(&format!("m{i}"), &Echo::default()))
}

/// Promised: under 60 MB, apart from the memory that holds requests and replies.
#[test]
fn the_supervisor_is_small_beside_ten_idle_workers() {
    let server = ten_models().start();
    for i in 0..10 {
        server.infer(&Infer::echo(&format!("m{i}"))).assert_status(200);
    }
    let kilobytes = private_memory(server.pid());
    tests::say(&format!("the supervisor of ten workers has {kilobytes} kB resident"));
    assert!(kilobytes < 60_000, "{kilobytes} kB");
}

#[test]
fn restarts_leak_no_descriptor_and_no_file() {
    let server = Supervisor::with_echo("m")
        .set("restart.max_restarts", "1000")
        .set("restart.backoff.max", "5ms")
        .set("restart.backoff.initial", "1ms")
        .start();
    server.infer(&Infer::echo("m")).assert_status(200);
    let (open, files) = (server.open_descriptors(), server.temporary_files());
    let crashes = ["kill", "segv", "exit", "abort"];
    for (i, crash) in (0_u8..20).zip(crashes.iter().cycle()) {
        // Each is another request, so that none is refused.
        let crash = Infer::new("m").floats(&[i.into()]).and_command(&format!("crash {crash}"));
        server.infer(&crash.once()).assert_status(500);
    }
    for i in 20_u8..25 {
        server
            .infer(&Infer::new("m").floats(&[i.into()]).and_command("crash kill"))
            .assert_status(422);
    }
    server.infer(&Infer::echo("m")).assert_status(200);
    assert_eq!(server.temporary_files(), files);
    wait::until_true(&format!("{open} descriptors again"), || server.open_descriptors() <= open);
}

#[test]
fn loads_and_unloads_leak_no_descriptor_and_no_file() {
    let server = Supervisor::with_echo("m").start();
    let (open, files) = (server.open_descriptors(), server.temporary_files());
    let mut client = server.client();
    for _ in 0..10 {
        client.unload("m").assert_status(200);
        client.load("m").assert_status(200);
        client.load("m").assert_status(200);
    }
    drop(client);
    assert_eq!(server.temporary_files(), files);
    wait::until_true(&format!("{open} descriptors again"), || server.open_descriptors() <= open);
}

#[test]
fn connections_and_large_tensors_leak_no_descriptor() {
    let server = Supervisor::with_echo("m").set("worker.slot_size", "4KiB").start();
    let large = Infer::new("m").floats(&vec![1.5; 10_000]);
    assert!(large.is_echoed_by(&server.infer(&large)));
    let worker = server.worker("m");
    let (open, of_worker) = (server.open_descriptors(), worker.descriptors().len());
    for _ in 0..50 {
        assert!(large.is_echoed_by(&server.infer(&large)));
    }
    wait::until_true("the worker's descriptors", || worker.descriptors().len() == of_worker);
    wait::until_true(&format!("{open} descriptors again"), || server.open_descriptors() <= open);
}

/// Whatever the supervisor has open, a worker gets its own socket and log, and opens the rest
/// itself.
#[test]
fn a_worker_has_no_descriptor_of_anything_else() {
    let server = ten_models().start();
    let mut client = server.client();
    client.get("/v2").assert_status(200);
    server.worker("m0").kill(Signal::SIGKILL);
    server.wait_for_generation("m0", 2);
    let worker = server.worker("m0");
    let open = descriptors(worker.pid);
    let count = |kind: &str| open.iter().filter(|fd| fd.contains(kind)).count();
    assert_eq!(count("memfd:"), 0, "mapped, and closed: {open:?}");
    assert_eq!(count("pipe:"), 2, "its log: {open:?}");
    assert_eq!(count("/dev/null"), 1, "{open:?}");
    // The control socket, and the channel for commands.
    assert!((2..=3).contains(&count("socket:")), "{open:?}");
    let known = ["memfd:", "pipe:", "/dev/null", "socket:", "anon_inode:"];
    let stray = open.iter().find(|fd| !known.iter().any(|kind| fd.contains(kind)));
    assert_eq!(stray, None, "{open:?}");
}

#[test]
fn lines_of_a_worker_are_forwarded_with_its_name() {
    let server = Supervisor::with_echo("m").start();
    server.infer(&Infer::command("m", "print hello from the model")).assert_status(200);
    let line =
        server.logs().wait_for("the line", |event| event["message"] == "hello from the model");
    assert_eq!((&line["model"], &line["version"]), (&"m".into(), &1.into()));
    assert_eq!((&line["instance"], &line["generation"]), (&0.into(), &1.into()));
}

#[test]
fn a_flood_of_lines_is_bounded_and_harms_nobody() {
    let server = Supervisor::with_echo("m").echo("neighbour", &Echo::default()).start();
    let neighbour = server.load_on("neighbour");
    server.infer(&Infer::command("m", "flood-stderr 100000")).assert_status(200);
    neighbour.wait_for_more(10);
    neighbour.assert_no_errors();
    let lines = server.logs().lines();
    assert!(lines.len() < 2_000, "{} lines were logged", lines.len());
    server.infer(&Infer::echo("m")).assert_status(200);
}
