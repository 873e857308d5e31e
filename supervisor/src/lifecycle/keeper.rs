//! The task that owns one model: loads, unloads, swaps a set of versions for another.
//!
//! ```text
//! load, nothing there:  incoming set is published at once, so that its loading is seen
//! load, something there: incoming set loads beside the current one; when it is ready the routes
//!                        move, then the old set drains; if it fails, the current one stays
//! other settings:       the same with the new ones, or nothing but new settings (`reconfigure`)
//! newer settings:       what loads with older ones is dropped, and the load begins when what that had
//!                       is free
//! unload:               current (and incoming) sets drain; answered when their processes are gone
//! restart:              an incoming set of the same versions; if there is no room for it, one worker of
//!                       the current set after the other
//! reset:                what is quarantined in the current set tries again
//! ```

mod reconfigure;
mod restart;
mod waiter;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use shared::id::{ModelName, ModelVersion};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Duration, Instant, sleep_until};
use tracing::{info, warn};

use self::reconfigure::Farewell;
pub(super) use self::reconfigure::{Begun, Reconfigure, Work};
use self::restart::{Purpose, Renewal};
pub(super) use self::waiter::Ending;
use self::waiter::Waiter;
use super::Event;
use super::instance::{Gone, Kit};
use super::version::{Settled, Version};
use crate::config::{Effect, Enabled, ModelSettings, PoisonSettings};
use crate::health::{PoisonPolicy, Watchlist};
use crate::repository::{ModelFolder, Scanner, select};
use crate::request::{RequestError, What};
use crate::route::{AnsweredWhen, ModelEntry, Route, Routes, ServingState, UNLOADED, VersionEntry};
use crate::status::{ModelCard, VersionCard};

/// Why a model has no version, if so configured.
pub(super) const DISABLED: &str = "disabled by the configuration";

/// How long a load waits for the room of what it replaces, beyond the time that a worker has to end: a
/// process that does not go when it is killed must not keep the model from being tried.
const ROOM_PATIENCE: Duration = Duration::from_secs(5);

pub(super) type Done = oneshot::Sender<Result<(), RequestError>>;

/// What a model's task can be asked for.
#[derive(Debug)]
pub(super) enum Ask {
    Load(Done),
    Unload(Done, AnsweredWhen),
    /// Other settings, and what is wished with them.
    Reconfigure(Box<Reconfigure>),
    /// New workers of the versions that are loaded.
    Restart(Done),
    /// What is quarantined may try again.
    Reset(Done),
    /// The server ends: unload.
    Shutdown(Done),
    /// The server ends at once.
    Kill,
}

#[derive(Debug)]
pub(super) struct Keeper {
    name: ModelName,
    settings: ModelSettings,
    scanner: Scanner,
    kit: Kit,
    routes: Routes,
    changed: Arc<Notify>,
    current: Option<Set>,
    incoming: Option<Set>,
    /// Who waits for `incoming`, or for `current` while that loads for the first time.
    loading: Vec<Waiter>,
    /// Who waits for the next load: what one that is under way has read may be older than the wish, or
    /// what it had is not free yet.
    again: Vec<Waiter>,
    retiring: Vec<Set>,
    /// A restart of the current set, worker by worker.
    renewal: Option<Renewal>,
    /// Why the last load brought nothing.
    problem: Option<String>,
    /// Why the last load has not taken the place of what serves.
    rejected: Option<String>,
    /// The folder that the last load read.
    home: Option<PathBuf>,
    /// Somebody asked for it to be unloaded, and nobody for a load since.
    dismissed: bool,
    leaves: Farewell,
    unloading: Vec<Waiter>,
    /// What is told to instances that are to go.
    farewell: Event,
    /// Versions that served once and were let go; they stay listed until a load says what there is.
    unloaded: BTreeSet<ModelVersion>,
    /// What is held against requests, by version. A load anew keeps it: the version is the same, so
    /// the same requests would end its workers. An unload forgets it.
    watchlists: BTreeMap<ModelVersion, Arc<Watchlist>>,
}

