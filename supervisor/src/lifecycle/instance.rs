//! One instance as others see it: what it is made of, a handle to ask things of it, its status.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proto::control::{Confinement, LoadSpec, Loaded, Measure};
use shared::id::{Generation, InstanceId, WorkerId};
use shared::ring::layout::Geometry;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::archive::Archive;
use super::driver::Driver;
use super::history::History;
use super::live::Live;
use super::seating::Seating;
use super::{Event, State, Status, card};
use crate::config::{self, GpuLimits, HostLimits};
use crate::device::Devices;
use crate::enclosure::{Enclosures, LimitsReport};
use crate::health::{DeviceUse, HealthPolicy};
use crate::lane::Bells;
use crate::process::{Journals, LogLimits, Spawner, Speaker, Start};
use crate::quota::{Place, Quotas};
use crate::schedule::{BatchCap, SlotQueue};
use crate::stats::Registry;
use crate::status::{Board, InstanceCard};

/// What every instance of this supervisor shares.
#[derive(Clone, Debug)]
pub struct Kit {
    pub spawner: Spawner,
    pub enclosures: Enclosures,
    pub bells: Arc<Bells>,
    pub devices: Devices,
    pub quotas: Quotas,
    /// What operators are shown.
    pub board: Board,
    /// How workers ended.
    pub archive: Archive,
    /// Where requests are counted.
    pub stats: Registry,
    /// What they wrote.
    pub journals: Journals,
    /// The folder of the worker binaries.
    pub binaries: PathBuf,
}

impl Kit {
    pub(super) fn speaker(&self, worker: &WorkerId) -> Speaker {
        Speaker::Worker(worker.clone(), self.journals.of(&worker.instance.model))
    }
}

/// Everything that makes an instance.
#[derive(Clone, Debug)]
pub struct InstanceSpec {
    pub id: InstanceId,
    pub binary: PathBuf,
    pub start: Start,
    /// Of every generation; where it runs is added when it is granted.
    pub load: LoadSpec,
    pub seating: Seating,
    pub gpu: GpuLimits,
    pub geometry: Geometry,
    pub health: HealthPolicy,
    /// What the worker gives up, but for what its enclosure says: `scratch` and `data_limit`.
    pub confinement: Confinement,
    pub level: config::Confinement,
    pub host: HostLimits,
    /// What may change meanwhile.
    pub live: watch::Receiver<Live>,
    /// What all instances of the version share.
    pub batch_cap: Arc<BatchCap>,
    pub log: LogLimits,
}

impl InstanceSpec {
    pub(super) fn handshake_timeout(&self) -> Duration {
        self.live.borrow().handshake_timeout
    }
}

/// What can be seen of an instance at a moment.
#[derive(Clone, Debug)]
pub struct InstanceView {
    pub state: &'static str,
    pub status: Status,
    pub gone: Gone,
    /// It asked for memory to load, and there was none.
    pub denied: bool,
    /// What the newest worker that loaded said of its model.
    pub loaded: Option<Arc<Loaded>>,
    /// How its workers ended.
    pub history: Arc<History>,
    /// The worker that is there now.
    pub worker: Option<WorkerView>,
    /// What the newest worker that said so gave up, and what of it could not be had.
    pub confinement: Option<Arc<Vec<Measure>>>,
}

/// A process that is there.
#[derive(Clone, Debug)]
pub struct WorkerView {
    pub pid: i32,
    pub generation: Generation,
    /// Milliseconds since 1970, UTC.
    pub started_at: u64,
    /// What holds it.
    pub limits: Arc<LimitsReport>,
    /// Bytes of memory that would come free if it ended; looked at now and then.
    pub private_memory: Option<u64>,
    /// Bytes that its limit is held against; `None` where the kernel holds it, or nobody.
    pub used_memory: Option<u64>,
    /// `None` on the CPU.
    pub device: Option<DeviceView>,
}

/// A worker on devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceView {
    pub place: Arc<Place>,
    /// What keeps it within its quota; the strongest of what does.
    pub enforcement: Enforcement,
    /// Why the driver itself does not, if it does not.
    pub not_hard: Option<String>,
    /// At the last look.
    pub used: DeviceUse,
    /// Looks since it loaded that showed nothing certain.
    pub blind: u64,
}

/// What keeps a worker within its device memory, from the hardest on. Never more than is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Enforcement {
    /// The driver refuses what is more, to its whole control group.
    Hard,
    /// Its engine's allocator refuses what is more, by the worker's own word.
    Allocator,
    /// It is seen, and ended if it has more.
    Watchdog,
    None,
}

impl fmt::Display for Enforcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hard => "hard",
            Self::Allocator => "allocator",
            Self::Watchdog => "watchdog",
            Self::None => "none",
        })
    }
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
    index: u16,
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
        let index = spec.id.index;
        let driver = Driver::new(spec, kit, queue, inbox);
        let view = driver.view();
        tokio::spawn(driver.run(changed));
        Self { index, events, view }
    }

    pub fn view(&self) -> InstanceView {
        self.view.borrow().clone()
    }

    /// What operators are shown of it, whenever they look.
    pub(super) fn card(&self) -> InstanceCard {
        let (index, view) = (self.index, self.view.clone());
        InstanceCard::new(move || card::shown(index, &view.borrow()))
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
