//! The accounts at work: a handle to ask for grants, and the task that takes in what the driver says.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::clock::MonotonicNanos;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, interval, timeout_at};
use tracing::{info, warn};

use super::accounts::{
    Accounts, Capacity, DeviceAsk, Found, GrantId, Outlook, Place, Refused, Report,
};
use super::gate::{Passed, Verdict};
use super::measured::{Measured, Subject};
use super::measured_file;
use super::sighting::Whose;
use crate::device::{Driver, Kin, Kinship, Snapshot, State};
use crate::health::DeviceUse;

/// A handle; all share the same accounts.
#[derive(Clone, Debug)]
pub struct Quotas(Arc<Shared>);

/// Where it comes from what devices have and who is on them.
pub struct Sources {
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Asks for a snapshot soon.
    pub hurry: Box<dyn Fn() + Send + Sync>,
    pub kin: Kin,
}

/// One look at a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it was begun.
    pub taken: MonotonicNanos,
    pub seen: DeviceUse,
}

/// What became of what a worker had of its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    Free,
    /// It is still there; its device is suspect until it has gone.
    Overdue,
}

struct Shared {
    accounts: Mutex<Accounts>,
    tenants: Mutex<BTreeMap<GrantId, Tenant>>,
    measured: Mutex<Measured>,
    measured_file: PathBuf,
    /// Something was given back, or more is known than before.
    returned: Notify,
    /// Somebody has begun to leave.
    leaving: Notify,
    sources: Sources,
}

/// Who runs under a grant.
#[derive(Debug)]
struct Tenant {
    pid: i32,
    samples: watch::Sender<Sample>,
    /// Whoever waits for what it had, once its exit was seen.
    left: Option<oneshot::Sender<Left>>,
}

/// A worker's share. Dropped, it is given back at once: no process has run under it.
#[derive(Debug)]
pub struct Grant {
    quotas: Quotas,
    id: GrantId,
    place: Option<Place>,
    /// Its process has gone, and the gate gives the rest back.
    left: bool,
}

/// How often it is looked whether somebody is overdue, while anybody is waited for.
const OVERDUE_EVERY: Duration = Duration::from_millis(100);

impl Quotas {
    /// Starts the task, which ends with the snapshots.
    pub fn start(capacity: Capacity, measured_file: PathBuf, sources: Sources) -> Self {
        let mut snapshots = sources.snapshots.clone();
        let mut accounts = Accounts::new(capacity);
        // What is known already is there for the first who asks. No process is ours yet.
        let _nobody = accounts.look(&snapshots.borrow_and_update(), |_| Whose::Other);
        let this = Self(Arc::new(Shared {
            accounts: Mutex::new(accounts),
            tenants: Mutex::default(),
            measured: Mutex::new(measured_file::read(&measured_file)),
            measured_file,
            returned: Notify::new(),
            leaving: Notify::new(),
            sources,
        }));
        tokio::spawn(this.clone().keep(snapshots));
        this
    }

    /// For a reload. Grants that no longer fit stay; nothing is granted until they do.
    pub fn set_capacity(&self, capacity: Capacity) {
        lock(&self.0.accounts).set_capacity(capacity);
        (self.0.sources.hurry)();
        // There may be more than there was.
        self.0.returned.notify_waiters();
    }

    /// Room for a worker that needs no device.
    pub fn reserve(&self, arena_bytes: u64) -> Result<Grant, Refused> {
        let reserved = lock(&self.0.accounts).reserve(arena_bytes, None);
        reserved.map(|granted| self.grant(granted))
    }

    /// Room for a worker on devices. Waits for what is on its way back, as long as that may take and
    /// no longer.
    pub async fn reserve_on(&self, arena_bytes: u64, ask: &DeviceAsk) -> Result<Grant, Refused> {
        let until = Instant::now() + lock(&self.0.accounts).patience();
        loop {
            let returned = self.0.returned.notified();
            tokio::pin!(returned);
            // From here on nothing that comes back is missed.
            returned.as_mut().enable();
            match self.try_on(arena_bytes, ask) {
                Ok(grant) => return Ok(grant),
                Err(refused) if refused.outlook == Outlook::Bleak => return Err(refused),
                Err(refused) => {
                    if timeout_at(until, returned).await.is_err() {
                        return Err(refused);
                    }
                }
            }
        }
    }

    fn try_on(&self, arena_bytes: u64, ask: &DeviceAsk) -> Result<Grant, Refused> {
        let measured = lock(&self.0.measured);
        let reserved = lock(&self.0.accounts).reserve(arena_bytes, Some((ask, &measured)));
        reserved.map(|granted| self.grant(granted))
    }

    fn grant(&self, (id, place): (GrantId, Option<Place>)) -> Grant {
        Grant { quotas: self.clone(), id, place, left: false }
    }

    /// Whether there is a device that can be used, as far as is known now.
    #[must_use]
    pub fn has_device(&self) -> bool {
        let snapshot = self.0.sources.snapshots.borrow();
        let usable = snapshot.readings.iter().any(|reading| reading.state == State::Usable);
        usable && matches!(snapshot.driver, Driver::Answers(_))
    }

    /// All accounts as they are now.
    #[must_use]
    pub fn report(&self) -> Report {
        lock(&self.0.accounts).report()
    }

    /// Takes note of what a model needed, for its next load.
    pub fn note_peak(&self, subject: Subject, engine: &str, build: &str, peak: u64) {
        let changed = lock(&self.0.measured).note(subject, engine, build, peak);
        self.save_if(changed);
    }

