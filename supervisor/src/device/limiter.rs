//! Hard limits on what a control group may have of a device, where the driver can hold them.
//!
//! Setting one goes through a thread of its own, which starts with the first limit that is wanted and may
//! hang as long as the driver likes; polling does not wait for it, and nobody waits for longer than the
//! driver may take to answer. A limit counts only if the driver says the same when it is asked what is
//! set. Whatever else is said leads to no limit and a reason, and is cleared again.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use shared::sys::nvml_limits::{Limits, MemoryLimits};
use shared::text::chain;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::warn;

use super::reading::DeviceId;

/// Limits that wait for the driver; more are refused.
const QUEUE: usize = 64;

#[derive(Clone, Debug)]
pub(super) struct Limiter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// `None` if there is nothing to ask.
    library: Option<PathBuf>,
    patience: Duration,
    /// To the thread; `None` inside if it could not be started.
    jobs: OnceLock<Option<SyncSender<Job>>>,
}

/// A limit that the driver holds. It goes with [`clear`](Self::clear), or when it is dropped; before the
/// control group does.
#[must_use]
#[derive(Debug)]
pub struct HardLimit {
    limiter: Limiter,
    /// `None` once it is being cleared.
    target: Option<Target>,
    bytes: u64,
}

/// Who is limited on which device.
#[derive(Clone, Debug)]
struct Target {
    device: DeviceId,
    group: PathBuf,
}

#[derive(Debug)]
enum Job {
    Set { target: Target, bytes: u64, done: oneshot::Sender<Result<(), String>> },
    Clear { target: Target, done: oneshot::Sender<()> },
}

impl Limiter {
    pub(super) fn new(library: Option<PathBuf>, patience: Duration) -> Self {
        Self(Arc::new(Shared { library, patience, jobs: OnceLock::new() }))
    }

    pub(super) async fn limit(
        &self,
        device: DeviceId,
        group: PathBuf,
        bytes: u64,
    ) -> Result<HardLimit, String> {
        let target = Target { device, group };
        let (done, set) = oneshot::channel();
        self.send(Job::Set { target: target.clone(), bytes, done })?;
        match timeout(self.0.patience, set).await {
            Ok(Ok(set)) => {
                set.map(|()| HardLimit { limiter: self.clone(), target: Some(target), bytes })
            }
            Ok(Err(_)) => Err("the thread that sets limits has ended".to_owned()),
            // The thread sees that nobody waits for it, and clears.
            Err(_) => Err(format!("the driver did not answer for {:?}", self.0.patience)),
        }
    }

    fn send(&self, job: Job) -> Result<(), String> {
        let Some(library) = &self.0.library else {
            return Err("there is no driver that could hold it".to_owned());
        };
        let jobs = self.0.jobs.get_or_init(|| start(library.clone()));
        let Some(jobs) = jobs else { return Err("no thread to set limits with".to_owned()) };
        jobs.try_send(job).map_err(|_| "the driver is behind with other limits".to_owned())
    }
}

impl HardLimit {
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Waits until it is gone, or the driver is silent for as long as it may be.
    pub async fn clear(mut self) {
        let Some(target) = self.target.take() else { return };
        let (done, cleared) = oneshot::channel();
        if let Err(error) = self.limiter.send(Job::Clear { target: target.clone(), done }) {
            target.keeps(&error);
        } else if timeout(self.limiter.0.patience, cleared).await.is_err() {
            target.keeps("the driver has not answered yet");
        }
    }
}

impl Drop for HardLimit {
    fn drop(&mut self) {
        let Some(target) = self.target.take() else { return };
        let (done, _cleared) = oneshot::channel();
        if let Err(error) = self.limiter.send(Job::Clear { target: target.clone(), done }) {
            target.keeps(&error);
        }
    }
}

impl Target {
    fn keeps(&self, why: &str) {
        let Self { device, group } = self;
        warn!(%device, group = %group.display(), why, "a limit on device memory is not cleared");
    }
}

fn start(library: PathBuf) -> Option<SyncSender<Job>> {
    let (jobs, todo) = sync_channel(QUEUE);
    let thread = thread::Builder::new().name("nvml limits".to_owned());
    thread.spawn(move || work(&library, &todo)).ok()?;
    Some(jobs)
}

/// Until nobody can want a limit, or have one, any more.
fn work(library: &Path, todo: &Receiver<Job>) {
    while let Ok(job) = todo.recv() {
        match job {
            Job::Set { done, .. } if done.is_closed() => {}
            Job::Set { target, bytes, done } => {
                let set = target.set(library, bytes);
                let is_set = set.is_ok();
                if done.send(set).is_err() && is_set {
                    target.clear(library);
                }
            }
            Job::Clear { target, done } => {
                target.clear(library);
                // Who dropped it does not wait.
                let _unheard = done.send(());
            }
        }
    }
}

impl Target {
    fn set(&self, library: &Path, bytes: u64) -> Result<(), String> {
        let limits = MemoryLimits::open(library).map_err(|error| chain(&error))?;
        let wanted = Limits { soft: 0, hard: bytes };
        let device = self.device.as_str();
        limits.set(device, &self.group, wanted).map_err(|error| chain(&error))?;
        let why = match limits.get(device, &self.group) {
            Ok(read) if read == wanted => return Ok(()),
            Ok(Limits { soft, hard }) => {
                format!(
                    "the driver took a limit of {bytes} bytes and says hard {hard}, soft {soft}"
                )
            }
            Err(error) => format!("the driver took a limit and does not say it: {}", chain(&error)),
        };
        self.clear(library);
        Err(why)
    }

    fn clear(&self, library: &Path) {
        // With the control group its limits have gone.
        if !self.group.exists() {
            return;
        }
        let limits = MemoryLimits::open(library);
        let cleared =
            limits.and_then(|limits| limits.set(self.device.as_str(), &self.group, Limits::NONE));
        if let Err(error) = cleared {
            self.keeps(&chain(&error));
        }
    }
}
