//! Answers that go on.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::{Infer, Operator, Supervisor, wait};

/// Receives until an item is as wanted.
fn until(operator: &mut Operator, wanted: impl Fn(&Value) -> bool) -> Value {
    wait::until("an item", || Some(operator.receive()["item"].clone()).filter(&wanted))
}

fn instance(status: &Value) -> &Value {
    &status["models"][0]["versions"][0]["instances"][0]
}

#[test]
fn whoever_watches_sees_a_worker_die_and_come_back() {
    let server = Supervisor::with_echo("m").echo("other", &tests::Echo::default()).start();
    let mut operator = server.operator();
    operator.send(b"{\"version\":1,\"command\":\"watch\",\"model\":\"m\"}\n");
    let worker = server.worker("m");
    let first = until(&mut operator, |_| true);
    assert_eq!(first["models"].as_array().map(Vec::len), Some(1));
    assert_eq!(instance(&first)["worker"]["pid"], worker.pid);
    worker.kill(Signal::SIGKILL);
    let again = until(&mut operator, |item| {
        instance(item)["exits"]["SIGKILL"] == 1 && instance(item)["state"] == "ready"
    });
    assert_eq!(instance(&again)["worker"]["generation"], 2);
    // Another command ends the stream, and is answered.
    operator.send(b"{\"version\":1,\"command\":\"quota\"}\n");
    let end = wait::until("the end", || Some(operator.receive()).filter(|r| r["end"].is_object()));
    assert_eq!(end["end"]["why"], "asked for something else");
    assert!(operator.receive()["ok"].is_object());
    let reply = operator.ask(json!({"command": "watch", "model": "nobody"}));
    assert_eq!(reply["error"]["code"], "unknown_model");
}

#[test]
fn whoever_watches_sees_the_server_end() {
    let mut server = Supervisor::with_echo("m").start();
    let mut operator = server.operator();
    operator.send(b"{\"version\":1,\"command\":\"watch\"}\n");
    until(&mut operator, |item| item["server"]["state"] == "ready");
    let hanging = server.hang("m");
    server.signal(Signal::SIGTERM);
    until(&mut operator, |item| item["server"]["state"] == "draining");
    server.worker("m").kill(Signal::SIGKILL);
    let end = wait::until("the end", || Some(operator.receive()).filter(|r| r["end"].is_object()));
    assert_eq!(end["end"]["why"], "the server ends");
    drop(hanging);
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[test]
fn a_person_watches_a_table() {
    let server = Supervisor::with_echo("m").start();
    let prompt = server.prompting(&["status", "--watch"]);
    prompt.wait_for_line("READY");
    let json = server.prompting(&["status", "m", "--watch", "--json"]);
    json.wait_for_line("\"state\":\"ready\"");
    server.worker("m").kill(Signal::SIGKILL);
    prompt.wait_for_line("SIGKILL");
    json.wait_for_line("SIGKILL");
}

#[test]
fn lines_are_kept_and_followed_across_restarts() {
    let server = Supervisor::with_echo("m").start();
    let say = |what: &str| {
        server.infer(&Infer::command("m", &format!("print {what}"))).assert_status(200);
    };
    say("one");
    server.logs().wait_for("one", |event| event["message"] == "one");
    let prompt = server.prompting(&["logs", "m", "-f"]);
    prompt.wait_for_line(": one");
    server.told(&["restart", "m"]);
    say("two");
    prompt.wait_for_line(": two");
    server.infer(&Infer::command("m", "crash segv").once());
    server.wait_for_generation("m", 2);
    say("three");
    let line = prompt.wait_for_line(": three");
    assert!(line.contains("1/0/2: three"), "{line}");
    let kept = server.told(&["logs", "m"]);
    for what in ["one", "two", "three"] {
        assert!(kept.contains(&format!(": {what}\n")), "{kept}");
    }
    let last = server.told(&["logs", "m", "-n", "1", "--json"]);
    assert_eq!(last.lines().count(), 1, "{last}");
    assert_eq!(serde_json::from_str::<Value>(&last).unwrap()["text"], "three");
}

#[test]
fn a_follower_who_does_not_read_is_told_what_it_lost() {
    let server = Supervisor::with_echo("m").set("worker.log_lines_per_second", "100000").start();
    let mut operator = server.operator();
    operator.send(b"{\"version\":1,\"command\":\"logs\",\"model\":\"m\",\"follow\":true}\n");
    operator.receive();
    let words = "x".repeat(3000);
    let infer = Infer::command("m", &format!("print {words}"));
    let mut client = server.client();
    // More than the kernel and the server keep for it together.
    for _ in 0..600 {
        client.infer(&infer).assert_status(200);
    }
    until(&mut operator, |item| item["lost"].as_u64().is_some_and(|lost| lost > 0));
}
