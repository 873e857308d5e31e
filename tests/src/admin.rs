//! Operators: on the admin socket itself, and at a prompt.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use crate::Supervisor;
use crate::logs::Logs;
use crate::supervisor::command;
use crate::wait::WATCHDOG;

/// A connection to an admin socket, with everything that is sent in plain sight.
#[derive(Debug)]
pub struct Operator(BufReader<UnixStream>);

impl Operator {
    /// Sends bytes, which need be no whole line. A server that has hung up is no error.
    pub fn send(&mut self, bytes: &[u8]) -> &mut Self {
        let _hung_up = self.0.get_mut().write_all(bytes);
        self
    }

    pub fn try_receive(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let reply: Value = serde_json::from_str(&line).expect("an answer is JSON");
        assert_eq!(reply["version"], 1, "{line}");
        Ok(reply)
    }

    #[track_caller]
    pub fn receive(&mut self) -> Value {
        self.try_receive().expect("the server answers")
    }

    /// Sends a command of version 1 and gives its answer.
    #[track_caller]
    pub fn ask(&mut self, mut command: Value) -> Value {
        command["version"] = json!(1);
        self.send(format!("{command}\n").as_bytes()).receive()
    }

    /// Says that nothing more is asked.
    pub fn close_half(&self) {
        self.0.get_ref().shutdown(Shutdown::Write).expect("the socket is open");
    }

    /// Whether the server has closed the connection.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0) | Err(_))
    }
}

/// A command at a prompt that goes on.
#[derive(Debug)]
pub struct Prompt {
    process: Child,
    output: Logs,
}

impl Prompt {
    /// What it has printed.
    pub fn lines(&self) -> Vec<String> {
        self.output.lines()
    }

    pub fn wait_for_line(&self, part: &str) -> String {
        crate::wait::until(part, || self.lines().into_iter().find(|line| line.contains(part)))
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

impl Supervisor {
    pub fn admin_socket(&self) -> PathBuf {
        self.folder().join(".run/admin.sock")
    }

    pub fn operator(&self) -> Operator {
        let stream = UnixStream::connect(self.admin_socket()).expect("the server listens");
        stream.set_read_timeout(Some(WATCHDOG)).expect("the socket is open");
        stream.set_write_timeout(Some(WATCHDOG)).expect("the socket is open");
        Operator(BufReader::new(stream))
    }

    /// What `bulkhead` prints and ends with, run beside the server.
    pub fn bulkhead(&self, arguments: &[&str]) -> Output {
        self.prompt(arguments).output().expect("the program can be started")
    }

    /// The same for one that must end with 0: what it prints.
    #[track_caller]
    pub fn told(&self, arguments: &[&str]) -> String {
        let output = self.bulkhead(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("answers are text")
    }

    /// The same for one that must end with this code: what it says is wrong.
    #[track_caller]
    pub fn told_otherwise(&self, arguments: &[&str], code: i32) -> String {
        let output = self.bulkhead(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).expect("errors are text")
    }

    /// As this user, in this group alone.
    pub fn bulkhead_as(&self, (user, group): (u32, u32), arguments: &[&str]) -> Output {
        let programs = self.open_to_others();
        let mut command = Command::new(programs.join("bulkhead"));
        command.args(arguments).arg("--socket").arg(self.admin_socket());
        command.current_dir("/").uid(user).gid(group);
        command.output().expect("the program can be started")
    }

    /// A command that goes on.
    pub fn prompting(&self, arguments: &[&str]) -> Prompt {
        let mut command = self.prompt(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().expect("the program can be started");
        let output = Logs::collect(process.stdout.take().expect("a pipe was asked for"));
        Prompt { process, output }
    }

    fn prompt(&self, arguments: &[&str]) -> Command {
        let mut command = command(self.folder(), arguments);
        command.arg("--socket").arg(self.admin_socket());
        command
    }
}
