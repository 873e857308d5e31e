//! Requests that were in flight when their worker ended: the innocent are answered by the next one,
//! and what ends its workers is refused, with one model's workers as the only ones that noticed.

use nix::sys::signal::Signal;
use tests::Aside;
use tests::supervisor::Builder;
use tests::{Echo, Infer, Supervisor, wait};

/// Restarts are quick and never run out; all that is sent together is in flight together.
fn quick(name: &str) -> Builder {
    Supervisor::with_echo(name)
        .set("restart.max_restarts", "1000")
        .set("restart.backoff.initial", "10ms")
        .set("restart.backoff.max", "10ms")
        .set("worker.slots", "32")
}

fn numbered(model: &str, number: u16) -> Infer {
    Infer::new(model).floats(&[f32::from(number), 0.5])
}

fn innocents(server: &Supervisor, count: u16) -> Vec<(Infer, Aside)> {
    let send = |number| (numbered("m", number), server.infer_aside(numbered("m", number)));
    (0..count).map(send).collect()
}

#[track_caller]
fn assert_all_answered(innocents: Vec<(Infer, Aside)>) {
    for (infer, aside) in innocents {
        let answer = aside.answer();
        assert!(infer.is_echoed_by(&answer), "{} {}", answer.status, answer.text());
    }
}

/// Keeps the only worker busy for a moment, so that what is sent meanwhile is in flight with what is
/// sent last.
fn with_company(server: &Supervisor, last: Infer) -> (Vec<(Infer, Aside)>, Aside) {
    let slow = server.infer_aside(numbered("m", 1000).and_command("delay 300ms"));
    let others = innocents(server, 16);
    let last = server.infer_aside(last);
    slow.answer().assert_status(200);
    (others, last)
}

#[test]
fn a_killer_takes_nobody_with_it_and_is_refused() {
    let server = quick("m").echo("neighbour", &Echo::default()).start();
    let neighbour = server.load_on("neighbour");
    let killer = || Infer::command("m", "crash segv");
    let (others, last) = with_company(&server, killer());
    let refused = last.answer();
    let text = refused.assert_status(422).error();
    assert!(text.contains("ended 2 workers of model 'm'"), "{text}");
    assert!(text.contains("accepted again in "), "{text}");
    assert_all_answered(others);

    server.wait_for_generation("m", 3);
    let worker = server.worker("m");
    for _ in 0..3 {
        server.infer(&killer()).assert_status(422);
        server.infer(&killer().once()).assert_status(422);
    }
    server.infer(&Infer::echo("m")).assert_status(200);
    assert_eq!(server.worker("m"), worker, "no worker was given it");
    let convicted = server.logs().wait_for_number(1, "m", "request convicted");
    assert_eq!(convicted[0]["fingerprint"].as_str().unwrap().len(), 16);
    assert_eq!((&convicted[0]["generation"], &convicted[0]["crashes"]), (&2.into(), &2.into()));
    // Each end tells of what was in flight: first it was one of many.
    let exits = server.logs().wait_for_number(2, "m", "worker exited");
    let told = |exit: &serde_json::Value| exit["fingerprints"].as_str().unwrap().to_owned();
    let killer_s = convicted[0]["fingerprint"].as_str().unwrap();
    assert!(told(&exits[0]).split(' ').any(|print| print == killer_s), "{exits:?}");
    assert_eq!(told(&exits[1]), killer_s);
    neighbour.assert_no_errors();
}

#[test]
fn many_copies_of_a_killer_end_two_workers_and_no_more() {
    let server = quick("m").start();
    let killers: Vec<_> =
        (0..16).map(|_| server.infer_aside(Infer::command("m", "crash abort"))).collect();
    let others = innocents(&server, 16);
    for killer in killers {
        killer.answer().assert_status(422);
    }
    assert_all_answered(others);
    server.infer(&Infer::echo("m")).assert_status(200);
    assert_eq!(server.worker("m").generation, 3);
}

#[test]
fn what_must_not_run_twice_does_not_and_counts_alike() {
    let server = quick("m").start();
    let killer = || Infer::command("m", "crash kill").once();
    let first = server.infer(&killer());
    assert!(first.assert_status(500).error().contains("worker of model 'm' ended"));
    server.wait_for_generation("m", 2);
    server.infer(&killer()).assert_status(422);
    server.wait_for_generation("m", 3);
    server.infer(&killer()).assert_status(422);
    assert_eq!(server.worker("m").generation, 3);
}

#[test]
fn a_refused_request_is_tried_again_when_its_time_has_passed() {
    let server = quick("m").set("worker.poison_ttl", "3s").start();
    let killer = || Infer::command("m", "crash segv");
    server.infer(&killer()).assert_status(422);
    server.wait_for_generation("m", 3);
    wait::until_true("a refusal that has ended", || {
        server.infer(&killer()).assert_status(422);
        server.worker_generations("m").iter().any(|&generation| generation > 3)
    });
}

#[test]
fn a_kill_from_outside_costs_time_and_leaves_no_suspicion() {
    let server = quick("m").start();
    let worker = server.worker("m");
    // Enough work to be in the middle of it when the worker is seen to be at it.
    let busy = |number| numbered("m", number).and_command("allocate 16MiB");
    let asides: Vec<_> =
        (0..24).map(|number| (busy(number), server.infer_aside(busy(number)))).collect();
    worker.wait_until_busy();
    worker.kill(Signal::SIGKILL);
    assert_all_answered(asides);
    server.logs().wait_for_number(1, "m", "request suspect");
    let suspects = server.logs().about("m", "request suspect").len();
    server.logs().wait_for_number(suspects, "m", "request no longer suspect");
    assert!(server.logs().about("m", "request convicted").is_empty());
}

