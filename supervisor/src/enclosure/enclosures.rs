//! What holds the workers of one supervisor, and what holds one of them.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::zygote::Entrance;
use shared::id::{ModelName, WorkerId};
use shared::sync::{AtomicU64, Ordering};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::claim::Claim;
use super::group::{Group, Leaf, is_shortage};
use super::hierarchy::{self, Kind, Place};
use super::report::{Held, LimitsReport, TreeKill};
use super::{name, scratch, settings};
use crate::config::{Cgroup, Confinement, HostLimits};

#[derive(Debug, thiserror::Error)]
pub enum EnclosureError {
    #[error("limits.cgroup = {} is no folder of a control group file system", .0.display())]
    NoCgroup(PathBuf),
    #[error("cannot make a group in limits.cgroup = {}", .0.display())]
    Cgroup(PathBuf, #[source] io::Error),
    #[error("cannot make a folder in scratch = {}", .0.display())]
    Scratch(PathBuf, #[source] io::Error),
    #[error("cannot make the worker's scratch folder")]
    WorkerScratch(#[source] io::Error),
    #[error("cannot make the worker's control group")]
    WorkerGroup(#[source] io::Error),
    #[error("cannot move the worker into its control group")]
    Adopt(#[source] io::Error),
    #[error("the thread that does this has ended")]
    Thread,
}

/// Makes what holds each worker. A cheap handle.
#[derive(Clone, Debug)]
pub struct Enclosures(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    groups: Vec<Group>,
    scratch: Claim,
    serial: AtomicU64,
    processors: usize,
    /// The `cpu_weight` of each worker that is there.
    weights: Mutex<Vec<u64>>,
    /// Enclosures that are not dissolved.
    living: watch::Sender<usize>,
    /// Shortfalls that were told already.
    told: Mutex<BTreeSet<(ModelName, String)>>,
}

/// What holds one worker. To be dissolved when the worker has gone.
#[derive(Debug)]
pub struct Enclosure {
    name: String,
    leaves: Vec<Leaf>,
    weight: u64,
    report: Arc<LimitsReport>,
    survived: Mutex<Survived>,
    shared: Arc<Shared>,
}

/// What the kernel has killed for memory at a look after which the worker was seen alive, and at the
/// last one, of which that is not known yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Survived {
    known: u64,
    last: u64,
}

/// What there was to see when a worker had ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Processes of this worker that the kernel killed for memory, without those that it has survived.
    pub oom_kills: u64,
}

/// How often a group that has just been emptied is asked to go, and the first wait between; each is
/// twice as long as the one before, up to the longest.
const REMOVALS: u32 = 40;
const FIRST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// The same for what dead supervisors left, which the start waits for.
const SWEEPS: u32 = 10;

impl Enclosures {
    /// Removes what dead supervisors left, and takes what this machine gives.
    pub async fn open(cgroup: &Cgroup, scratch: &Path) -> Result<Self, EnclosureError> {
        let groups = groups(cgroup).await?;
        let failed = |e| EnclosureError::Scratch(scratch.to_owned(), e);
        fs::create_dir_all(scratch).map_err(failed)?;
        // What the kernel says of an open file has no links in it.
        let scratch = &fs::canonicalize(scratch).map_err(failed)?;
        sweep_scratch(scratch);
        let scratch = Claim::make(scratch).map_err(failed)?;
        let (serial, living) = (AtomicU64::new(1), watch::Sender::new(0));
        let (weights, told) = Default::default();
        // One that is not known is one that is not lent.
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Ok(Self(Arc::new(Shared { groups, scratch, serial, processors, weights, living, told })))
    }

    /// What ends the tree of a worker here.
    pub fn tree_kill(&self) -> TreeKill {
        self.0.tree_kill()
    }

    /// Tells once for each model what holds its limits badly.
    pub fn tell_shortfalls(&self, model: &ModelName, limits: &HostLimits, level: Confinement) {
        let leaves = self.0.groups.iter().map(|g| (g.kind().clone(), g.controllers().clone()));
        let (leaves, tree_kill) = (leaves.collect(), self.0.tree_kill());
        let held = Held { leaves, tree_kill, ..Held::default() };
        self.0.tell(model, &LimitsReport::new(held, limits, level));
    }

    /// Makes the leaves and the scratch folder of a worker that is about to start.
    pub async fn enclose(
        &self,
        worker: &WorkerId,
        limits: &HostLimits,
        level: Confinement,
    ) -> Result<Arc<Enclosure>, EnclosureError> {
        let (shared, worker, limits) = (Arc::clone(&self.0), worker.clone(), limits.clone());
        let made = spawn_blocking(move || shared.enclose(&worker, &limits, level)).await;
        made.map_err(|_| EnclosureError::Thread)?.map(Arc::new)
    }

    /// Waits until everything that belonged to workers is gone, at most for `limit`, and removes what
    /// the supervisor itself had. No worker may start after it.
    pub async fn settle(&self, limit: Duration) {
        let mut living = self.0.living.subscribe();
        if timeout(limit, living.wait_for(|&living| living == 0)).await.is_err() {
            warn!("scratch folders or control groups of workers are left; the next start sweeps");
        }
        // Not left to the last handle: tasks that hold one may end with the process.
        self.0.groups.iter().for_each(Group::release);
        self.0.scratch.release();
    }
}

impl Shared {
    fn tree_kill(&self) -> TreeKill {
        let kinds: Vec<TreeKill> = self.groups.iter().map(Group::tree_kill).collect();
        [TreeKill::CgroupKill, TreeKill::CgroupMembers]
            .into_iter()
            .find(|kind| kinds.contains(kind))
            .unwrap_or_default()
    }

    fn tell(&self, model: &ModelName, report: &LimitsReport) {
        for shortfall in report.shortfalls() {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.insert((model.clone(), shortfall.clone())) {
                warn!(model = model.as_str(), "{shortfall}");
            }
        }
    }

    fn enclose(
        self: Arc<Self>,
        worker: &WorkerId,
        limits: &HostLimits,
        level: Confinement,
    ) -> Result<Enclosure, EnclosureError> {
        let name = name::leaf(self.serial.fetch_add(1, Ordering::Relaxed), worker);
        let scratch = self.scratch.folder().join(&name);
        let made = DirBuilder::new().mode(0o700).create(&scratch);
        made.map_err(EnclosureError::WorkerScratch)?;
        let (mut leaves, mut problems) = (Vec::new(), Vec::new());
        for group in &self.groups {
            match group.leaf(&name, limits, &mut problems) {
                Ok(leaf) => leaves.push(leaf),
                Err(e) if is_shortage(&e) => {
                    self.give_up(&name, &leaves);
                    return Err(EnclosureError::WorkerGroup(e));
                }
                Err(e) => problems.push(format!("no group in {}: {e}", group.folder().display())),
            }
        }
        let held = leaves.iter().map(|leaf| (leaf.kind().clone(), leaf.controllers().clone()));
        let tree_kill = if leaves.is_empty() { TreeKill::default() } else { self.tree_kill() };
        let held = Held { leaves: held.collect(), tree_kill, scratch, problems };
        let report = LimitsReport::new(held, limits, level);
        self.tell(&worker.instance.model, &report);
        self.living.send_modify(|living| *living += 1);
        let weight = u64::from(limits.cpu_weight);
        self.weigh(|weights| weights.push(weight));
        let (report, survived) = (Arc::new(report), Mutex::default());
        Ok(Enclosure { name, leaves, weight, report, survived, shared: self })
    }

    fn weigh(&self, change: impl FnOnce(&mut Vec<u64>)) {
        // Held while it is written, so that the last value is what stays.
        let mut weights = self.weights.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut weights);
        let together = settings::together(&weights, self.processors);
        self.groups.iter().for_each(|group| group.weigh(together));
    }

    /// Removes what was made for a worker that does not start.
    fn give_up(&self, name: &str, leaves: &[Leaf]) {
        // What cannot be removed now is swept by the next start.
        for leaf in leaves {
            let _left = leaf.remove();
        }
        let _left = fs::remove_dir(self.scratch.folder().join(name));
    }
}

impl Enclosure {
    pub fn report(&self) -> &Arc<LimitsReport> {
        &self.report
    }

    /// Its leaf of the unified hierarchy, if there is one.
    pub fn unified(&self) -> Option<&Path> {
        self.leaves.iter().find(|leaf| *leaf.kind() == Kind::V2).map(Leaf::folder)
    }

    /// Ways into the leaves for a process that takes them by itself.
    pub fn entrances(&self) -> Vec<(Entrance, OwnedFd)> {
        self.leaves.iter().filter_map(|leaf| leaf.entrance().ok()).collect()
    }

    /// Moves a process in that has just started and has not been greeted.
    pub async fn adopt(self: &Arc<Self>, pid: i32) -> Result<(), EnclosureError> {
        let this = Arc::clone(self);
        let adopted =
            spawn_blocking(move || this.leaves.iter().try_for_each(|leaf| leaf.adopt(pid))).await;
        adopted.map_err(|_| EnclosureError::Thread)?.map_err(EnclosureError::Adopt)
    }

    /// Processes of this worker that are known of beside its first; reads files.
    pub fn members(&self) -> Vec<i32> {
        self.leaves.first().map(Leaf::members).unwrap_or_default()
    }

    /// Whether a control group knows what the worker has started.
    pub fn has_groups(&self) -> bool {
        !self.leaves.is_empty()
    }

    /// All that any of its groups lists; reads files.
    pub fn listed(&self) -> Vec<i32> {
        self.leaves.iter().flat_map(Leaf::members).collect()
    }

    /// Ends every process in it, also those that left the process group.
    pub async fn end_tree(self: Arc<Self>) {
        let _ended = spawn_blocking(move || self.leaves.iter().for_each(Leaf::end)).await;
    }

    /// The worker lives: what was killed before the last such look is not why it ends. Reads files.
    pub fn note_alive(&self) {
        let kills = self.oom_kills();
        let mut survived = self.survived();
        *survived = Survived { known: survived.last, last: kills };
    }

    fn oom_kills(&self) -> u64 {
        self.leaves.iter().map(Leaf::oom_kills).max().unwrap_or(0)
    }

    fn survived(&self) -> MutexGuard<'_, Survived> {
        self.survived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what the kernel counted, then ends what the worker has left behind.
    pub async fn examine(self: &Arc<Self>) -> Evidence {
        let this = Arc::clone(self);
        let examined = spawn_blocking(move || {
            let kills = this.oom_kills();
            this.leaves.iter().for_each(Leaf::end);
            Evidence { oom_kills: kills.saturating_sub(this.survived().known) }
        });
        examined.await.unwrap_or(Evidence { oom_kills: 0 })
    }

    /// Removes the leaves and the scratch folder of a worker that has ended.
    pub async fn dissolve(self: Arc<Self>) {
        // First the leaves: while something is in them, it can write to the folder.
        if let Err((folder, error)) = Arc::clone(&self).remove_leaves().await {
            warn!(folder = %folder.display(), %error, "a control group is left");
        }
        let this = Arc::clone(&self);
        let removed =
            spawn_blocking(move || scratch::remove(this.shared.scratch.folder(), &this.name));
        if let Ok(Err(error)) = removed.await {
            warn!(folder = self.name, %error, "a scratch folder is left");
        }
    }

    async fn remove_leaves(self: Arc<Self>) -> Result<(), (PathBuf, io::Error)> {
        let mut wait = FIRST_WAIT;
        for left in (0..REMOVALS).rev() {
            let this = Arc::clone(&self);
            let removed = spawn_blocking(move || {
                let remove = |leaf: &Leaf| {
                    leaf.remove()
                        .inspect_err(|_| leaf.end())
                        .map_err(|e| (leaf.folder().to_owned(), e))
                };
                // Each is tried, whatever came of the others.
                this.leaves.iter().map(remove).fold(Ok(()), Result::and)
            });
            match removed.await {
                Ok(Err(error)) if left == 0 => return Err(error),
                Ok(Err(_)) => {}
                Ok(Ok(())) | Err(_) => return Ok(()),
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        Ok(())
    }
}

impl Drop for Enclosure {
    fn drop(&mut self) {
        let found = |weights: &Vec<u64>| weights.iter().position(|&weight| weight == self.weight);
        self.shared.weigh(|weights| {
            if let Some(at) = found(weights) {
                weights.swap_remove(at);
            }
        });
        self.shared.living.send_modify(|living| *living -= 1);
    }
}

async fn groups(cgroup: &Cgroup) -> Result<Vec<Group>, EnclosureError> {
    let read = |file| fs::read_to_string(file).unwrap_or_default();
    let mountinfo = read("/proc/self/mountinfo");
    let places = match cgroup {
        Cgroup::Off => Vec::new(),
        Cgroup::Auto => hierarchy::own(&mountinfo, &read("/proc/self/cgroup")),
        Cgroup::Path(path) => {
            let place = hierarchy::named(&mountinfo, path);
            vec![place.ok_or_else(|| EnclosureError::NoCgroup(path.clone()))?]
        }
    };
    let mut groups = Vec::new();
    for place in places {
        sweep_groups(&place).await;
        match (Group::open(&place), cgroup) {
            (Ok(group), _) => groups.push(group),
            (Err(e), Cgroup::Path(path)) => return Err(EnclosureError::Cgroup(path.clone(), e)),
            (Err(error), Cgroup::Auto | Cgroup::Off) => {
                debug!(folder = %place.folder.display(), %error, "no control group here");
            }
        }
    }
    for group in &groups {
        let controllers = group.controllers();
        info!(folder = %group.folder().display(), ?controllers, "control groups for workers");
    }
    Ok(groups)
}

async fn sweep_groups(place: &Place) {
    let mut left = Group::sweep(place);
    let mut wait = FIRST_WAIT;
    for _ in 0..SWEEPS {
        if left.is_empty() {
            return;
        }
        sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
        left = left.into_iter().filter_map(super::group::Abandoned::remove).collect();
    }
    for group in left {
        warn!(folder = %group.folder().display(), "a control group of a dead server is left");
    }
}

/// Removes the folders of dead supervisors, beside everything else: they may be large.
fn sweep_scratch(root: &Path) {
    for claim in Claim::abandoned(root) {
        let root = root.to_owned();
        spawn_blocking(move || {
            let name = claim.folder().file_name().and_then(|name| name.to_str()).unwrap_or("");
            if let Err(error) = scratch::remove(&root, name) {
                warn!(folder = %claim.folder().display(), %error, "an old scratch folder is left");
            }
        });
    }
}
