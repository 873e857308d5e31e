//! A process that has a framework loaded and warm, and makes workers by copying itself.
//!
//! Loading a framework costs most of a worker's start and most of its memory; a copy has both for
//! the price of a page table and shares the memory until it writes to it. A zygote has one thread
//! for ever, asks no device anything, and never reads a byte of a model: what a copy inherits is our
//! own code's and the framework's alone.
//!
//! It ends when the supervisor closes the socket. Its copies are the supervisor's children and do
//! not end with it.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, setpgid, write};
use proto::codec::{self, CodecError};
use proto::zygote::{Entrance, ForkRequest, ZygoteFact};
use shared::limits::{MAX_ERROR_BYTES, MAX_PACKET_BYTES};
use shared::sys::fork::{self, Forked};
use shared::sys::process;
use shared::sys::socket::{self, Inbox, Packet, Wait};

use crate::inherit::{InheritError, Inherited};
use crate::telemetry;
use shared::text::{chain, clean};

/// The argument that makes a worker program a zygote.
pub const ARGUMENT: &str = "zygote";
/// What the process is called in a process list, where its copies are called `bulkhead-worker`.
const NAME: &str = "bulkhead-zygote";

#[derive(Debug, thiserror::Error)]
pub enum ZygoteError {
    #[error("bad start")]
    Inherit(#[from] InheritError),
    #[error("the framework cannot be made ready: {0}")]
    Warm(String),
    #[error("cannot receive on the socket")]
    Receive(#[source] Errno),
    #[error("cannot send on the socket")]
    Send(#[source] Errno),
    #[error("a packet that is none")]
    Packet(#[from] CodecError),
    #[error("a copy cannot take its place")]
    Copy(#[source] Errno),
}

/// What a process is after [`serve`].
#[derive(Debug)]
pub enum Role {
    /// The zygote, at its end: the supervisor wants no more workers from it.
    Done,
    /// A copy: its descriptors are those of a worker that was started as a program with these
    /// arguments.
    Worker(Vec<OsString>),
}

/// What must not wait: the supervisor reads at once.
const ANSWER: Wait = Wait::Block;
/// What stands for the writing thread in a group's list of threads.
const OWN_THREAD: &[u8] = b"0";
/// How long a copy may take to enter its groups, in milliseconds.
const ENTRANCE_LIMIT: u16 = 1000;

/// Loads the framework and serves to the end of the socket. Returns in each copy as well.
pub fn serve(
    arguments: impl Iterator<Item = OsString>,
    warm: fn() -> Result<(), String>,
) -> Result<Role, ZygoteError> {
    let socket = Inherited::take(arguments)?.socket;
    if let Err(error) = fork::rename_process(&[NAME]) {
        telemetry::debug(format_args!("no name in process lists: {error}"));
    }
    warm().map_err(ZygoteError::Warm)?;
    answer(&socket, &ZygoteFact::Ready)?;
    let mut inbox = Inbox::new(MAX_PACKET_BYTES);
    loop {
        let packet = match inbox.receive(socket.as_fd(), Wait::Block) {
            Ok(Some(packet)) => packet,
            Ok(None) | Err(Errno::ECONNRESET) => return Ok(Role::Done),
            Err(error) => return Err(ZygoteError::Receive(error)),
        };
        let request: ForkRequest = codec::decode(inbox.bytes(&packet))?;
        let fact = match fork_worker(&request, &packet) {
            Ok(Forked::Copy) => {
                drop(socket);
                return become_worker(request, packet).map_err(ZygoteError::Copy);
            }
            Ok(Forked::Original { copy }) => ZygoteFact::Forked { pid: copy.as_raw() },
            Err(message) => ZygoteFact::Failed { message },
        };
        answer(&socket, &fact)?;
    }
}

fn answer(socket: &OwnedFd, fact: &ZygoteFact) -> Result<(), ZygoteError> {
    let packet = codec::encode(fact)?;
    socket::send(socket.as_fd(), &packet, &[], ANSWER).map_err(ZygoteError::Send)
}

/// A copy that is in its groups, as far as it could enter them.
fn fork_worker(request: &ForkRequest, packet: &Packet) -> Result<Forked, String> {
    let (born, joined) = groups(request, packet)?;
    let (entered, enters) =
        std::io::pipe().map_err(|error| clean(&chain(&error), MAX_ERROR_BYTES))?;
    let forked = fork::copy_beside(born).map_err(|error| {
        if error == Errno::EBUSY {
            let threads = process::threads();
            return format!("the framework has started threads, {threads} in all");
        }
        clean(&chain(&error), MAX_ERROR_BYTES)
    })?;
    match forked {
        // What does not work the supervisor sees, and moves the copy itself.
        Forked::Copy => {
            for group in joined {
                let _outside = write(group, OWN_THREAD);
            }
        }
        Forked::Original { .. } => {
            drop(enters);
            // Its end is closed when the copy leaves this function, and if it ends before.
            let mut entered = [PollFd::new(entered.as_fd(), PollFlags::POLLIN)];
            let _late = poll(&mut entered, ENTRANCE_LIMIT);
        }
    }
    Ok(forked)
}

/// The group of version 2 that the copy is made in, and the lists that it has to write itself to.
fn groups<'a>(
    request: &ForkRequest,
    packet: &'a Packet,
) -> Result<(Option<BorrowedFd<'a>>, Vec<BorrowedFd<'a>>), String> {
    let fds = packet.fds.get(2..).unwrap_or_default();
    if packet.fds.len() != request.groups.len() + 2 {
        return Err(format!(
            "{} descriptors for {} groups",
            packet.fds.len(),
            request.groups.len()
        ));
    }
    let (mut born, mut joined) = (None, Vec::new());
    for (entrance, group) in request.groups.iter().zip(fds) {
        match entrance {
            Entrance::Born => born = Some(group.as_fd()),
            Entrance::Join => joined.push(group.as_fd()),
        }
    }
    Ok((born, joined))
}

/// In the copy: what a fresh program of a worker has.
fn become_worker(request: ForkRequest, packet: Packet) -> Result<Role, Errno> {
    // The supervisor does the same; whoever is first, nothing is signalled before.
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    if let [control, log, ..] = packet.fds.as_slice() {
        dup2_stdin(control)?;
        dup2_stdout(log)?;
        dup2_stderr(log)?;
    }
    drop(packet);
    let names: Vec<&str> = request.arguments.iter().map(String::as_str).collect();
    if let Err(error) = fork::rename_process(&names) {
        telemetry::debug(format_args!("no name in process lists: {error}"));
    }
    for (name, value) in &request.environment {
        fork::set_variable(name, value)?;
    }
    Ok(Role::Worker(request.arguments.into_iter().map(OsString::from).collect()))
}
