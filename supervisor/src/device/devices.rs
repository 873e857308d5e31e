//! The handle on all of it, and the task that keeps time: it has the driver asked at regular times, or
//! sooner when somebody is in a hurry, and says so when no answer comes.
//!
//! Nobody ever waits for the driver without a limit: the thread that does is left to itself when the last
//! handle goes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tracing::{error, info, warn};

use super::asker::{Answer, Asker, Library};
use super::limiter::{HardLimit, Limiter};
use super::reading::{DeviceId, Driver, Snapshot};
use crate::config;
use crate::config::NvmlLibrary;

/// How long until a driver that is not there is looked for again. Being in a hurry brings it forward.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// A handle; all share the same thread, which ends with the last one.
#[derive(Clone, Debug)]
pub struct Devices(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    snapshots: watch::Sender<Arc<Snapshot>>,
    /// Has seen nothing but the first state.
    first: watch::Receiver<Arc<Snapshot>>,
    hurry: Arc<Notify>,
    limiter: Limiter,
    keeper: Option<AbortHandle>,
}

impl Devices {
    /// Begins to ask. Within a runtime, which the task that keeps time is one of.
    #[must_use]
    pub fn start(settings: &config::Devices) -> Self {
        let library = match &settings.nvml {
            NvmlLibrary::Off => None,
            NvmlLibrary::Auto => Some(Library::Usual),
            NvmlLibrary::Path(path) => Some(Library::Named(path.clone())),
        };
        let hurry = Arc::new(Notify::new());
        let limiter = Limiter::new(library.as_ref().map(Library::path), settings.answer_timeout);
        let Some(library) = library else {
            let (snapshots, mut first) = watch::channel(absent("devices.nvml is \"off\""));
            first.mark_changed();
            return Self(Arc::new(Shared { snapshots, first, hurry, limiter, keeper: None }));
        };
        let (snapshots, first) = watch::channel(absent("nothing has been asked yet"));
        let (want, wanted) = sync_channel(1);
        let (answers, answered) = mpsc::channel(1);
        let asker = Asker::new(library, wanted, answers);
        let thread = thread::Builder::new().name("nvml".to_owned()).spawn(move || asker.run());
        if let Err(error) = thread {
            error!(%error, "no thread to ask the GPU driver with");
        }
        let keeper = Keeper {
            poll_interval: settings.poll_interval,
            answer_timeout: settings.answer_timeout,
            want,
            answered,
            snapshots: snapshots.clone(),
            hurry: Arc::clone(&hurry),
        };
        let keeper = Some(tokio::spawn(keeper.run()).abort_handle());
        Self(Arc::new(Shared { snapshots, first, hurry, limiter, keeper }))
    }

    /// Waits until the driver has answered once, or was silent for as long as it may be.
    pub async fn settled(&self) {
        // The sender is ours.
        let _open = self.0.first.clone().changed().await;
    }

    #[must_use]
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.0.snapshots.subscribe()
    }

    /// Asks for a snapshot soon.
    pub fn hurry(&self) {
        self.0.hurry.notify_one();
    }

    /// Sets what the processes of a control group may have of a device, `group` being its folder. The
    /// error says what is in the way; there is no limit then. May be dropped at any time: what is set
    /// when nobody waits for it is cleared.
    pub async fn limit(
        &self,
        device: DeviceId,
        group: PathBuf,
        bytes: u64,
    ) -> Result<HardLimit, String> {
        self.0.limiter.limit(device, group, bytes).await
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            // With it goes what the thread waits for.
            keeper.abort();
        }
    }
}

fn absent(why: &str) -> Arc<Snapshot> {
    Arc::new(Snapshot::absent(why))
}

/// What the task holds.
struct Keeper {
    poll_interval: Duration,
    answer_timeout: Duration,
    want: SyncSender<()>,
    answered: mpsc::Receiver<Answer>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    hurry: Arc<Notify>,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            let asked = Instant::now();
            let answer = match self.want.try_send(()) {
                Ok(()) => self.answer().await,
                Err(_) => None,
            };
            let pause = match answer {
                Some(Answer::Snapshot(snapshot)) => self.publish(snapshot),
                Some(Answer::Last(snapshot)) => {
                    self.publish(snapshot);
                    return;
                }
                None => {
                    // What it said last must not be taken for what is so.
                    error!("the thread that asks the GPU driver has ended");
                    let unasked =
                        self.snapshots.borrow().unasked("nobody asks the driver any more");
                    self.publish(unasked);
                    return;
                }
            };
            tokio::select! {
                () = sleep_until(asked + pause) => {}
                () = self.hurry.notified() => {}
            }
        }
    }

    /// However long it takes.
    async fn answer(&mut self) -> Option<Answer> {
        if let Ok(answer) = timeout(self.answer_timeout, self.answered.recv()).await {
            return answer;
        }
        let answer_timeout = self.answer_timeout;
        warn!(?answer_timeout, "the GPU driver is silent");
        self.snapshots.send_modify(|snapshot| *snapshot = Arc::new(snapshot.silent()));
        let answer = self.answered.recv().await;
        if answer.is_some() {
            info!("the GPU driver answers again");
        }
        answer
    }

    /// Gives the time until the next question.
    fn publish(&self, snapshot: Snapshot) -> Duration {
        let pause = match &snapshot.driver {
            Driver::Answers(_) | Driver::Silent => self.poll_interval,
            Driver::Absent(_) => LOOK_AGAIN,
        };
        self.snapshots.send_replace(Arc::new(snapshot));
        pause
    }
}
