//! The one thread that starts processes.
//!
//! A worker asks the kernel to be killed when its parent *thread* ends, so all are started by a
//! thread that lives as long as the supervisor does.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::child::Child;
use super::command::WorkerCommand;

/// A handle on the thread. It ends with the last handle, which is the supervisor's end.
#[derive(Clone, Debug)]
pub struct Spawner {
    jobs: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Job {
    command: WorkerCommand,
    started: oneshot::Sender<Result<Child, SpawnError>>,
}

#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("the spawner thread has ended")]
    Ended,
    #[error("cannot start {}", binary.display())]
    Start { binary: PathBuf, source: io::Error },
}

impl Spawner {
    /// Starts the thread; `runtime` reaps what it starts.
    pub fn start(runtime: Handle) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let run = move || {
            let _reactor = runtime.enter();
            for Job { command, started } in queue {
                // If nobody waits any more, dropping the child kills it.
                let _nobody = started.send(start(command));
            }
        };
        std::thread::Builder::new().name("spawner".to_owned()).spawn(run)?;
        Ok(Self { jobs })
    }

    pub async fn spawn(&self, command: WorkerCommand) -> Result<Child, SpawnError> {
        let (started, child) = oneshot::channel();
        self.jobs.send(Job { command, started }).map_err(|_| SpawnError::Ended)?;
        child.await.map_err(|_| SpawnError::Ended)?
    }
}

fn start(command: WorkerCommand) -> Result<Child, SpawnError> {
    let binary = command.binary.clone();
    let started = command.build().and_then(|mut command| command.spawn()).and_then(Child::new);
    started.map_err(|source| SpawnError::Start { binary, source })
}
