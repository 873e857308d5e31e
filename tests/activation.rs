//! What a service manager hands over and is told, with the test in its place: sockets that it has
//! opened (`LISTEN_FDS`), and messages of the server (`NOTIFY_SOCKET`).

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::process::Command;

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tests::supervisor::{Builder, binaries};
use tests::{Client, Echo, Infer, Supervisor, wait};

/// Where a server tells how it is; what was heard stays.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
    _folder: TempDir,
}

impl Manager {
    fn with(builder: Builder) -> (Self, Builder) {
        let folder = tempfile::tempdir().expect("there is a folder for temporary files");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("the folder is ours");
        (Self::listening(socket, folder), builder.environment("NOTIFY_SOCKET", path))
    }

    fn listening(socket: UnixDatagram, folder: TempDir) -> Self {
        socket.set_nonblocking(true).expect("it is a socket");
        Self { socket, heard: Vec::new(), _folder: folder }
    }

    /// Waits until this line was told, and returns all lines up to its message.
    fn wait_for(&mut self, line: &str) -> Vec<String> {
        wait::until(&format!("{line} to be told"), || {
            let mut bytes = [0; 4096];
            while let Ok(length) = self.socket.recv(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
                self.heard.extend(text.lines().map(str::to_owned));
            }
            self.heard.iter().any(|heard| heard == line).then(|| self.heard.clone())
        })
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

/// The sockets behind the descriptors of a process.
fn sockets_of(pid: i32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process is there").flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    links.map(|link| link.to_string_lossy().into_owned()).collect()
}

#[test]
fn a_server_is_ready_for_its_manager_when_its_models_are() {
    let slow = Echo::default().parameter("load_delay_ms", "4000");
    let builder = Supervisor::with_echo("quick").echo("slow", &slow);
    let (mut manager, builder) = Manager::with(builder);
    let mut server = builder.start_unready();
    let heard = manager.wait_for("READY=1");
    let at = |line: &str| heard.iter().position(|heard| heard == line);
    let waited = at("STATUS=1 of 2 models ready; waits for: slow");
    assert!(waited.is_some() && waited < at("READY=1"), "{heard:?}");
    assert_eq!(at("STATUS=2 of 2 models ready"), at("READY=1").map(|at| at + 1), "{heard:?}");
    server.client().unload("slow").assert_status(200);
    manager.wait_for("STATUS=1 of 1 models ready");
    server.signal(Signal::SIGTERM);
    manager.wait_for("STOPPING=1");
    manager.wait_for("STATUS=draining: 0 requests");
    assert_eq!(server.wait_for_exit().code(), Some(0));
    assert_eq!(manager.heard.iter().filter(|line| *line == "READY=1").count(), 1);
}

#[test]
fn a_model_that_never_loads_does_not_hold_a_start_up_for_ever() {
    let builder = Supervisor::with_echo("good").config("bad", "backend: \"nothing\"");
    let (mut manager, builder) = Manager::with(builder.set("repository.required_timeout", "300ms"));
    let server = builder.start_unready();
    // In either order: a busy machine may take longer to load the good one.
    manager.wait_for("READY=1");
    manager.wait_for("STATUS=1 of 2 models ready; waits for: bad");
    server.client().get("/v2/health/ready").assert_status(400);
    let names_it = |names: &str| names.split(", ").any(|name| name == "bad");
    server.logs().wait_for("a warning", |event| event["waits_for"].as_str().is_some_and(names_it));
}

#[test]
fn a_name_without_a_file_is_told_too_and_a_reload_is_framed() {
    let name = format!("bulkhead-activation-{}", std::process::id());
    let address = UnixAddress::from_abstract_name(&name).expect("the name is short");
    let socket = UnixDatagram::bind_addr(&address).expect("the name is free");
    let folder = tempfile::tempdir().expect("there is a folder for temporary files");
    let mut manager = Manager::listening(socket, folder);
    let builder = Supervisor::with_echo("m").environment("NOTIFY_SOCKET", format!("@{name}"));
    let server = builder.start();
    manager.wait_for("READY=1");
    manager.heard.clear();
    server.signal(Signal::SIGHUP);
    manager.wait_for("READY=1");
    assert_eq!(manager.heard[0], "RELOADING=1");
    server.infer(&Infer::echo("m")).assert_status(200);
}

/// The watchdog's limit is long: what is looked at is that there are signs of life at all, and none from
/// a main loop that is stuck.
#[test]
fn a_watchdog_is_fed_as_long_as_the_loops_turn() {
    let (mut manager, builder) = Manager::with(Supervisor::with_echo("m"));
    let faults = tempfile::tempdir().expect("there is a folder for temporary files");
    let builder = builder.environment("BULKHEAD_FAULTS", faults.path());
    let mut server = builder.environment("WATCHDOG_USEC", "400000").start();
    manager.wait_for("WATCHDOG=1");
    fs::write(faults.path().join("main_loop"), "").expect("the folder is ours");
    let starved = server.logs().wait_for("starvation", |event| event["what"] == "the main loop");
    assert_eq!(starved["level"], "ERROR");
    server.infer(&Infer::echo("m")).assert_status(200);
    server.kill(Signal::SIGKILL);
}

#[test]
fn a_socket_that_is_handed_over_is_served_and_outlives_the_server() {
    let (listener, address) = listener();
    let kept = listener.try_clone().expect("it can be shared");
    let mut first = Supervisor::with_echo("m").activated("http", listener).start();
    assert_eq!(first.address(), address);
    first.infer(&Infer::echo("m")).assert_status(200);
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait_for_exit().code(), Some(0));
    // Nobody serves; it waits in the backlog.
    let mut waiting = Client::new(address);
    waiting
        .send(b"GET /v2 HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n")
        .expect("it is let in");
    let second = Supervisor::with_echo("m").activated("http", kept).start();
    assert_eq!(second.address(), address);
    waiting.receive().expect("it is answered").assert_status(200);
}

/// Who has waited for a server is served by it, not sent away by one that is just coming up.
#[test]
fn a_socket_that_is_handed_over_is_served_when_the_models_are_there() {
    let answer = |wait: &str| {
        let (listener, _) = listener();
        let slow = Echo::default().parameter("load_delay_ms", "3000");
        let builder = Supervisor::new().echo("slow", &slow).set("http.activation_wait", wait);
        builder.activated("http", listener).start_unready().infer(&Infer::echo("slow")).status
    };
    assert_eq!(answer("10s"), 200);
    // Not known yet, or not ready.
    assert!([404, 503].contains(&answer("0s")));
}

#[test]
fn workers_get_nothing_of_a_manager() {
    let (listener, _) = listener();
    let (mut manager, builder) =
        Manager::with(Supervisor::with_echo("m").set("worker.start", "exec"));
    let server =
        builder.activated("http", listener).environment("WATCHDOG_USEC", "60000000").start();
    manager.wait_for("READY=1");
    let worker = server.worker("m");
    let environment = fs::read(format!("/proc/{}/environ", worker.pid)).expect("it lives");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
        assert!(!environment.contains(name), "{environment}");
    }
    let of_server = sockets_of(i32::try_from(server.pid()).expect("process ids are small"));
    let shared = |link: &String| link.starts_with("socket:") && of_server.contains(link);
    assert!(!sockets_of(worker.pid).iter().any(shared));
}

#[test]
fn sockets_that_make_no_sense_are_refused_by_name() {
    let refused = |environment: &str, what: &str| {
        let script = format!("exec 3</dev/null; export LISTEN_PID=$$ {environment}; exec \"$@\"");
        let program = binaries().join("bulkhead");
        let folder = tempfile::tempdir().expect("there is a folder for temporary files");
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh"]).arg(program).args(["serve"]).current_dir(&folder);
        let output = command.output().expect("there is a shell");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{text}");
        assert!(text.contains(what), "{text}");
    };
    refused("LISTEN_FDS=1 LISTEN_FDNAMES=http", "\"http\" is not a TCP socket that listens");
    refused("LISTEN_FDS=2 LISTEN_FDNAMES=http", "names 1 of 2 sockets");
    refused("LISTEN_FDS=2 LISTEN_FDNAMES=a:b", "\"b\" (descriptor 4)");
    refused("LISTEN_FDS=many", "LISTEN_FDS = \"many\"");
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    let server = Supervisor::with_echo("m")
        .environment("LISTEN_PID", "1")
        .environment("LISTEN_FDS", "1")
        .start();
    server.infer(&Infer::echo("m")).assert_status(200);
}