/// The versions that one load selected.
#[derive(Debug)]
struct Set {
    /// What its workers run with.
    settings: ModelSettings,
    /// What they were made of.
    folder: Arc<ModelFolder>,
    purpose: Purpose,
    versions: BTreeMap<ModelVersion, Version>,
    /// Versions that were selected and cannot be loaded, with the reason.
    failed: BTreeMap<ModelVersion, String>,
    /// The next load waits until this one has given back what it had, and at most until then.
    holds_up: Option<Instant>,
}

/// What a model's task is made of.
#[derive(Clone, Debug)]
pub(super) struct KeeperParts {
    pub(super) settings: ModelSettings,
    pub(super) scanner: Scanner,
    pub(super) kit: Kit,
    pub(super) routes: Routes,
}

impl Keeper {
    pub(super) fn new(name: ModelName, parts: KeeperParts) -> Self {
        let KeeperParts { settings, scanner, kit, routes } = parts;
        Self {
            name,
            settings,
            scanner,
            kit,
            routes,
            changed: Arc::new(Notify::new()),
            current: None,
            incoming: None,
            loading: Vec::new(),
            again: Vec::new(),
            retiring: Vec::new(),
            renewal: None,
            problem: None,
            rejected: None,
            home: None,
            dismissed: false,
            leaves: Farewell::No,
            unloading: Vec::new(),
            farewell: Event::Unwanted,
            unloaded: BTreeSet::new(),
            watchlists: BTreeMap::new(),
        }
    }

