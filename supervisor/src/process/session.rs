//! The handshake with a fresh worker, and commands to it afterwards.
//!
//! ipc-channel carries commands down. It receives exactly once, from our own code in a process that
//! has not read a model byte: a hostile sender could panic, abort or block its receiver.

use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

use ipc_channel::IpcError;
use ipc_channel::ipc::{IpcOneShotServer, IpcSender};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use proto::codec;
use proto::control::{Attach, Command, Confinement, HANDSHAKE_VERSION, Hello};
use shared::id::WorkerId;
use shared::sys::socket::{Wait, send};
use tokio::sync::oneshot;
use tokio::time::timeout;

#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("cannot open the command channel")]
    Server(#[source] std::io::Error),
    #[error("cannot greet the worker")]
    Greet(#[source] Errno),
    #[error("cannot wait for the worker on a thread of its own")]
    Thread(#[source] std::io::Error),
    #[error("the worker gave no sign of life within {0:?}")]
    TimedOut(Duration),
    #[error("cannot take the worker's answer")]
    Accept(#[source] IpcError),
    #[error("the worker's answer was cut short")]
    Attach,
    #[error("somebody else answered in the worker's place")]
    Nonce,
}

/// The way to send commands to one worker. Dropping it tells the worker to end.
#[derive(Debug)]
pub struct Session {
    commands: IpcSender<Command>,
}

impl Session {
    /// Greets the worker at the other end of `control`, hands over the memory objects and waits for
    /// its answer.
    pub async fn open(
        worker: WorkerId,
        control: BorrowedFd<'_>,
        objects: [BorrowedFd<'_>; 2],
        (limit, confinement): (Duration, Confinement),
    ) -> Result<Self, HandshakeError> {
        let (server, command_server) =
            IpcOneShotServer::<Attach>::new().map_err(HandshakeError::Server)?;
        let nonce = rand::random();
        let unblock = Unblock(command_server.clone());
        let hello =
            Hello { version: HANDSHAKE_VERSION, worker, nonce, command_server, confinement };
        let hello = codec::encode(&hello).expect("names are bounded");
        send(control, &hello, &objects, Wait::Never).map_err(HandshakeError::Greet)?;
        let (sender, answer) = oneshot::channel();
        let accept = move || {
            // Nobody may be waiting any more; the connection is closed by the drop.
            let _nobody = sender.send(server.accept().map(|(_receiver, attach)| attach));
        };
        let thread = std::thread::Builder::new().name("handshake".to_owned());
        thread.spawn(accept).map_err(HandshakeError::Thread)?;
        let attach = timeout(limit, answer).await.map_err(|_| HandshakeError::TimedOut(limit))?;
        // The server is gone by now, and so is its address; then this does nothing.
        drop(unblock);
        let attach = attach.map_err(|_| HandshakeError::Attach)?.map_err(HandshakeError::Accept)?;
        if attach.nonce != nonce {
            return Err(HandshakeError::Nonce);
        }
        Ok(Self { commands: attach.commands })
    }

    /// Sends a command. The caller has at most one that is not answered, so this cannot block: the
    /// socket's buffer is empty. A worker that has gone is noticed by its exit.
    pub fn send(&self, command: Command) {
        let _gone = self.commands.send(command);
    }
}

/// `IpcOneShotServer::accept` has no timeout: when nobody waits any more, a connection that says
/// nothing makes it return.
struct Unblock(String);

impl Unblock {
    /// Not `IpcSender::connect`, which leaks its descriptor when nobody listens.
    fn connect(&self) -> Result<(), Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let ours = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        connect(ours.as_raw_fd(), &UnixAddr::new(self.0.as_str())?)
    }
}

impl Drop for Unblock {
    fn drop(&mut self) {
        let _nobody_listens = self.connect();
    }
}
