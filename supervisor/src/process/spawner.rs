//! Starts processes: copies of a zygote, or programs.
//!
//! Programs are all started by one thread. A worker asks the kernel to be killed when its parent
//! *thread* ends, so that thread lives as long as the supervisor does; and a zygote's copies are
//! children of the thread that started the zygote.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, mpsc};

use tokio::sync::oneshot;

use super::child::Child;
use super::command::{Start, WorkerCommand};
use super::strays::{Family, Member};
use super::turns::{self, Turns};
use super::zygote::{Forked, Zygotes};

/// A handle on all that. The thread ends with the last handle, which is the supervisor's end.
#[derive(Clone, Debug)]
pub struct Spawner {
    programs: Programs,
    zygotes: Zygotes,
}

impl Spawner {
    pub fn start() -> io::Result<Self> {
        let programs = Programs::start()?;
        Ok(Self { zygotes: Zygotes::new(programs.clone()), programs })
    }

    /// What was started here and not reaped yet.
    pub fn family(&self) -> &Arc<Family> {
        self.programs.family()
    }

    /// The worker programs that have had a zygote, and how it does: `starting`, `ready` or `down`.
    #[must_use]
    pub fn zygotes(&self) -> Vec<(String, &'static str)> {
        self.zygotes.states()
    }

    /// Starts a worker, as a copy of its binary's zygote if it may be one and there is one.
    pub async fn spawn(&self, command: WorkerCommand) -> Result<Child, SpawnError> {
        let command = match command.start {
            Start::Exec => command,
            Start::Zygote => match self.zygotes.fork(command).await? {
                Forked::Made(child) => return Ok(child),
                Forked::Declined(command) => command,
                Forked::Lost => return Err(SpawnError::Lost),
            },
        };
        let program = command.program();
        let program = program.map_err(|source| {
            let binary = command.binary.clone();
            SpawnError::Start { binary, source }
        })?;
        self.programs.spawn(&command.binary, program).await
    }
}

/// A handle on the thread that starts programs.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    jobs: mpsc::Sender<Job>,
    family: Arc<Family>,
}

#[derive(Debug)]
struct Job {
    command: Command,
    started: oneshot::Sender<io::Result<Member>>,
}

#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("the spawner thread has ended")]
    Ended,
    #[error("the task of the zygote has ended")]
    Zygote,
    #[error("the zygote failed while it made the process")]
    Lost,
    #[error("cannot start {}", binary.display())]
    Start { binary: PathBuf, source: io::Error },
}

impl Programs {
    fn start() -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let family = Arc::new(Family::default());
        let of_thread = Arc::clone(&family);
        let run = move || {
            // What is started here has it from this thread.
            let _refused = turns::take(Turns::Usual);
            for Job { mut command, started } in queue {
                let number = |child: &std::process::Child| {
                    i32::try_from(child.id()).expect("the kernel's numbers are an i32")
                };
                let spawned = of_thread.start(|| command.spawn(), number);
                // A worker that nobody waits for finds its control socket closed, and ends.
                let _nobody = started.send(spawned.map(|(_, member)| member));
            }
        };
        std::thread::Builder::new().name("spawner".to_owned()).spawn(run)?;
        Ok(Self { jobs, family })
    }

    /// What was started here and not reaped yet.
    pub(super) fn family(&self) -> &Arc<Family> {
        &self.family
    }

    pub(super) async fn spawn(&self, binary: &Path, command: Command) -> Result<Child, SpawnError> {
        let (started, child) = oneshot::channel();
        self.jobs.send(Job { command, started }).map_err(|_| SpawnError::Ended)?;
        let member = child.await.map_err(|_| SpawnError::Ended)?;
        let named = |source| SpawnError::Start { binary: binary.to_owned(), source };
        member.and_then(Child::adopt).map_err(named)
    }
}
