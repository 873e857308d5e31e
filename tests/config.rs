//! The configuration as the command line sees it. What each key may be is tested beside its code.

use std::process::Output;

use tests::supervisor::command;
use tests::{Infer, Supervisor};

/// `bulkhead check` of a file with this text.
fn check(text: &str, more: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("there is a folder for temporary files");
    std::fs::write(folder.path().join("a.toml"), text).expect("the folder is ours");
    let arguments = [&["check", "a.toml"], more].concat();
    let output = command(folder.path(), &arguments).output().expect("the program can be started");
    code_and_text(&output)
}

fn code_and_text(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn good_configurations_pass() {
    for text in ["", "[http]\nlisten = \"127.0.0.1:0\"\n[models.m]\ninfer_timeout = \"2s\"\n"] {
        let (code, text) = check(text, &[]);
        assert_eq!(code, Some(0), "{text}");
    }
    let ours = include_str!("../config.toml");
    let (code, text) = check(ours, &["--set", "worker.slots=3"]);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn bad_values_are_named_with_their_key_and_range() {
    let table: [(&str, &[&str]); 7] = [
        ("[worker]\nslots = 0", &["worker.slots", "0", "1 to 256"]),
        ("[worker]\ninfer_timeout = \"soon\"", &["worker.infer_timeout", "soon"]),
        ("[worker]\nslot_size = \"1KiB\"", &["worker.slot_size", "1KiB", "4KiB to 1GiB"]),
        ("[worker]\nslot = 3", &["worker.slot"]),
        ("[http]\nlisten = \"here\"", &["http.listen", "here"]),
        ("[models.m]\nthreads = 1000", &["models.m.threads", "1000", "1 to 256"]),
        ("[http\n", &["a.toml"]),
    ];
    for (text, parts) in table {
        let (code, message) = check(text, &[]);
        assert_eq!(code, Some(2), "{text}: {message}");
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in {message}");
        }
    }
}

#[test]
fn all_bad_values_are_named_at_once() {
    let (code, message) = check("[worker]\nslots = 0\nqueue = -1", &["--set", "http.listen=x"]);
    assert_eq!(code, Some(2));
    for key in ["worker.slots", "worker.queue", "http.listen"] {
        assert!(message.contains(key), "{message}");
    }
}

#[test]
fn a_bad_value_binds_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.json");
    let runtime_file = format!("runtime_file={}", file.display());
    let settings = ["http.listen=127.0.0.1:0", &runtime_file, "worker.slots=0"];
    let mut arguments = vec!["serve"];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    let output = command(folder.path(), &arguments).output().unwrap();
    let (code, message) = code_and_text(&output);
    assert_eq!(code, Some(2), "{message}");
    assert!(message.contains("worker.slots"), "{message}");
    assert!(!message.contains("listening") && !file.exists(), "{message}");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let listen = format!("http.listen={address}");
    let output = command(folder.path(), &["serve", "--set", &listen]).output().unwrap();
    let (code, message) = code_and_text(&output);
    assert_eq!(code, Some(3), "{message}");
    assert!(message.contains(&listen.replace('=', " = ")), "{message}");
}

#[test]
fn missing_files_and_wrong_arguments_are_told() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["check", "nowhere.toml"][..], &["serve", "--config", "nowhere.toml"]] {
        let output = command(folder.path(), arguments).output().unwrap();
        let (code, message) = code_and_text(&output);
        assert_eq!(code, Some(2), "{message}");
        assert!(message.contains("nowhere.toml"), "{message}");
    }
    let output = command(folder.path(), &["sail"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_command_line_wins_and_any_port_is_told() {
    let server = Supervisor::with_echo("m")
        .set("models.m.infer_timeout", "200ms")
        .set("worker.infer_timeout", "1h")
        .start();
    assert_ne!(server.address().port(), 0);
    server.infer(&Infer::command("m", "hang sleep")).assert_status(504);
    let listening = server.logs().wait_for("the address", |e| e["message"] == "listening");
    assert_eq!(listening["http"], server.address().to_string());
}