    pub(super) async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        loop {
            let changed = Arc::clone(&self.changed);
            tokio::select! {
                ask = asks.recv() => match ask {
                    Some(Ask::Load(done)) => self.ask_load(done).await,
                    Some(Ask::Unload(done, answered)) => {
                        self.dismissed = true;
                        self.rejected = None;
                        self.publish_with(|entry| entry.dismissed = true);
                        self.unload(Waiter::Client(done), answered).await;
                    }
                    Some(Ask::Reconfigure(order)) => self.reconfigure(*order).await,
                    Some(Ask::Restart(done)) => self.ask_restart(done).await,
                    Some(Ask::Reset(done)) => self.ask_reset(done).await,
                    Some(Ask::Shutdown(done)) => {
                        self.farewell = Event::ServerEnds;
                        self.unload(Waiter::Client(done), AnsweredWhen::Gone).await;
                    }
                    Some(Ask::Kill) => self.kill().await,
                    None => return,
                },
                () = changed.notified() => {}
            }
            self.advance().await;
        }
    }

    async fn ask_load(&mut self, done: Done) {
        self.leaves = Farewell::No;
        if self.settings.enabled == Enabled::No {
            let message = format!("failed to load '{}', it is {DISABLED}", self.name);
            let _gone = done.send(Err(RequestError::invalid(message)));
        } else if self.is_loading() {
            // Clients that have gone do not pile up.
            self.again.retain(|waiting| !waiting.is_gone());
            self.again.push(Waiter::Client(done));
        } else {
            self.load(vec![Waiter::Client(done)]).await;
        }
    }

    /// Something is on its way up, or will be once there is room.
    fn is_loading(&self) -> bool {
        self.incoming.is_some() || !self.loading.is_empty() || !self.again.is_empty()
    }

    async fn load(&mut self, waiting: Vec<Waiter>) {
        self.loading = waiting;
        self.dismissed = false;
        self.rejected = None;
        match self.new_set().await {
            Ok(set) => {
                self.unloaded.clear();
                self.forget_histories(&set);
                self.problem = None;
                self.publish_with(|entry| {
                    entry.dismissed = false;
                    entry.problem = None;
                });
                // A model that failed before is given a fresh start, not an old grudge.
                for version in set.versions.values() {
                    version.ask(&Event::Wanted).await;
                }
                let serves = self.current.as_ref().is_some_and(Set::serves);
                if serves {
                    self.incoming = Some(set);
                } else {
                    self.retire_current().await;
                    self.current = Some(set);
                }
            }
            Err(reason) => {
                if self.current.is_none() {
                    self.unloaded.clear();
                    self.problem = Some(reason.clone());
                    self.publish_with(|entry| entry.problem = Some(reason.clone()));
                } else {
                    self.rejected = Some(reason.clone());
                }
                self.answer_loads(Err(self.load_error(&reason)));
            }
        }
    }

    /// Of versions that are neither coming nor there any more.
    fn forget_histories(&self, coming: &Set) {
        let known: Vec<&Set> = self.retiring.iter().chain(&self.current).chain([coming]).collect();
        let keeps = |version| known.iter().any(|set| set.versions.contains_key(&version));
        self.kit.archive.keep(&self.name, keeps);
        self.routes.stats().keep(&self.name, keeps);
    }

    /// Reads the folder and makes what its version policy selects.
    async fn new_set(&mut self) -> Result<Set, String> {
        let folder = self.scanner.look_at(&self.name).await.map_err(|error| error.reason())?;
        for warning in &folder.manifest.warnings {
            warn!(model = self.name.as_str(), "config.pbtxt: {warning}");
        }
        self.home = Some(folder.path.clone());
        self.set_of(&Arc::new(folder), Purpose::Load)
    }

    fn set_of(&mut self, folder: &Arc<ModelFolder>, purpose: Purpose) -> Result<Set, String> {
        let there = folder.versions.iter().map(|found| found.version);
        let selection = select(there, &folder.manifest.version_policy);
        let (settings, folder) = (self.settings.clone(), Arc::clone(folder));
        let (versions, failed) = (BTreeMap::new(), BTreeMap::new());
        let mut set = Set { settings, folder, purpose, versions, failed, holds_up: None };
        for version in selection.missing {
            set.failed.insert(version, "the version policy names it and it does not exist".into());
        }
        for version in selection.load {
            let known = (version, self.watchlist(version));
            let made = Version::new(&set.folder, known, &self.settings, &self.kit, &self.changed);
            match made {
                Ok(made) => drop(set.versions.insert(version, made)),
                Err(reason) => drop(set.failed.insert(version, reason)),
            }
        }
        let current = self.current.as_ref().map(|current| &current.versions);
        self.watchlists.retain(|version, _| {
            set.versions.contains_key(version) || current.is_some_and(|c| c.contains_key(version))
        });
        match (set.versions.is_empty(), set.failed.values().next()) {
            (true, Some(reason)) => Err(reason.clone()),
            (true, None) => Err("it has no version folder".to_owned()),
            (false, _) => Ok(set),
        }
    }

    fn watchlist(&mut self, version: ModelVersion) -> Arc<Watchlist> {
        let PoisonSettings { after, ttl } = self.settings.worker.poison;
        let made = || Watchlist::new(self.name.clone(), version, PoisonPolicy { after, ttl });
        Arc::clone(self.watchlists.entry(version).or_insert_with(|| Arc::new(made())))
    }

    async fn unload(&mut self, done: Waiter, answered: AnsweredWhen) {
        self.watchlists.clear();
        self.renewal = None;
        let stopped = RequestError::new(What::NotReady, "unloaded while it was loading");
        self.loading.append(&mut self.again);
        self.answer_loads(Err(stopped));
        let makes_way = self.retiring.iter().filter(|set| set.holds_up.is_some());
        let sets = self.current.iter().chain(&self.incoming).chain(makes_way);
        self.unloaded.extend(sets.flat_map(|set| set.versions.keys()));
        if let Some(set) = self.incoming.take() {
            self.retire(set).await;
        }
        self.retire_current().await;
        self.unloading.retain(|waiting| !waiting.is_gone());
        match answered {
            AnsweredWhen::Gone => self.unloading.push(done),
            AnsweredWhen::Begun => {
                self.publish();
                done.answer(Ok(()));
            }
        }
    }

    async fn kill(&mut self) {
        let sets = self.current.iter().chain(&self.incoming).chain(&self.retiring);
        for version in sets.flat_map(|set| set.versions.values()) {
            version.ask(&Event::StopNow).await;
        }
    }

    async fn retire_current(&mut self) {
        if let Some(set) = self.current.take() {
            self.retire(set).await;
        }
    }

    async fn retire(&mut self, set: Set) {
        for version in set.versions.values() {
            version.close(UNLOADED);
            version.ask(&self.farewell).await;
        }
        self.retiring.push(set);
    }

    /// Publishes what is there, and does what has become due.
    async fn advance(&mut self) {
        if let Some(set) = &self.incoming {
            match set.settled() {
                Settled::Not => {}
                Settled::Ready => self.promote(),
                Settled::Failed => self.reject().await,
            }
        } else if self.renewal.is_some() {
            self.renew_next().await;
        } else if let (Some(set), false) = (&self.current, self.loading.is_empty()) {
            match set.settled() {
                Settled::Not => {}
                Settled::Ready => self.answer_loads(Ok(())),
                Settled::Failed => {
                    let error = self.load_error(&set.reason());
                    self.answer_loads(Err(error));
                }
            }
        }
        self.retiring.retain(|set| set.gone() == Gone::No);
        let is_free = self.incoming.is_none() && self.loading.is_empty() && !self.is_held_up();
        if is_free && !self.again.is_empty() {
            let waiting = std::mem::take(&mut self.again);
            self.load(waiting).await;
        }
        self.publish();
        if self.retiring.is_empty() {
            for waiting in self.unloading.drain(..) {
                waiting.answer(Ok(()));
            }
        }
    }

    /// Has this one make room for what is loaded in its place.
    async fn make_way(&mut self, mut set: Set) {
        let patience = set.settings.worker.stop_timeout.saturating_add(ROOM_PATIENCE);
        let until = Instant::now() + patience;
        set.holds_up = Some(until);
        self.retire(set).await;
        let changed = Arc::clone(&self.changed);
        tokio::spawn(async move {
            sleep_until(until).await;
            changed.notify_one();
        });
    }

    fn is_held_up(&self) -> bool {
        let now = Instant::now();
        self.retiring.iter().any(|set| set.holds_up.is_some_and(|until| now < until))
    }

    /// The new set serves: routes move first, then the old one may go.
    fn promote(&mut self) {
        let Some(set) = self.incoming.take() else { return };
        let old = self.current.replace(set);
        self.publish();
        info!(model = self.name.as_str(), "routes moved to what was loaded anew");
        self.answer_loads(Ok(()));
        if let Some(old) = old {
            self.unloaded.extend(old.versions.keys());
            let limit = self.settings.worker.drain_timeout;
            let newest = self.current.as_ref().and_then(Set::newest_route);
            for (number, version) in &old.versions {
                let same = self.current.as_ref().and_then(|set| set.versions.get(number));
                version.hand_over(same.and_then(Version::route).or(newest), limit);
            }
            self.retiring.push(old);
        }
    }

    /// The new set does not serve: the old one stays.
    async fn reject(&mut self) {
        let Some(set) = self.incoming.take() else { return };
        if set.purpose == Purpose::Restart && set.was_denied() && self.would_find_room() {
            self.retire(set).await;
            return self.begin_renewal().await;
        }
        self.rejected = Some(set.reason());
        let reason = format!("{}; the version that was loaded before still serves", set.reason());
        warn!(model = self.name.as_str(), reason, "not replaced");
        self.answer_loads(Err(self.load_error(&reason)));
        self.retire(set).await;
    }

    fn load_error(&self, reason: &str) -> RequestError {
        RequestError::invalid(format!("failed to load '{}', {reason}", self.name))
    }

    /// Answers those whose load has settled.
    fn answer_loads(&mut self, result: Result<(), RequestError>) {
        for waiting in self.loading.drain(..) {
            waiting.answer(result.clone());
        }
    }

    fn publish(&mut self) {
        self.take_leave();
        if matches!(self.leaves, Farewell::Gone) {
            return;
        }
        let versions = self.entries();
        // Whoever hears of the card finds the routes as they are.
        self.publish_with(|entry| entry.versions.clone_from(&versions));
        self.kit.board.hang(&self.name, &self.card(&versions));
    }

    /// What operators are shown of it.
    fn card(&self, entries: &BTreeMap<ModelVersion, VersionEntry>) -> ModelCard {
        let sets = || self.current.iter().chain(&self.incoming).chain(self.retiring.iter().rev());
        let version = |(&number, entry): (&ModelVersion, &VersionEntry)| {
            let version = sets().find_map(|set| set.versions.get(&number));
            let card = version.map_or_else(|| without_instances(entry), |v| v.card(entry));
            (number, card)
        };
        ModelCard {
            enabled: self.settings.enabled == Enabled::Yes,
            problem: self.trouble().unwrap_or_default(),
            versions: entries.iter().map(version).collect(),
        }
    }

    /// Why nothing of it is there, or what is there is not what somebody has wished for since.
    fn trouble(&self) -> Option<String> {
        // Whoever has unloaded it misses nothing.
        if self.dismissed {
            return None;
        }
        if self.problem.is_some() {
            return self.problem.clone();
        }
        let set = self.current.as_ref().filter(|_| !self.is_loading())?;
        let takes_workers = matches!(set.settings.effect_of(&self.settings), Some(Effect::Workers));
        let outdated = "its workers run with older settings; the next reload tries again";
        let rejected = self.rejected.as_ref().map(|why| format!("the last load has failed: {why}"));
        let outdated = takes_workers.then(|| outdated.to_owned());
        match (outdated, rejected) {
            (Some(outdated), Some(rejected)) => Some(format!("{outdated}; {rejected}")),
            (outdated, rejected) => outdated.or(rejected),
        }
    }

    fn entries(&mut self) -> BTreeMap<ModelVersion, VersionEntry> {
        let unloaded = VersionEntry {
            state: ServingState::Unavailable,
            reason: UNLOADED.to_owned(),
            route: None,
        };
        let mut entries: BTreeMap<_, _> =
            self.unloaded.iter().map(|&number| (number, unloaded.clone())).collect();
        for set in self.retiring.iter_mut() {
            for (&number, version) in &mut set.versions {
                let entry = version.entry();
                entries.insert(number, VersionEntry { route: None, ..entry });
            }
        }
        // One that is on its way up is seen, and takes no requests before all of its set are ready.
        for (&number, version) in self.incoming.iter_mut().flat_map(|set| &mut set.versions) {
            let VersionEntry { state, reason, .. } = version.entry();
            let state = if state == ServingState::Ready { ServingState::Loading } else { state };
            entries.insert(number, VersionEntry { state, reason, route: None });
        }
        if let Some(set) = &mut self.current {
            for (&number, reason) in &set.failed {
                let (state, reason) = (ServingState::Unavailable, reason.clone());
                entries.insert(number, VersionEntry { state, reason, route: None });
            }
            for (&number, version) in &mut set.versions {
                entries.insert(number, version.entry());
            }
        }
        entries
    }

    fn publish_with(&self, change: impl Fn(&mut ModelEntry)) {
        if !matches!(self.leaves, Farewell::Gone) {
            self.routes.update(&self.name, change);
        }
    }
}