#[test]
fn large_inputs_go_to_the_next_worker_as_well() {
    let bytes_only = Echo::default().datatype("TYPE_UINT8");
    let server = quick("m").echo("m", &bytes_only).set("worker.slot_size", "4KiB").start();
    let bytes = |length: usize| -> Vec<u8> { (0..251).cycle().take(length).collect() };
    let infer =
        |length: usize| Infer::new("m").tensor("INPUT0", "UINT8", &[length], &bytes(length));
    let slow = server.infer_aside(infer(50_000).and_command("delay 400ms"));
    let others: Vec<_> = [100, 4096, 5000, 100_000, 3_000_000]
        .map(|n| (infer(n), server.infer_aside(infer(n))))
        .into();
    server.worker("m").kill(Signal::SIGKILL);
    slow.answer().assert_status(200);
    assert_all_answered(others);
    // One that is handed over at the moment of the end moves on like any other.
    for length in [5000, 100_000].iter().cycle().take(10) {
        wait::until("a worker", || server.workers_of("m").pop()).kill(Signal::SIGKILL);
        let infer = infer(*length);
        let answer = server.infer(&infer);
        assert!(infer.is_echoed_by(&answer), "{} {}", answer.status, answer.text());
    }
}

#[test]
fn a_hang_is_the_matter_of_whoever_hung() {
    let server = quick("m")
        .set("worker.infer_timeout", "2500ms")
        .set("worker.stop_timeout", "100ms")
        .start();
    let hang = || Infer::command("m", "hang");
    let hanging = server.infer_aside(hang());
    hanging.answer().assert_status(504);
    // The worker has it still, and was given these as well. They have time left when it is ended.
    assert_all_answered(innocents(&server, 8));
    server.wait_for_generation("m", 2);
    assert_eq!(server.logs().about("m", "request suspect").len(), 1);
    server.infer(&hang()).assert_status(504);
    server.wait_for_generation("m", 3);
    server.infer(&hang()).assert_status(422);
    assert_eq!(server.worker("m").generation, 3);
}

#[test]
fn where_it_is_off_nothing_is_refused() {
    let server = quick("m").set("worker.poison_after", "0").start();
    for round in 0..3 {
        let (others, last) = with_company(&server, Infer::command("m", "crash exit 3"));
        last.answer().assert_status(500);
        assert_all_answered(others);
        server.wait_for_generation("m", 3 + 2 * round);
    }
    assert!(server.logs().about("m", "request suspect").is_empty());
}

#[test]
fn one_worker_is_enough_to_be_refused_where_one_is_allowed() {
    let server = quick("m").set("models.m.poison_after", "1").start();
    let text = server.infer(&Infer::command("m", "crash exit")).assert_status(422).error();
    assert!(text.contains("ended 1 worker of"), "{text}");
    server.infer(&Infer::echo("m")).assert_status(200);
    assert_eq!(server.worker("m").generation, 2);
}

#[test]
fn a_suspect_leaves_the_other_instances_to_the_others() {
    let server = quick("m").set("models.m.instances", "2").start();
    server.wait_for_instances("m", 2);
    let load = server.load_on("m");
    let slow = || Infer::command("m", "delay 300ms");
    let first = server.infer_aside(slow().parameter("retry", true));
    load.wait_for_more(5);
    // It may be in either of the two.
    server.workers_of("m")[0].kill(Signal::SIGKILL);
    first.answer().assert_status(200);
    load.wait_for_more(5);
    server.infer(&slow()).assert_status(200);
    load.assert_no_errors();
}

#[test]
fn what_ends_on_purpose_makes_nobody_suspect() {
    let server =
        quick("m").set("worker.drain_timeout", "100ms").set("worker.stop_timeout", "100ms").start();
    for _ in 0..3 {
        let hanging = server.hang("m");
        let (others, mut client) = (innocents(&server, 8), server.client());
        client.unload("m").assert_status(200);
        hanging.answer().assert_status(500);
        for (_, aside) in others {
            let status = aside.answer().status;
            assert!([200, 404, 500, 503].contains(&status), "{status}");
        }
        client.load("m").assert_status(200);
        server.infer(&Infer::echo("m")).assert_status(200);
    }
    assert!(server.logs().about("m", "request suspect").is_empty());
    assert!(server.logs().about("m", "request convicted").is_empty());
}

#[test]
fn a_load_anew_keeps_what_is_known_and_an_unload_forgets_it() {
    let server = quick("m").start();
    let killer = || Infer::command("m", "crash segv");
    server.infer(&killer()).assert_status(422);
    server.client().load("m").assert_status(200);
    wait::until_true("one worker", || server.workers_of("m").len() == 1);
    let worker = server.worker("m");
    server.infer(&killer()).assert_status(422);
    assert_eq!(server.worker("m"), worker);
    server.client().unload("m").assert_status(200);
    server.client().load("m").assert_status(200);
    server.infer(&killer().once()).assert_status(500);
}
