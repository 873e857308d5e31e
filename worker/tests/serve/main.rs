//! The real worker process against a supervisor that is just large enough.

mod device;
mod harness;

use std::os::fd::AsFd;

use harness::{handshake, handshake_for, serve, spawn, spawn_mine, spec, unconfined};
use proto::control::{Command, Confinement, Fact, Level, LoadSpec, Taken, WorkerExit};
use shared::ring::layout::{Place, Status};
use shared::sys::socket::{self, Wait};

#[test]
fn an_echo_comes_back_and_shutdown_exits_cleanly() {
    let mut worker = serve();
    for length in [0, 1, 64, 1000] {
        let reply = worker.ask(&vec![7; length], "");
        assert_eq!((reply.completion.status, reply.completion.place), (Status::Ok, Place::Slot));
        assert_eq!(reply.outputs[0].1, vec![7; length]);
    }
    worker.commands.send(Command::Shutdown).unwrap();
    assert_eq!(worker.process.ended_as(), WorkerExit::Clean);
}

#[test]
fn what_does_not_fit_a_slot_has_memory_of_its_own() {
    let mut worker = serve();
    let large: Vec<u8> = (0..100_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    let both_ways = worker.ask(&large, "");
    assert_eq!(both_ways.completion.place, Place::Own(large.len()));
    assert_eq!(both_ways.outputs[0].1, large);
    let grown = worker.ask(&[1, 2, 3], "grow 3000");
    assert_eq!(grown.outputs[0].0.shape.dims(), [9000]);
    assert_eq!(grown.outputs[0].1, [1, 2, 3].repeat(3000));
    assert_eq!(worker.ask(&[9], "").outputs[0].1, [9]);
}

#[test]
fn errors_of_a_request_are_its_own() {
    let mut worker = serve();
    let expected = [
        ("fail the\nmodel", Status::Model, "the model"),
        ("invalid shape", Status::InvalidInput, "shape"),
        ("oom", Status::OutOfMemory, "out of memory"),
        ("dance", Status::InvalidInput, "there is no command \"dance\""),
    ];
    for (command, status, message) in expected {
        let reply = worker.ask(&[1], command);
        assert_eq!((reply.completion.status, &*reply.message), (status, message));
        assert!(reply.outputs.is_empty());
    }
    let long = worker.ask(&[1], &format!("fail {}", "ü".repeat(1500)));
    assert_eq!(long.message, "ü".repeat(1024));
    assert_eq!(worker.ask(&[5; 3], "delay 1ms").outputs[0].1, [5; 3]);
}

#[test]
fn an_expired_request_is_not_run_and_its_memory_is_passed_over() {
    let mut worker = serve();
    worker.submit(&[1; 9000], "crash abort", 1);
    assert_eq!(worker.reply().completion.status, Status::Expired);
    assert_eq!(worker.ask(&[2; 9000], "").outputs[0].1, [2; 9000]);
}

#[test]
fn shutdown_answers_first_what_was_published() {
    let mut worker = serve();
    for _ in 0..3 {
        worker.submit(&[1], "delay 20ms", u64::MAX);
    }
    worker.commands.send(Command::Shutdown).unwrap();
    assert_eq!(worker.process.ended_as(), WorkerExit::Clean);
    for _ in 0..3 {
        assert_eq!(worker.reply().completion.status, Status::Ok);
    }
}

#[test]
fn a_worker_ends_with_its_supervisor_however_busy_it_is() {
    for command in ["", "hang", "hang sleep"] {
        let mut worker = serve();
        worker.submit(&[1], command, u64::MAX);
        let (closed, _) = ipc_channel::ipc::channel().unwrap();
        worker.commands = closed;
        assert_eq!(worker.process.ended(), -9);
    }
}

#[test]
fn a_closed_control_socket_ends_a_worker_that_has_something_to_say() {
    let mut worker = serve();
    let (other, _) = socket::pair().unwrap();
    worker.process.socket = other;
    worker.submit(&[1], "grow 9000", u64::MAX);
    assert_eq!(worker.process.ended_as(), WorkerExit::Transport);
}

#[test]
fn faults_end_as_they_should() {
    let faults = [("segv", -11), ("abort", -6), ("kill", -9), ("exit", 0), ("exit 9", 9)];
    for (how, ended) in faults {
        let mut worker = serve();
        worker.submit(&[1], &format!("crash {how}"), u64::MAX);
        assert_eq!(worker.process.ended(), ended, "{how}");
    }
}

#[test]
fn a_hostile_worker_is_seen_through() {
    let mut worker = serve();
    worker.submit(&[1], "forge", u64::MAX);
    assert_eq!(worker.reply().completion.request.0, u64::MAX, "not the request that was sent");
    worker.submit(&[1], "malformed-fact", u64::MAX);
    let mut inbox = socket::Inbox::new(64);
    let packet = loop {
        let packet = inbox.receive(worker.process.socket.as_fd(), Wait::Block);
        let packet = packet.unwrap().unwrap();
        if packet.len > 1 {
            break packet;
        }
    };
    assert!(proto::codec::decode::<Fact>(inbox.bytes(&packet)).is_err());
}

#[test]
fn what_cannot_be_loaded_is_reported_before_the_end() {
    let cases = [
        (spec(&[("load_fail", "broken")]), "broken", true),
        (spec(&[("load_fail_transient", "busy")]), "busy", false),
        (
            LoadSpec { engine: "onnx".into(), ..spec(&[]) },
            "this worker has no engine \"onnx\", only echo",
            true,
        ),
    ];
    for (spec, message, permanent) in cases {
        let mut worker = handshake();
        worker.commands.send(Command::Load(spec)).unwrap();
        worker.confined();
        let expected = Fact::LoadFailed { message: message.into(), permanent };
        assert_eq!(worker.fact().0, expected);
        assert_eq!(worker.process.ended_as(), WorkerExit::LoadFailed);
    }
    let mut worker = handshake();
    worker.commands.send(Command::Load(spec(&[("load_crash", "abort")]))).unwrap();
    assert_eq!(worker.process.ended(), -6);
}

#[test]
fn a_model_that_says_nothing_of_itself_is_echoed_too() {
    let mut worker = handshake();
    let nothing = LoadSpec { inputs: vec![], outputs: vec![], ..spec(&[]) };
    worker.commands.send(Command::Load(nothing)).unwrap();
    worker.confined();
    let (fact, _) = worker.fact();
    let Fact::Loaded(loaded) = fact else { panic!("{fact:?}") };
    assert_eq!(loaded.inputs[0].name, "INPUT0");
    assert_eq!(loaded.outputs[0].name, "OUTPUT0");
    assert!(loaded.peak_rss > 0);
    assert_eq!(worker.ask(&[4; 8], "").outputs[0].1, [4; 8]);
}

#[test]
fn peak_memory_is_the_worker_s_own() {
    // Kept until after the start: a spawned process can inherit its parent's high-water mark.
    let ballast = std::hint::black_box(vec![1_u8; 200 << 20]);
    let mut worker = handshake();
    drop(ballast);
    worker.commands.send(Command::Load(spec(&[]))).unwrap();
    worker.confined();
    let (fact, _) = worker.fact();
    let Fact::Loaded(loaded) = fact else { panic!("{fact:?}") };
    assert!((1 << 20..100 << 20).contains(&loaded.peak_rss), "{}", loaded.peak_rss);
}

#[test]
fn bad_starts_have_their_exit_codes() {
    assert_eq!(spawn(&["echo"]).ended_as(), WorkerExit::BadStart);
    assert_eq!(spawn(&["echo", "supervisor=1"]).ended_as(), WorkerExit::BadStart);
    let mut garbage = spawn_mine();
    socket::send(garbage.socket.as_fd(), &[0xff; 100], &[], Wait::Never).unwrap();
    assert_eq!(garbage.ended_as(), WorkerExit::Handshake);
    let mut early = handshake();
    early.commands.send(Command::Shutdown).unwrap();
    assert_eq!(early.process.ended_as(), WorkerExit::NoLoad);
}

#[test]
fn a_limit_on_private_memory_holds_and_leaves_large_outputs_alone() {
    let limited =
        Confinement { level: Level::Standard, data_limit: Some(256 << 20), ..unconfined() };
    let mut worker = handshake_for(limited);
    worker.commands.send(Command::Load(spec(&[]))).unwrap();
    let measures = worker.confined();
    let limit = measures.iter().find(|measure| measure.name == "data limit").unwrap();
    assert!(matches!(&limit.outcome, Taken::Holds(how) if how.contains("256 MiB")), "{limit:?}");
    assert!(matches!(worker.fact().0, Fact::Loaded(_)));
    assert_eq!(worker.ask(&[1], "leak 200MiB").completion.status, Status::Ok);
    for beyond in ["leak 60MiB", "probe shared"] {
        assert_ne!(worker.ask(&[1], beyond).completion.status, Status::Ok, "{beyond}");
    }
    let grown = worker.ask(&[7; 4000], "grow 1000");
    assert_eq!(grown.outputs[0].1.len(), 4_000_000);
    // 280 MB in one object.
    assert_eq!(worker.ask(&[7; 4000], "grow 70000").completion.status, Status::OutOfMemory);
    assert_eq!(worker.ask(&[1], "").completion.status, Status::Ok);
}
