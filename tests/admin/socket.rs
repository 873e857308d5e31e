//! The socket in the file system.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::sys::signal::Signal;
use tests::Supervisor;
use tests::supervisor::command;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[test]
fn the_socket_is_the_owners_alone_whatever_the_umask() {
    for umask in ["000", "022", "077"] {
        let shell = format!("umask {umask}; exec \"$@\"");
        let mut server = Supervisor::with_echo("m").within(&["sh", "-c", &shell, "sh"]).start();
        assert_eq!(mode(&server.admin_socket()), 0o600, "{umask}");
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait_for_exit().code(), Some(0));
        assert!(!server.admin_socket().exists());
    }
}

#[test]
fn what_a_killed_server_left_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let started =
        || Supervisor::with_echo("m").set("admin.socket", socket.to_str().unwrap()).start();
    let mut first = started();
    first.kill(Signal::SIGKILL);
    assert!(socket.exists());
    let second = started();
    let told = command(folder.path(), &["status", "--socket", "s"]).output().unwrap();
    assert!(String::from_utf8_lossy(&told.stdout).contains(&format!("pid {}", second.pid())));
}

#[test]
fn a_living_servers_socket_is_not_taken() {
    let server = Supervisor::with_echo("m").start();
    let socket = format!("admin.socket={}", server.admin_socket().display());
    let folder = tempfile::tempdir().unwrap();
    let arguments = [
        "serve",
        "--set",
        "http.listen=127.0.0.1:0",
        "--set",
        "metrics.listen=off",
        "--set",
        &socket,
    ];
    let output = command(folder.path(), &arguments).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("admin.socket") && told.contains("another server"), "{told}");
    assert!(server.told(&["status"]).contains(&format!("pid {}", server.pid())));
}

#[test]
fn a_group_that_is_not_there_and_a_file_in_the_way_are_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "precious").unwrap();
    for (setting, part) in [
        ("admin.group=no-such-group", "there is no such group"),
        ("admin.socket=file", "something else at its place"),
        ("admin.audit_log=file/x", "cannot write admin.audit_log"),
    ] {
        let arguments = [
            "serve",
            "--set",
            "http.listen=127.0.0.1:0",
            "--set",
            "metrics.listen=off",
            "--set",
            setting,
        ];
        let output = command(folder.path(), &arguments).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{told}");
        assert!(told.contains(part), "{told}");
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("file")).unwrap(), "precious");
}

#[test]
fn a_server_may_hear_nobody() {
    let server = Supervisor::with_echo("m").set("admin.socket", "off").start();
    assert!(!server.admin_socket().exists());
    server.told_otherwise(&["status"], 5);
}
