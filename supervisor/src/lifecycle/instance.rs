//! One instance as others see it: what it is made of, a handle to ask things of it, its status.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::control::{Confinement, LoadSpec, Loaded, Measure};
use shared::id::InstanceId;
use shared::ring::layout::Geometry;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::archive::Archive;
use super::driver::Driver;
use super::history::History;
use super::{Event, Policy, State, Status};
use crate::config::{self, HostLimits};
use crate::enclosure::{Enclosures, LimitsReport};
use crate::health::HealthPolicy;
use crate::lane::Bells;
use crate::process::{LogLimits, Spawner, Start};
use crate::quota::{Ledger, Reserved};
use crate::schedule::{BatchCap, SlotQueue};

/// What every instance of this supervisor shares.
#[derive(Clone, Debug)]
pub struct Kit {
    pub spawner: Spawner,
    pub enclosures: Enclosures,
    pub bells: Arc<Bells>,
    pub accounts: Arc<Mutex<Accounts>>,
    /// How workers ended.
    pub archive: Archive,
    /// The folder of the worker binaries.
    pub binaries: PathBuf,
}

/// What workers cost the supervisor itself.
#[derive(Debug)]
pub struct Accounts {
    /// Bytes of the memory objects.
    arenas: Ledger<GrantId>,
    /// Processes, 1 for each worker.
    workers: Ledger<GrantId>,
    next: u64,
}

/// What one worker holds. Its name would not do: while a model is loaded anew, two workers have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GrantId(u64);

impl Accounts {
    pub fn new(arena_bytes: u64, workers: u64) -> Self {
        Self { arenas: Ledger::new(arena_bytes), workers: Ledger::new(workers), next: 0 }
    }

    /// Room for one worker, or why there is none.
    pub(super) fn reserve(&mut self, arena_bytes: u64) -> Result<GrantId, String> {
        let grant = GrantId(self.next);
        self.next += 1;
        if let Reserved::Denied(_) = self.workers.reserve(grant, 1) {
            let most = self.workers.capacity();
            return Err(format!("limits.max_workers = {most} workers run already"));
        }
        if let Reserved::Denied(denied) = self.arenas.reserve(grant, arena_bytes) {
            let _freed = self.workers.release(&grant);
            return Err(format!("limits.arena_memory: {denied}"));
        }
        Ok(grant)
    }

    /// Gives back what one worker held; its process is gone.
    pub(super) fn release(&mut self, grant: GrantId) {
        let _freed = self.arenas.release(&grant);
        let _freed = self.workers.release(&grant);
    }
}

/// Everything that makes an instance.
#[derive(Clone, Debug)]
pub struct InstanceSpec {
    pub id: InstanceId,
    pub binary: PathBuf,
    pub start: Start,
    pub load: LoadSpec,
    pub geometry: Geometry,
    pub policy: Policy,
    pub health: HealthPolicy,
    /// What the worker gives up, but for what its enclosure says: `scratch` and `data_limit`.
    pub confinement: Confinement,
    pub level: config::Confinement,
    pub host: HostLimits,
    pub handshake_timeout: Duration,
    /// Longest time that one inference may take before its worker counts as hung.
    pub infer_timeout: Duration,
    /// How long nobody must have used the model for its worker to end; `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// What all instances of the version share.
    pub batch_cap: Arc<BatchCap>,
    pub log: LogLimits,
}

/// What can be seen of an instance at a moment.
#[derive(Clone, Debug)]
pub struct InstanceView {
    pub state: &'static str,
    pub status: Status,
    pub gone: Gone,
    /// What the newest worker that loaded said of its model.
    pub loaded: Option<Arc<Loaded>>,
    /// How its workers ended.
    pub history: Arc<History>,
    /// What holds the worker that is there now.
    pub limits: Option<Arc<LimitsReport>>,
    /// Bytes of memory that would come free if that worker ended; looked at now and then.
    pub private_memory: Option<u64>,
    /// What the newest worker that said so gave up, and what of it could not be had.
    pub confinement: Option<Arc<Vec<Measure>>>,
}

/// Whether an instance has no process and will have none before somebody acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    Yes,
    No,
}

impl Gone {
    pub(super) fn of(state: &State) -> Self {
        match state {
            State::Unloaded(_) | State::Quarantined(_) => Self::Yes,
            State::Reserving { .. }
            | State::Starting { .. }
            | State::Ready { .. }
            | State::Draining { .. }
            | State::Stopping(_)
            // It has no process, and the next request brings one.
            | State::Resting
            | State::Backoff { .. } => Self::No,
        }
    }
}

/// A handle on the task that owns an instance. The task ends when the handle is gone and the
/// instance is unloaded.
#[derive(Debug)]
pub struct Instance {
    events: mpsc::Sender<Asked>,
    view: watch::Receiver<InstanceView>,
}

/// Something asked of an instance. The sender is dropped once it shows in the view.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) event: Event,
    pub(super) heard: oneshot::Sender<()>,
}

/// Asks an instance for as long as its handle lives.
#[derive(Debug)]
pub(super) struct Asker(mpsc::WeakSender<Asked>);

impl Asker {
    pub(super) async fn ask(&self, event: Event) {
        if let Some(events) = self.0.upgrade() {
            ask(&events, event).await;
        }
    }
}

async fn ask(events: &mpsc::Sender<Asked>, event: Event) {
    let (heard, shown) = oneshot::channel();
    // A task that has ended has nothing left to do, and drops what it is asked.
    let _ended = events.send(Asked { event, heard }).await;
    let _dropped = shown.await;
}

/// Requests that may wait for the task of one instance.
const EVENTS: usize = 16;

impl Instance {
    /// Starts the task. `changed` is notified whenever the view has changed.
    pub fn start(
        spec: InstanceSpec,
        kit: Kit,
        queue: Arc<SlotQueue>,
        changed: Arc<Notify>,
    ) -> Self {
        let (events, inbox) = mpsc::channel(EVENTS);
        let driver = Driver::new(spec, kit, queue, inbox);
        let view = driver.view();
        tokio::spawn(driver.run(changed));
        Self { events, view }
    }

    pub fn view(&self) -> InstanceView {
        self.view.borrow().clone()
    }

    /// Asks, and waits until the view shows that it was heard: whoever looks at the view next must
    /// not take the state before for what came of it. What it leads to later is not waited for.
    pub async fn ask(&self, event: Event) {
        ask(&self.events, event).await;
    }

    /// A way to ask that does not keep the task alive.
    pub(super) fn asker(&self) -> Asker {
        Asker(self.events.downgrade())
    }
}