fn without_instances(entry: &VersionEntry) -> VersionCard {
    VersionCard {
        state: entry.state.name(),
        reason: entry.reason.clone(),
        platform: String::new(),
        instances: Vec::new(),
    }
}

impl Set {
    fn newest_route(&self) -> Option<&Arc<Route>> {
        self.versions.values().rev().find_map(Version::route)
    }

    /// Whether any version takes requests, now or when its worker has restarted.
    fn serves(&self) -> bool {
        let up = [ServingState::Ready, ServingState::Loading];
        let takes = |version: &Version| version.route().is_some();
        self.versions.values().any(|v| takes(v) && up.contains(&v.summary().state))
    }

    fn settled(&self) -> Settled {
        // A restart brings back what there was.
        let whole = self.failed.is_empty() || self.purpose == Purpose::Restart;
        let mut settled = if whole { Settled::Ready } else { Settled::Failed };
        for version in self.versions.values() {
            match version.summary().settled {
                Settled::Not => return Settled::Not,
                Settled::Failed => settled = Settled::Failed,
                Settled::Ready => {}
            }
        }
        settled
    }

    fn reason(&self) -> String {
        let failed = self.failed.iter().map(|(number, reason)| (*number, reason.clone()));
        let versions = self.versions.iter().map(|(number, v)| (*number, v.summary()));
        let failing = versions.filter(|(_, s)| s.settled == Settled::Failed);
        let all = failed.chain(failing.map(|(number, s)| (number, s.reason)));
        let all: Vec<String> =
            all.map(|(number, why)| format!("version {number}: {why}")).collect();
        all.join("; ")
    }

    /// Whether there was no room for any of it.
    fn was_denied(&self) -> bool {
        self.versions.values().any(|version| version.summary().denied)
    }

    fn gone(&self) -> Gone {
        let gone = |version: &Version| version.summary().gone == Gone::Yes;
        if self.versions.values().all(gone) { Gone::Yes } else { Gone::No }
    }
}
