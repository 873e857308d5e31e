//! A machine with a systemd of its own (`scripts/lib/systemd-box`): what is installed and done there
//! is gone with it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use crate::models::Echo;
use crate::supervisor::binaries;
use crate::{skipped, wait};

/// The server's unit.
pub const SERVICE: &str = "bulkhead.service";
/// How `systemd-box` says that this machine cannot do it.
const CANNOT: i32 = 77;

/// Down when dropped, and when the test ends however it ends.
#[derive(Debug)]
pub struct Machine {
    process: Child,
    /// Its systemd, as seen from here.
    init: i32,
}

/// The root of the checkout.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in it").to_owned()
}

impl Machine {
    /// A machine with nothing of ours on it, or `None` after saying that `test` is skipped.
    pub fn boot_or_skip(test: &str) -> Option<Self> {
        let mut process = Command::new(checkout().join("scripts/lib/systemd-box"))
            .args([checkout(), binaries()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("there is a bash");
        let mut line = String::new();
        let output = process.stdout.as_mut().expect("a pipe was asked for");
        BufReader::new(output).read_line(&mut line).expect("it writes text");
        if let Ok(init) = line.trim().parse() {
            return Some(Self { process, init });
        }
        let output = process.wait_with_output().expect("it has ended");
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        assert_eq!(output.status.code(), Some(CANNOT), "{why}");
        skipped(test, &why);
        None
    }

    /// With the server installed by `scripts/install`, and these models of the echo engine. Nothing is
    /// started.
    pub fn installed_or_skip(test: &str, models: &[(&str, &Echo)]) -> Option<Self> {
        let machine = Self::boot_or_skip(test)?;
        let script = "scripts/install --libtorch none --bin";
        let script = format!("{:?}/{script} {:?}", checkout(), binaries());
        machine.run(&script);
        for (name, echo) in models {
            let folder = format!("/var/lib/bulkhead/models/{name}");
            machine.run(&format!("mkdir -p {folder}/1"));
            machine.write(&format!("{folder}/config.pbtxt"), &echo.config());
        }
        Some(machine)
    }

    /// Runs a script with bash; panics unless it succeeds. What it has written, as text.
    #[track_caller]
    pub fn run(&self, script: &str) -> String {
        let output = self.try_run(script);
        let [out, err] = [output.stdout, output.stderr]
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        if !output.status.success() {
            let log = self.try_run("journalctl --no-pager -o cat -n 40").stdout;
            let log = String::from_utf8_lossy(&log).into_owned();
            panic!("{script}: {}\n{out}{err}\nthe log:\n{log}", output.status);
        }
        out
    }

    pub fn try_run(&self, script: &str) -> Output {
        let mut command = self.enter();
        command.args(["bash", "-c", script]).output().expect("nsenter can be started")
    }

    /// Writes a file that everybody may read.
    pub fn write(&self, path: &str, text: &str) {
        let script = format!("mkdir -p \"$(dirname {path})\" && cat >{path}");
        let mut command = self.enter();
        let command = command.args(["bash", "-c", &script]).stdin(Stdio::piped());
        let mut process = command.spawn().expect("nsenter can be started");
        let mut input = process.stdin.take().expect("a pipe was asked for");
        input.write_all(text.as_bytes()).expect("it reads");
        drop(input);
        assert!(process.wait().expect("it is our child").success(), "{path}");
    }

    /// A drop-in for the server's unit.
    pub fn drop_in(&self, text: &str) {
        self.write(
            "/etc/systemd/system/bulkhead.service.d/test.conf",
            &format!("[Service]\n{text}\n"),
        );
        self.run("systemctl daemon-reload");
    }

    /// A property of the server's unit, as `systemctl show` says it.
    #[track_caller]
    pub fn property(&self, name: &str) -> String {
        self.run(&format!("systemctl show {SERVICE} --value -p {name}")).trim().to_owned()
    }

    #[track_caller]
    pub fn wait_for(&self, property: &str, value: &str) {
        wait::until_true(&format!("{property}={value}"), || self.property(property) == value);
    }

    /// What the server has logged so far, all of its runs.
    pub fn events(&self) -> Vec<Value> {
        let text =
            self.run(&format!("journalctl --sync; journalctl -u {SERVICE} -o cat --no-pager"));
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Where the server listens, for clients [inside](Self::inside).
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 8000).into()
    }

    /// Runs a client on the machine's network, which is its own; threads that it starts are there too.
    pub fn inside<T: Send>(&self, client: impl FnOnce() -> T + Send) -> T {
        let network = format!("/proc/{}/ns/net", self.init);
        let network = File::open(network).expect("its systemd lives");
        std::thread::scope(|scope| {
            let client = || {
                setns(network, CloneFlags::CLONE_NEWNET).expect("the test is root");
                client()
            };
            scope.spawn(client).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init.to_string(), "-m", "-p", "-i", "-u", "-n", "-C"]);
        command.args(["env", "container=box", "LC_ALL=C.UTF-8"]);
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ended = self.process.wait();
    }
}
