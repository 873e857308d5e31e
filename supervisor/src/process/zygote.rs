//! Zygotes: for each worker binary a process that has its framework loaded and makes workers by
//! copying itself.
//!
//! ```text
//! (none) ──first worker──► Starting ──ready──► Ready ──dead, or no answer──► Down
//!                              │ not in time, or dead                         ▲ │ after a while
//!                              └──────────────────────────────────────────────┘ └──► Ready
//! ```
//! A zygote is started when the first worker of its binary is. Workers wait for it then, because
//! that is shorter than loading the framework beside it; while it is down, and while another
//! one is being started in its place, they are started as programs. A copy is a child of this
//! process, not of the zygote, and does not end with it.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, setpgid};
use proto::codec;
use proto::zygote::{ForkRequest, ZygoteFact};
use shared::limits::MAX_PACKET_BYTES;
use shared::sys::socket::{self, Inbox, Wait};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Duration, Instant, sleep, timeout};
use tracing::{info, warn};

use super::child::{Child, Exit};
use super::command::{WorkerCommand, zygote};
use super::output::{self, LogLimits, Speaker, Tail};
use super::readable::watch;
use super::spawner::{Programs, SpawnError};
use super::strays::{Expected, Family};
use super::turns::Turns;

/// How long a framework may take to load.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a worker waits for a framework that is being loaded: about as long as loading it beside.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one copy may take.
const FORK_LIMIT: Duration = Duration::from_secs(5);
/// The first pause before another start, doubled each time up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A zygote that lived so long starts over with the first pause.
const HEALTHY: Duration = Duration::from_secs(60);
/// Workers that may wait for a copy at a time; more are started as programs.
const JOBS: usize = 256;
const LOG: LogLimits = LogLimits { lines_per_second: 100, line_bytes: 4096, tail_lines: 5 };

/// The zygotes of all worker binaries.
#[derive(Clone, Debug)]
pub(super) struct Zygotes {
    programs: Programs,
    running: Arc<Mutex<HashMap<PathBuf, Zygote>>>,
}

/// A handle on the task that keeps one zygote; the task ends with the last handle.
#[derive(Clone, Debug)]
struct Zygote {
    jobs: mpsc::Sender<Job>,
    state: watch::Receiver<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Ready,
    Down,
}

/// A worker that is wanted.
#[derive(Debug)]
struct Job {
    command: WorkerCommand,
    answer: oneshot::Sender<Forked>,
}

/// What came of asking for a copy.
#[derive(Debug)]
pub(super) enum Forked {
    Made(Child),
    /// The zygote failed over it; with new sockets it can be tried again.
    Lost,
    /// There is no copy to be had; the worker can be started in another way.
    Declined(WorkerCommand),
}