    /// What was measured was not enough: the next load has the configured limit.
    pub fn refute_peak(&self, subject: &Subject) {
        let changed = lock(&self.0.measured).refute(subject);
        self.save_if(changed);
    }

    fn save_if(&self, changed: bool) {
        if !changed {
            return;
        }
        let this = self.clone();
        spawn_blocking(move || {
            // Held while it is written, so that the last state is what stays.
            let measured = lock(&this.0.measured);
            let file = &this.0.measured_file;
            if let Err(error) = measured_file::write(file, &measured) {
                warn!(file = %file.display(), %error, "cannot keep what models need of devices");
            }
        });
    }

    /// Takes in snapshots, and tells whom they concern.
    async fn keep(self, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
        let mut ticks = interval(OVERDUE_EVERY);
        loop {
            let awaits = lock(&self.0.accounts).awaits();
            tokio::select! {
                changed = snapshots.changed() => match changed {
                    Ok(()) => {
                        let snapshot = Arc::clone(&snapshots.borrow_and_update());
                        self.take_in(snapshot).await;
                    }
                    Err(_) => return,
                },
                // From now on there is somebody to be late.
                () = self.0.leaving.notified() => {}
                _ = ticks.tick(), if awaits => {
                    let late = lock(&self.0.accounts).overdue(MonotonicNanos::now());
                    self.follow(late);
                }
            }
        }
    }

    async fn take_in(&self, snapshot: Arc<Snapshot>) {
        let this = self.clone();
        // Reads files of processes.
        let looked = spawn_blocking(move || {
            let pids: BTreeMap<i32, GrantId> =
                lock(&this.0.tenants).iter().map(|(&grant, tenant)| (tenant.pid, grant)).collect();
            let kin = this.0.sources.kin;
            let whose = |number: u32| match kin(number, &|pid| pids.contains_key(&pid)) {
                Kinship::Of(pid) => {
                    pids.get(&pid).map_or(Whose::Other, |&grant| Whose::Worker(grant))
                }
                Kinship::Stranger => Whose::Other,
                Kinship::Gone => Whose::Gone,
                Kinship::Unknown => Whose::Unknown,
            };
            let found = lock(&this.0.accounts).look(&snapshot, whose);
            (snapshot.taken, found)
        });
        // Without a thread for it this look is left out; the next one may have one.
        let Ok((taken, Found { seen, verdicts })) = looked.await else { return };
        for (grant, seen) in seen {
            if let Some(tenant) = lock(&self.0.tenants).get(&grant) {
                tenant.samples.send_replace(Sample { taken, seen });
            }
        }
        self.follow(verdicts);
        // Who waits for room may find it now.
        self.0.returned.notify_waiters();
    }

    fn follow(&self, verdicts: Vec<Verdict<GrantId>>) {
        for verdict in verdicts {
            match verdict {
                Verdict::Open { grant, after, passed } => {
                    let tenant = lock(&self.0.tenants).remove(&grant);
                    let Some(Tenant { pid, left, .. }) = tenant else { continue };
                    let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                    match passed {
                        Passed::Gone => info!(pid, after_ms, "device memory returned"),
                        Passed::Unproven => info!(
                            pid,
                            after_ms,
                            "device memory is taken for returned: the driver does not say who has it"
                        ),
                    }
                    tell(left, Left::Free);
                    self.0.returned.notify_waiters();
                }
                Verdict::Overdue { grant, after } => {
                    let mut tenants = lock(&self.0.tenants);
                    let Some(tenant) = tenants.get_mut(&grant) else { continue };
                    let pid = tenant.pid;
                    warn!(pid, ?after, "device memory of a worker that has ended is not returned");
                    tell(tenant.left.take(), Left::Overdue);
                    self.0.returned.notify_waiters();
                }
            }
        }
    }
}

impl Grant {
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// A process runs under it from now on: what it has of its devices is looked at.
    pub fn occupy(&self, pid: i32) -> watch::Receiver<Sample> {
        let nothing = Sample { taken: MonotonicNanos::default(), seen: DeviceUse::Nothing };
        let (samples, looks) = watch::channel(nothing);
        if self.place.is_some() {
            let tenant = Tenant { pid, samples, left: None };
            lock(&self.quotas.0.tenants).insert(self.id, tenant);
        }
        looks
    }

    /// The exit of its process has been seen. What that had of devices is waited for elsewhere; the
    /// receiver hears of it.
    pub fn leave(mut self) -> oneshot::Receiver<Left> {
        self.left = true;
        let (sender, left) = oneshot::channel();
        let shared = &self.quotas.0;
        let waits = match lock(&shared.tenants).get_mut(&self.id) {
            Some(tenant) => {
                tenant.left = Some(sender);
                true
            }
            None => {
                tell(Some(sender), Left::Free);
                false
            }
        };
        let mut accounts = lock(&shared.accounts);
        if waits {
            accounts.leave(self.id, MonotonicNanos::now());
            shared.leaving.notify_one();
            (shared.sources.hurry)();
        } else {
            accounts.release(self.id);
            shared.returned.notify_waiters();
        }
        left
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if !self.left {
            lock(&self.quotas.0.tenants).remove(&self.id);
            lock(&self.quotas.0.accounts).release(self.id);
            self.quotas.0.returned.notify_waiters();
        }
    }
}

fn tell(left: Option<oneshot::Sender<Left>>, what: Left) {
    if let Some(left) = left {
        // Nobody may want to know.
        let _gone = left.send(what);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in there is whole after each call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("snapshots", &self.snapshots).finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("accounts", &self.accounts).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "quotas_tests.rs"]
mod tests;
