//! A client of the admin socket. Nothing is waited for without a limit but what takes as long as it takes.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, connect, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;
use proto::admin::reply::{Code, End, Failure, Reply, Unreadable};
use proto::admin::request::Command;
use serde::de::DeserializeOwned;
use shared::text::clean_lines;

use crate::exit::Exit;
use crate::system::SocketPlace;

/// For a server to accept, and to take and answer what needs no work.
const LIMIT: Duration = Duration::from_secs(30);
/// Longest message of a server that is shown.
const MAX_MESSAGE_BYTES: usize = 16 << 10;

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error("no server answers at {}", .0.display())]
    Unreachable(PathBuf, #[source] io::Error),
    #[error("{}", clean_lines(&.0.message, MAX_MESSAGE_BYTES))]
    Told(Failure),
    #[error("the server was gone before it had answered")]
    Gone(#[source] Option<io::Error>),
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
            // A kernel that does not let a user in says so before a server can.
            Self::Unreachable(_, error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Exit::Refused
            }
            Self::Unreachable(..) => Exit::Unreachable,
            Self::Gone(_) => Exit::Undone,
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
        let connected = connect_to(path);
        let stream = connected.map_err(|error| Trouble::Unreachable(path.to_owned(), error))?;
        Ok(Self { stream: BufReader::new(stream) })
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
        let limit = if takes_its_time(command) { None } else { Some(LIMIT) };
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
            Err(error) => Err(Trouble::Gone(Some(error))),
        }
    }
}

fn takes_its_time(command: &Command) -> bool {
    match command {
        Command::Watch { .. } => true,
        Command::Logs { follow, .. } => *follow,
        Command::Status { .. }
        | Command::Load { .. }
        | Command::Unload { .. }
        | Command::Reload { .. }
        | Command::Restart { .. }
        | Command::Drain {}
        | Command::Reset { .. }
        | Command::Exits { .. }
        | Command::Devices {}
        | Command::Quota {}
        | Command::ConfigShow {}
        | Command::ConfigDiff {}
        | Command::ConfigReload { .. } => command.changes(),
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
