//! Commands from the supervisor, over ipc-channel, and the thread that waits for them.
//!
//! The receiving end belongs to the worker: it connects to the one-shot server that [`Hello`]
//! names and sends the sender of its own channel there. When the channel is closed the supervisor
//! has gone, and this process ends at once, whatever the engine is doing.

use std::io;
use std::time::{Duration, Instant};

use ipc_channel::IpcError;
use ipc_channel::TryRecvError;
use ipc_channel::ipc::{self, IpcReceiver, IpcSender};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proto::control::{Attach, Command, Hello, LoadSpec};
use shared::text::chain;

use crate::pump::Stop;
use crate::telemetry;

/// How often a pump that has been told to stop is woken until it has looked.
const KNOCK: Duration = Duration::from_millis(10);

#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("cannot open a channel for commands")]
    Open(#[source] io::Error),
    #[error("cannot connect to the supervisor's one-shot server")]
    Connect(#[source] io::Error),
    #[error("cannot hand the supervisor the channel for commands")]
    Send(#[source] IpcError),
    #[error("no command came within {} s", .0.as_secs())]
    Late(Duration),
    #[error("cannot receive a command")]
    Receive(#[source] IpcError),
    #[error("told to shut down before a model was loaded")]
    Shutdown,
    #[error("cannot start the thread that waits for commands")]
    Thread(#[source] io::Error),
}

/// The receiving end of the command channel.
#[derive(Debug)]
pub struct Commands {
    receiver: IpcReceiver<Command>,
}

impl Commands {
    /// Opens the channel and gives its sender to the supervisor.
    pub fn attach(hello: &Hello) -> Result<Self, SessionError> {
        let (commands, receiver) = ipc::channel().map_err(SessionError::Open)?;
        let server = IpcSender::connect(hello.command_server.clone());
        let attach = Attach { nonce: hello.nonce, commands };
        server.map_err(SessionError::Connect)?.send(attach).map_err(SessionError::Send)?;
        Ok(Self { receiver })
    }

    pub fn wait_for_load(&self, limit: Duration) -> Result<LoadSpec, SessionError> {
        let start = Instant::now();
        loop {
            match self.receiver.try_recv_timeout(limit.saturating_sub(start.elapsed())) {
                Ok(Command::Load(spec)) => return Ok(spec),
                Ok(Command::Shutdown) => return Err(SessionError::Shutdown),
                // There is nothing yet that could be trimmed.
                Ok(Command::Trim) => {}
                Err(TryRecvError::Empty) => return Err(SessionError::Late(limit)),
                Err(TryRecvError::IpcError(error)) if is_interrupted(&error) => {}
                Err(TryRecvError::IpcError(error)) => return Err(SessionError::Receive(error)),
            }
        }
    }

    /// Waits for further commands on a thread of its own, to the end of the process.
    pub fn watch(self, stop: Stop) -> Result<(), SessionError> {
        let thread = std::thread::Builder::new().name("control".into());
        let watch = move || self.until_shutdown(&stop).knock(&stop);
        thread.spawn(watch).map(drop).map_err(SessionError::Thread)
    }

    fn until_shutdown(self, stop: &Stop) -> Self {
        loop {
            match self.receiver.recv() {
                Ok(Command::Shutdown) => break,
                Ok(Command::Trim) => stop.ask_to_trim(),
                Ok(Command::Load(_)) => {
                    telemetry::warning(format_args!("a second load command is ignored"));
                }
                Err(error) if is_interrupted(&error) => {}
                Err(error) => end_at_once(&error),
            }
        }
        telemetry::debug(format_args!("told to shut down"));
        stop.set();
        self
    }

    /// The process ends under this loop when the pump has finished.
    fn knock(&self, stop: &Stop) -> ! {
        loop {
            stop.alarm().ring();
            match self.receiver.try_recv_timeout(KNOCK) {
                Ok(_) | Err(TryRecvError::Empty) => {}
                Err(TryRecvError::IpcError(error)) if is_interrupted(&error) => {}
                Err(TryRecvError::IpcError(error)) => end_at_once(&error),
            }
        }
    }
}

/// A signal came whose handler has returned, as Rust's does for a SIGSEGV that somebody sends: nothing was
/// received, and the supervisor is where it was.
fn is_interrupted(error: &IpcError) -> bool {
    matches!(error, IpcError::Io(error) if error.kind() == io::ErrorKind::Interrupted)
}

/// Ends this process although the inference thread may be deep in foreign code: no destructor and
/// no exit handler runs.
fn end_at_once(error: &IpcError) -> ! {
    telemetry::warning(format_args!("the supervisor has gone: {}", chain(error)));
    let _cannot_fail = kill(Pid::this(), Signal::SIGKILL);
    std::process::abort();
}