#[derive(Debug, thiserror::Error)]
enum ZygoteError {
    #[error("it cannot be set up: {0}")]
    SetUp(#[source] io::Error),
    #[error(transparent)]
    Start(#[from] SpawnError),
    #[error("it was not ready within {START_LIMIT:?}")]
    Late,
    #[error("it does not take requests: {0}")]
    Unsent(#[source] Errno),
    #[error("its copy {0} cannot be taken over: {1}")]
    Copy(Pid, #[source] io::Error),
    #[error("it did not answer within {FORK_LIMIT:?}")]
    Silent,
    #[error("its socket failed: {0}")]
    Socket(#[from] Errno),
    #[error("it has closed its socket")]
    Closed,
    #[error("it sent what is no answer")]
    Nonsense,
    #[error("it ended: {0:?}")]
    Exited(Exit),
}

impl Zygotes {
    pub(super) fn new(programs: Programs) -> Self {
        Self { programs, running: Arc::default() }
    }

    /// A copy of the zygote of the command's binary, if there is one.
    pub(super) async fn fork(&self, command: WorkerCommand) -> Result<Forked, SpawnError> {
        let mut zygote = self.of(&command.binary);
        let started = zygote.state.wait_for(|state| *state != State::Starting);
        match timeout(PATIENCE, started).await.map(|started| started.map(|state| *state)) {
            Ok(Ok(State::Ready)) => {}
            Ok(Ok(State::Starting | State::Down) | Err(_)) | Err(_) => {
                return Ok(Forked::Declined(command));
            }
        }
        let (answer, made) = oneshot::channel();
        if let Err(unsent) = zygote.jobs.try_send(Job { command, answer }) {
            return Ok(Forked::Declined(unsent.into_inner().command));
        }
        made.await.map_err(|_| SpawnError::Zygote)
    }

    /// The file name of each binary that has had one, and how its zygote does.
    pub(super) fn states(&self) -> Vec<(String, &'static str)> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let state = |zygote: &Zygote| match *zygote.state.borrow() {
            State::Starting => "starting",
            State::Ready => "ready",
            State::Down => "down",
        };
        let name =
            |binary: &Path| binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut states: Vec<_> =
            running.iter().map(|(binary, zygote)| (name(binary), state(zygote))).collect();
        states.sort_unstable();
        states
    }

    fn of(&self, binary: &Path) -> Zygote {
        // The map is whole after each call.
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let start = || {
            let (jobs, inbox) = mpsc::channel(JOBS);
            let (sender, state) = watch::channel(State::Starting);
            let keeper = Keeper {
                binary: binary.to_owned(),
                programs: self.programs.clone(),
                state: sender,
                jobs: inbox,
            };
            tokio::spawn(keeper.run());
            Zygote { jobs, state }
        };
        running.entry(binary.to_owned()).or_insert_with(start).clone()
    }
}

/// The task that keeps one zygote.
#[derive(Debug)]
struct Keeper {
    binary: PathBuf,
    programs: Programs,
    state: watch::Sender<State>,
    jobs: mpsc::Receiver<Job>,
}

/// A zygote that runs.
#[derive(Debug)]
struct Running {
    child: Child,
    socket: AsyncFd<OwnedFd>,
    inbox: Inbox,
}

impl Keeper {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let started = Instant::now();
            let end = match self.start().await {
                Ok(running) => {
                    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                    let pid = running.child.group().pid();
                    info!(binary = %self.name(), pid, took_ms, "zygote ready");
                    self.state.send_replace(State::Ready);
                    match self.serve(running).await {
                        Some(end) => end,
                        None => return,
                    }
                }
                Err(end) => end,
            };
            self.state.send_replace(State::Down);
            if started.elapsed() >= HEALTHY {
                pause = FIRST_PAUSE;
            }
            warn!(binary = %self.name(), why = %end, again_in = ?pause,
                "zygote down: until it is back workers start as programs");
            if !self.decline_for(pause).await {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn name(&self) -> std::path::Display<'_> {
        Path::new(self.binary.file_name().unwrap_or(self.binary.as_os_str())).display()
    }

    async fn start(&self) -> Result<Running, ZygoteError> {
        let (ours, theirs) = socket::pair()?;
        let (log, log_writer) = std::io::pipe().map_err(ZygoteError::SetUp)?;
        let command = zygote(&self.binary, &theirs, &log_writer).map_err(ZygoteError::SetUp)?;
        drop((theirs, log_writer));
        let child = self.programs.spawn(&self.binary, command).await?;
        child.group().give_turns(Turns::Long);
        let speaker = Speaker::Zygote(self.name().to_string());
        tokio::spawn(output::forward(log, speaker, LOG, Tail::default()));
        let socket = watch(ours).map_err(ZygoteError::SetUp)?;
        let mut running = Running { child, socket, inbox: Inbox::new(MAX_PACKET_BYTES) };
        let first = timeout(START_LIMIT, async {
            tokio::select! {
                biased;
                fact = receive(&running.socket, &mut running.inbox) => fact,
                exit = running.child.wait() => Err(ZygoteError::Exited(exit)),
            }
        });
        match first.await.map_err(|_| ZygoteError::Late)?? {
            ZygoteFact::Ready => Ok(running),
            ZygoteFact::Forked { .. } | ZygoteFact::Failed { .. } => Err(ZygoteError::Nonsense),
        }
    }

    /// Until the zygote ends or fails; `None` when nobody wants workers any more.
    async fn serve(&mut self, mut running: Running) -> Option<ZygoteError> {
        loop {
            let job = tokio::select! {
                job = self.jobs.recv() => job?,
                exit = running.child.wait() => return Some(ZygoteError::Exited(exit)),
            };
            let expected = self.programs.family().expect();
            let forked = timeout(FORK_LIMIT, running.fork(&job.command, expected)).await;
            let answer = match forked.unwrap_or(Err(ZygoteError::Silent)) {
                Ok(Ok(child)) => Forked::Made(child),
                Ok(Err(refused)) => {
                    warn!(binary = %self.name(), refused, "no copy of the zygote");
                    Forked::Declined(job.command)
                }
                Err(broken) => {
                    bury(running, self.programs.family()).await;
                    // There may be a copy that has the command's socket: then nobody else gets it.
                    let answer = if matches!(broken, ZygoteError::Unsent(_)) {
                        Forked::Declined(job.command)
                    } else {
                        Forked::Lost
                    };
                    let _nobody = job.answer.send(answer);
                    return Some(broken);
                }
            };
            // If nobody waits any more, dropping the child kills it.
            let _nobody = job.answer.send(answer);
        }
    }

    /// Turns everyone away for a while; says whether anybody could still come.
    async fn decline_for(&mut self, pause: Duration) -> bool {
        let over = sleep(pause);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return true,
                job = self.jobs.recv() => match job {
                    Some(job) => {
                        let _nobody = job.answer.send(Forked::Declined(job.command));
                    }
                    None => return false,
                },
            }
        }
    }
}

/// Ends a zygote for good, and the copy that it may have made and not told of: that is a child of this
/// process for which nobody waits.
async fn bury(mut running: Running, family: &Arc<Family>) {
    running.child.group().signal(Signal::SIGKILL);
    if timeout(FORK_LIMIT, running.child.wait()).await.is_err() {
        warn!("a zygote that was killed does not end");
    }
    let family = Arc::clone(family);
    tokio::spawn(async move { family.end_strays().await });
}

impl Running {
    /// One copy, or the zygote's own reason why there is none.
    async fn fork(
        &mut self,
        command: &WorkerCommand,
        expected: Expected,
    ) -> Result<Result<Child, String>, ZygoteError> {
        let request = ForkRequest {
            arguments: command.arguments(),
            environment: command.environment(),
            groups: command.groups.iter().map(|(entrance, _)| *entrance).collect(),
        };
        let packet = codec::encode(&request).map_err(|_| ZygoteError::Nonsense)?;
        let fds: Vec<BorrowedFd<'_>> = [command.control.as_fd(), command.log.as_fd()]
            .into_iter()
            .chain(command.groups.iter().map(|(_, group)| group.as_fd()))
            .collect();
        let sent = socket::send(self.socket.as_fd(), &packet, &fds, Wait::Never);
        sent.map_err(ZygoteError::Unsent)?;
        match receive(&self.socket, &mut self.inbox).await? {
            ZygoteFact::Forked { pid } => adopt(Pid::from_raw(pid), expected).map(Ok),
            ZygoteFact::Failed { message } => Ok(Err(message)),
            ZygoteFact::Ready => Err(ZygoteError::Nonsense),
        }
    }
}

fn adopt(pid: Pid, expected: Expected) -> Result<Child, ZygoteError> {
    let child = Child::adopt(expected.arrived(pid.as_raw()));
    let child = child.map_err(|error| ZygoteError::Copy(pid, error))?;
    // It does the same; whoever is first, nothing is signalled before.
    match setpgid(pid, pid) {
        Ok(()) | Err(Errno::EACCES | Errno::ESRCH) => Ok(child),
        Err(error) => Err(ZygoteError::Copy(pid, error.into())),
    }
}

async fn receive(socket: &AsyncFd<OwnedFd>, inbox: &mut Inbox) -> Result<ZygoteFact, ZygoteError> {
    loop {
        let mut ready = socket.readable().await.map_err(|_| ZygoteError::Closed)?;
        match inbox.receive(socket.as_fd(), Wait::Never) {
            Ok(Some(packet)) if !packet.truncated && packet.fds.is_empty() => {
                return codec::decode(inbox.bytes(&packet)).map_err(|_| ZygoteError::Nonsense);
            }
            Ok(Some(_)) => return Err(ZygoteError::Nonsense),
            Ok(None) => return Err(ZygoteError::Closed),
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(error) => return Err(error.into()),
        }
    }
}
