//! A client of the admin socket. Nothing is waited for without a limit but what takes as long as it takes.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, connect, getsockopt, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;
use proto::admin::reply::{Code, End, Failure, Reply, Unreadable};
use proto::admin::request::Command;
use serde::de::DeserializeOwned;
use shared::sys::pidfd;
use shared::text::clean_lines;

use crate::exit::Exit;
use crate::system::SocketPlace;

/// For a server to accept, and to take and answer what needs no work.
const LIMIT: Duration = Duration::from_secs(30);
/// For a configuration to be read and checked, from a disk that takes its time.
const READ_LIMIT: Duration = Duration::from_secs(100);
/// Longest message of a server that is shown.
const MAX_MESSAGE_BYTES: usize = 16 << 10;

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error("no server answers at {}", .0.display())]
    Unreachable(PathBuf, #[source] io::Error),
    #[error("{}", clean_lines(&.0.message, MAX_MESSAGE_BYTES))]
    Told(Failure),
    #[error("this user may not use {}: see admin.group", .0.display())]
    NotAllowed(PathBuf),
    #[error("the server was gone before it had answered")]
    Gone(#[source] Option<io::Error>),
    #[error("the server is there, and has not answered in time")]
    Silent,
    #[error("the configuration holds, but not all models have come to it")]
    Incomplete,
    #[error("the server speaks otherwise")]
    Unreadable(#[from] Unreadable),
    #[error("the answer cannot be written")]
    Output(#[source] io::Error),
}

impl Trouble {
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            // Whoever read has seen enough.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
            Self::Output(_) | Self::Unreadable(_) => Exit::Failed,
            Self::NotAllowed(_) => Exit::Refused,
            Self::Unreachable(..) | Self::Silent => Exit::Unreachable,
            Self::Gone(_) | Self::Incomplete => Exit::Undone,
            Self::Told(failure) => match failure.code {
                Code::Refused => Exit::Refused,
                Code::UnknownModel => Exit::UnknownModel,
                Code::BadRequest
                | Code::Busy
                | Code::Unsupported
                | Code::Failed
                | Code::ShuttingDown
                | Code::Unknown => Exit::Undone,
            },
        }
    }
}

#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    pub fn connect(path: &Path) -> Result<Self, Trouble> {
        // A kernel that does not let a user in says so before a server can.
        let is_refusal = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        let stream = connect_to(path).map_err(|error| match is_refusal(&error) {
            true => Trouble::NotAllowed(path.to_owned()),
            false => Trouble::Unreachable(path.to_owned(), error),
        })?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// The server's process; `None` if it has ended, or cannot be told from here.
    #[must_use]
    pub fn server(&self) -> Option<OwnedFd> {
        let peer = getsockopt(self.stream.get_ref(), sockopt::PeerCredentials).ok()?;
        pidfd::open(Pid::from_raw(peer.pid())).ok()
    }

    /// The one answer to a command.
    pub fn ask<T: DeserializeOwned>(&mut self, command: &Command) -> Result<T, Trouble> {
        self.send(command)?;
        match self.receive()? {
            Reply::Ok(answer) | Reply::Item(answer) => Ok(answer),
            Reply::Error(failure) => Err(Trouble::Told(failure)),
            Reply::End(_) => Err(Trouble::Gone(None)),
        }
    }

    /// Each item of a stream, to its end.
    pub fn follow<T: DeserializeOwned>(
        &mut self,
        command: &Command,
        mut each: impl FnMut(T) -> Result<(), Trouble>,
    ) -> Result<End, Trouble> {
        self.send(command)?;
        loop {
            match self.receive()? {
                Reply::Ok(item) | Reply::Item(item) => each(item)?,
                Reply::Error(failure) => return Err(Trouble::Told(failure)),
                Reply::End(end) => return Ok(end),
            }
        }
    }

    fn send(&mut self, command: &Command) -> Result<(), Trouble> {
        let stream = self.stream.get_mut();
        let limit = limit(command);
        let gone = |error| Trouble::Gone(Some(error));
        stream.set_read_timeout(limit).map_err(gone)?;
        match stream.write_all(command.line().as_bytes()) {
            // A server that turns somebody away closes at once; what it said is there to be read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(gone),
        }
    }

    fn receive<T: DeserializeOwned>(&mut self) -> Result<Reply<T>, Trouble> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(_) if line.ends_with('\n') => Ok(Reply::parse(&line)?),
            Ok(_) => Err(Trouble::Gone(None)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Trouble::Silent),
            Err(error) => Err(Trouble::Gone(Some(error))),
        }
    }
}

/// How long an answer, or an item of a stream, is waited for; `None` where it takes as long as it takes.
fn limit(command: &Command) -> Option<Duration> {
    match command {
        Command::Watch { .. }
        | Command::Load { .. }
        | Command::Unload { wait: true, .. }
        | Command::Reload { .. }
        | Command::Restart { .. }
        | Command::Reset { .. }
        | Command::Logs { follow: true, .. }
        | Command::ConfigReload { wait: true } => None,
        Command::ConfigReload { wait: false } | Command::ConfigDiff {} => Some(READ_LIMIT),
        Command::Status { .. }
        | Command::Unload { wait: false, .. }
        | Command::Drain {}
        | Command::Exits { .. }
        | Command::Logs { follow: false, .. }
        | Command::Devices {}
        | Command::Quota {}
        | Command::ConfigShow {} => Some(LIMIT),
    }
}

fn connect_to(path: &Path) -> io::Result<UnixStream> {
    let place = SocketPlace::open(path)?;
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // Also how long a connection is waited for.
    let limit = TimeVal::new(i64::try_from(LIMIT.as_secs()).unwrap_or(i64::MAX), 0);
    setsockopt(&socket, sockopt::SendTimeout, &limit)?;
    loop {
        match connect(socket.as_raw_fd(), &place.address()?) {
            Err(Errno::EINTR) => {}
            connected => break connected?,
        }
    }
    Ok(UnixStream::from(socket))
}
