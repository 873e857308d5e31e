//! The one thread that starts processes.
//!
//! A worker asks the kernel to be killed when its parent *thread* ends, so all are started by a
//! thread that lives as long as the supervisor does.

use std::io;
use std::sync::{Arc, mpsc};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::child::Child;
use super::command::WorkerCommand;
use super::strays::Family;

/// A handle on the thread. It ends with the last handle, which is the supervisor's end.
#[derive(Clone, Debug)]
pub struct Spawner {
    jobs: mpsc::Sender<Job>,
    family: Arc<Family>,
}

#[derive(Debug)]
struct Job {
    command: WorkerCommand,
    started: oneshot::Sender<io::Result<Child>>,
}

impl Spawner {
    /// Starts the thread; `runtime` reaps what it starts.
    pub fn start(runtime: Handle) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let family = Arc::new(Family::default());
        let of_thread = Arc::clone(&family);
        let run = move || {
            let _reactor = runtime.enter();
            for Job { command, started } in queue {
                // If nobody waits any more, dropping the child kills it.
                let _nobody = started.send(start(command, &of_thread));
            }
        };
        std::thread::Builder::new().name("spawner".to_owned()).spawn(run)?;
        Ok(Self { jobs, family })
    }

    /// What was started here and not reaped yet.
    pub fn family(&self) -> &Arc<Family> {
        &self.family
    }

    pub async fn spawn(&self, command: WorkerCommand) -> io::Result<Child> {
        let (started, child) = oneshot::channel();
        let ended = || io::Error::other("the spawner thread has ended");
        self.jobs.send(Job { command, started }).map_err(|_| ended())?;
        child.await.map_err(|_| ended())?
    }
}

fn start(command: WorkerCommand, family: &Arc<Family>) -> io::Result<Child> {
    let binary = command.binary.clone();
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", binary.display()));
    let mut command = command.build()?;
    let start = || {
        let process = command.spawn().map_err(named)?;
        let pid = process.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.ok_or_else(|| io::Error::other("the process has no id"))?;
        Ok::<_, io::Error>((process, pid))
    };
    let ((process, pid), member) = family.start(start, |(_, pid)| *pid)?;
    Ok(Child::new(process, pid, member))
}
