//! Operators who may not, who are slow, who are many, or who talk nonsense: they hold up nobody.

use std::os::unix::fs::PermissionsExt as _;

use nix::sys::signal::Signal;
use nix::unistd::Group;
use serde_json::json;
use tests::{Infer, Operator, Supervisor, wait};

const NOBODY: u32 = 65_534;

#[track_caller]
fn assert_served(server: &Supervisor) {
    let reply = server.operator().ask(json!({"command": "status", "model": "m"}));
    assert_eq!(reply["ok"]["models"][0]["name"], "m", "{reply}");
    server.infer(&Infer::echo("m")).assert_status(200);
}

#[test]
fn another_user_is_refused_by_the_file_and_by_the_server() {
    if !tests::another_user_or_skip("another_user_is_refused_by_the_file_and_by_the_server") {
        return;
    }
    let server = Supervisor::with_echo("m").start();
    let output = server.bulkhead_as((NOBODY, NOBODY), &["status"]);
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    // The file lets everybody in; the server does not.
    let everybody = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(server.admin_socket(), everybody).unwrap();
    for command in [&["status"][..], &["unload", "m"]] {
        let output = server.bulkhead_as((NOBODY, NOBODY), command);
        assert_eq!(output.status.code(), Some(6), "{output:?}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains("65534 may not"), "{told}");
    }
    let refused = |event: &serde_json::Value| event["target"] == "audit" && event["uid"] == NOBODY;
    let event = server.logs().wait_for("the refusal in the audit", refused);
    assert_eq!(event["outcome"], "refused");
    assert_served(&server);
}

#[test]
fn a_member_of_the_group_is_heard() {
    let test = "a_member_of_the_group_is_heard";
    if !tests::another_user_or_skip(test) {
        return;
    }
    let Ok(Some(group)) = Group::from_name("daemon") else {
        return tests::skipped(test, "there is no group daemon");
    };
    let server = Supervisor::with_echo("m").set("admin.group", "daemon").start();
    let mode = std::fs::metadata(server.admin_socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let output = server.bulkhead_as((NOBODY, group.gid.as_raw()), &["restart", "m"]);
    assert!(output.status.success(), "{output:?}");
    let output = server.bulkhead_as((NOBODY, NOBODY), &["status"]);
    assert_eq!(output.status.code(), Some(6), "{output:?}");
}

#[test]
fn half_open_operators_hold_up_nobody() {
    let server = Supervisor::with_echo("m").set("admin.max_connections", "4").start();
    let mut half_open: Vec<Operator> = Vec::new();
    for line in [r#"{"version":1,"comm"#, "", "\n", "{"].iter().cycle().take(20) {
        let mut operator = server.operator();
        operator.send(line.as_bytes());
        half_open.push(operator);
        assert_served(&server);
    }
    wait::until_true("the first one being sent away", || half_open[0].is_closed());
}

/// Waits for the next answer, and gives it as text.
fn heard(operator: &mut Operator) -> String {
    operator.receive().to_string()
}

#[test]
fn operators_who_look_on_make_room() {
    let server = Supervisor::with_echo("m").set("admin.max_connections", "3").start();
    let mut lookers: Vec<Operator> = (0..3)
        .map(|number| {
            let mut operator = server.operator();
            let line = match number {
                0 => r#"{"version":1,"command":"watch"}"#,
                _ => r#"{"version":1,"command":"logs","model":"m","follow":true}"#,
            };
            operator.send(format!("{line}\n").as_bytes());
            assert!(heard(&mut operator).contains("item"));
            operator
        })
        .collect();
    assert_served(&server);
    // The one that has looked on for longest, with a word.
    wait::until_true("a word", || heard(&mut lookers[0]).contains("others need the place"));
    assert!(lookers[0].is_closed());
}

#[test]
fn one_that_has_closed_its_half_is_answered() {
    let server = Supervisor::with_echo("m").start();
    let mut operator = server.operator();
    operator.send(b"{\"version\":1,\"command\":\"restart\",\"model\":\"m\"}\n");
    operator.close_half();
    assert!(heard(&mut operator).contains("restarted"));
    assert!(operator.is_closed());
}

#[test]
fn a_flood_of_operators_leaves_nothing_behind() {
    let server = Supervisor::with_echo("m").start();
    let before = server.open_descriptors();
    let flood: Vec<Operator> = (0..300).map(|_| server.operator()).collect();
    assert_served(&server);
    assert!(server.open_descriptors() < before + 50, "at most admin.max_connections are held");
    drop(flood);
    assert_served(&server);
    wait::until_true("as few descriptors as before", || server.open_descriptors() <= before + 2);
}

#[test]
fn an_operator_who_does_not_read_loses_what_is_said() {
    let server = Supervisor::with_echo("m").start();
    let mut deaf = server.operator();
    // More answers than the kernel keeps for it.
    let lines = "{\"version\":1,\"command\":\"config_show\"}\n".repeat(2000);
    std::thread::spawn(move || {
        deaf.send(lines.as_bytes());
        deaf.is_closed()
    });
    for _ in 0..20 {
        assert_served(&server);
    }
    server.worker("m").kill(Signal::SIGKILL);
    server.wait_for_generation("m", 2);
}

#[test]
fn nonsense_is_answered_in_a_line() {
    let server = Supervisor::with_echo("m").start();
    let mut operator = server.operator();
    let nonsense: [&[u8]; 8] = [
        b"\n",
        b"GET / HTTP/1.1\n",
        b"\xff\xfe\0\n",
        b"[1,2,3]\n",
        b"{\"version\":2,\"command\":\"drain\"}\n",
        b"{\"version\":1,\"command\":\"drain\",\"now\":true}\n",
        b"{\"version\":1,\"command\":\"load\",\"model\":\"\\u001b[2J\\nx\"}\n",
        b"{\"version\":1,\"command\":\"load\",\"model\":[[[[]]]]}\n",
    ];
    for line in nonsense {
        let reply = operator.send(line).receive();
        assert_eq!(reply["error"]["code"], "bad_request", "{reply}");
        let message = reply["error"]["message"].as_str().unwrap();
        assert!(!message.chars().any(char::is_control), "{message:?}");
    }
    let deep = [&b"{\"version\":".repeat(5000)[..], b"\n"].concat();
    assert_eq!(operator.send(&deep).receive()["error"]["code"], "bad_request");
    assert!(operator.ask(json!({"command": "quota"}))["ok"].is_object());
    let reply = operator.send(&vec![b'x'; 70_000]).receive();
    assert_eq!(reply["error"]["code"], "bad_request", "{reply}");
    assert!(operator.is_closed());
    assert_served(&server);
}

#[test]
fn an_operator_who_leaves_is_obeyed_all_the_same() {
    let server = Supervisor::with_echo("m").start();
    let mut operator = server.operator();
    operator.send(b"{\"version\":1,\"command\":\"unload\",\"model\":\"m\"}\n");
    drop(operator);
    wait::until_true("an unloaded model", || server.workers().is_empty());
    server.logs().wait_for("the audit", |event| event["target"] == "audit");
    // A line that was cut off is none.
    server.told(&["load", "m"]);
    server.operator().send(b"{\"version\":1,\"command\":\"unload\",\"model\":\"m\"}");
    assert_served(&server);
}
