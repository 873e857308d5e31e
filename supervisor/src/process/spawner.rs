//! Starts processes: copies of a zygote, or programs.
//!
//! Programs are all started by one thread. A worker asks the kernel to be killed when its parent
//! *thread* ends, so that thread lives as long as the supervisor does; and a zygote's copies are
//! children of the thread that started the zygote.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;

use nix::unistd::Pid;
use tokio::sync::oneshot;

use super::child::Child;
use super::command::{Start, WorkerCommand};
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

    /// Starts a worker, as a copy of its binary's zygote if it may be one and there is one.
    pub async fn spawn(&self, command: WorkerCommand) -> Result<Child, SpawnError> {
        let command = match command.start {
            Start::Exec => command,
            Start::Zygote => match self.zygotes.fork(command).await? {
                Forked::Made(child) => return Ok(child),
                Forked::Declined(command) => command,
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
}

#[derive(Debug)]
struct Job {
    command: Command,
    started: oneshot::Sender<io::Result<Pid>>,
}

#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("the spawner thread has ended")]
    Ended,
    #[error("the task of the zygote has ended")]
    Zygote,
    #[error("cannot start {}", binary.display())]
    Start { binary: PathBuf, source: io::Error },
}

impl Programs {
    fn start() -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let run = move || {
            for Job { mut command, started } in queue {
                let spawned = command.spawn().map(|child| {
                    let pid = i32::try_from(child.id()).expect("the kernel's numbers are an i32");
                    Pid::from_raw(pid)
                });
                // A worker that nobody waits for finds its control socket closed, and ends.
                let _nobody = started.send(spawned);
            }
        };
        std::thread::Builder::new().name("spawner".to_owned()).spawn(run)?;
        Ok(Self { jobs })
    }

    pub(super) async fn spawn(&self, binary: &Path, command: Command) -> Result<Child, SpawnError> {
        let (started, child) = oneshot::channel();
        self.jobs.send(Job { command, started }).map_err(|_| SpawnError::Ended)?;
        let pid = child.await.map_err(|_| SpawnError::Ended)?;
        let binary = || binary.to_owned();
        pid.and_then(Child::adopt).map_err(|source| SpawnError::Start { binary: binary(), source })
    }
}
