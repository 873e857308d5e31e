//! Model → what serves it, and its status: the only place where the two planes meet.
//!
//! The control plane publishes entries; front ends resolve names here and raise demand ("this model
//! is wanted"). Neither knows the other. Readers never wait: the table is replaced as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use shared::id::{ModelName, ModelVersion, RequestId};
use shared::sync::{AtomicBool, AtomicU64, Ordering};
use shared::tensor::TensorSpec;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::request::{RequestError, What};
use crate::schedule::{BatchCap, SlotQueue};
use crate::schema::Schema;
use crate::stats::{Registry, VersionStats};

/// Where requests for one version of a model go. Outlives the version's workers.
#[derive(Debug)]
pub struct Route {
    parts: RouteParts,
    schema: ArcSwap<Schema>,
    /// Nanoseconds from admission to reply.
    infer_timeout: AtomicU64,
    next_request: AtomicU64,
    /// What has taken this route's place, for requests that still hold this one.
    successor: ArcSwapOption<Route>,
}

impl Route {
    pub fn new(parts: RouteParts, schema: Schema) -> Self {
        Self {
            infer_timeout: AtomicU64::new(nanos(parts.infer_timeout)),
            parts,
            schema: ArcSwap::from_pointee(schema),
            next_request: AtomicU64::new(1),
            successor: ArcSwapOption::empty(),
        }
    }

    /// Names the route that takes this one's place.
    pub fn hand_over(&self, successor: &Arc<Self>) {
        self.successor.store(Some(Arc::clone(successor)));
    }

    pub fn successor(&self) -> Option<Arc<Self>> {
        self.successor.load_full()
    }

    pub fn model(&self) -> &str {
        self.parts.model.as_str()
    }

    pub fn version(&self) -> ModelVersion {
        self.parts.version
    }

    pub fn platform(&self) -> &str {
        &self.parts.platform
    }

    /// How large a batch it takes at the moment.
    pub fn batch_cap(&self) -> &BatchCap {
        &self.parts.batch_cap
    }

    pub fn queue(&self) -> &Arc<SlotQueue> {
        &self.parts.queue
    }

    /// Where requests for this version are counted.
    pub fn stats(&self) -> &Arc<VersionStats> {
        &self.parts.stats
    }

    /// When a request that arrives now must have been answered.
    pub fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_nanos(self.infer_timeout.load(Ordering::Relaxed))
    }

    /// For requests that come from now on.
    pub fn set_infer_timeout(&self, timeout: Duration) {
        self.infer_timeout.store(nanos(timeout), Ordering::Relaxed);
    }

    /// A number for one request, never used before by this route.
    pub fn next_request(&self) -> RequestId {
        RequestId(self.next_request.fetch_add(1, Ordering::Relaxed))
    }

    pub fn schema(&self) -> Arc<Schema> {
        self.schema.load_full()
    }

    /// Replaces the schema by one that knows more.
    pub fn learn(&self, schema: Schema) {
        self.schema.store(Arc::new(schema));
    }
}

#[derive(Debug)]
pub struct RouteParts {
    pub model: ModelName,
    pub version: ModelVersion,
    pub platform: String,
    pub infer_timeout: Duration,
    pub queue: Arc<SlotQueue>,
    pub batch_cap: Arc<BatchCap>,
    pub stats: Arc<VersionStats>,
}

/// What a client may know of a model (protocol: model metadata).
#[derive(Clone, Debug)]
pub struct Metadata {
    pub name: String,
    /// Ready versions, or the one asked for.
    pub versions: Vec<ModelVersion>,
    pub platform: String,
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
}

/// One line of the repository index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    pub name: String,
    pub version: Option<ModelVersion>,
    pub state: Option<ServingState>,
    /// Empty if there is nothing to say.
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServingState {
    Ready,
    Loading,
    Unloading,
    Unavailable,
}

/// Why a version is unavailable that somebody has unloaded.
pub const UNLOADED: &str = "unloaded";

impl ServingState {
    /// As the repository index says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "READY",
            Self::Loading => "LOADING",
            Self::Unloading => "UNLOADING",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

/// What the control plane says of one version.
#[derive(Clone, Debug)]
pub struct VersionEntry {
    pub state: ServingState,
    pub reason: String,
    /// Where requests go: there from the first time the version is ready until it is given up, so
    /// that requests wait in the queue while a worker restarts.
    pub route: Option<Arc<Route>>,
}

/// What the control plane says of one model.
#[derive(Clone, Debug, Default)]
pub struct ModelEntry {
    pub versions: BTreeMap<ModelVersion, VersionEntry>,
    /// Why no version of it is listed, if none is.
    pub problem: Option<String>,
    /// Somebody asked for it to be unloaded: it does not keep the server from being ready.
    pub dismissed: bool,
}

impl ModelEntry {
    fn serves(&self) -> bool {
        self.versions.values().any(|version| version.state == ServingState::Ready)
    }

    fn is_up(&self) -> bool {
        self.serves() && !self.dismissed
    }
}

/// A wish of a front end, or of an operator.
#[derive(Debug)]
pub struct Demand {
    pub model: ModelName,
    pub wish: Wish,
    pub done: oneshot::Sender<Result<(), RequestError>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Load the model, or load it anew.
    Load,
    Unload(AnsweredWhen),
    /// New workers, of the versions that are loaded.
    Restart,
    /// What is quarantined may try again.
    Reset,
}

/// When an unload is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnsweredWhen {
    /// Its processes are gone, and what they had of devices is free or overdue.
    Gone,
    /// No request reaches it any more; the rest follows.
    Begun,
}

/// The table of all routes; a cheap handle.
#[derive(Clone, Debug)]
pub struct Routes {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    models: ArcSwap<BTreeMap<ModelName, ModelEntry>>,
    required: ArcSwap<Required>,
    draining: AtomicBool,
    started: AtomicBool,
    /// All required models have served at the same time.
    was_ready: AtomicBool,
    demand: mpsc::Sender<Demand>,
    /// Tells whoever waits that something here is different.
    changes: watch::Sender<()>,
    stats: Registry,
}

/// Which models must be ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Required {
    pub counted: BTreeSet<ModelName>,
    /// They count from when they serve: what a server in service is to serve from now on, or again after
    /// somebody has unloaded it, must not take it out of service for all others.
    pub awaited: BTreeSet<ModelName>,
}

impl Required {
    fn is_settled(&self, models: &BTreeMap<ModelName, ModelEntry>) -> bool {
        let there = |name: &ModelName| models.get(name);
        !self.awaited.iter().filter_map(there).any(ModelEntry::is_up)
            && !self.counted.iter().filter_map(there).any(|entry| entry.dismissed)
    }

    /// Counts those that serve, and awaits those that were unloaded on purpose.
    fn counted_anew(&self, models: &BTreeMap<ModelName, ModelEntry>) -> Self {
        let all = self.counted.iter().chain(&self.awaited).cloned();
        let (counted, awaited) = all.partition(|name| match models.get(name) {
            Some(entry) if self.counted.contains(name) => !entry.dismissed,
            Some(entry) => entry.is_up(),
            None => self.counted.contains(name),
        });
        Self { counted, awaited }
    }
}

/// Wishes that may wait for the control plane.
const DEMANDS: usize = 256;

impl Routes {
    /// An empty table, and where its front ends' wishes arrive.
    pub fn new() -> (Self, mpsc::Receiver<Demand>) {
        let (demand, wishes) = mpsc::channel(DEMANDS);
        let shared = Shared {
            models: ArcSwap::default(),
            required: ArcSwap::default(),
            draining: AtomicBool::new(false),
            started: AtomicBool::new(false),
            was_ready: AtomicBool::new(false),
            demand,
            changes: watch::Sender::new(()),
            stats: Registry::default(),
        };
        (Self { shared: Arc::new(shared) }, wishes)
    }

    /// Where the requests of all versions are counted.
    pub fn stats(&self) -> &Registry {
        &self.shared.stats
    }

    /// All routes that requests can take now.
    pub fn all(&self) -> Vec<Arc<Route>> {
        let models = self.shared.models.load();
        let versions = models.values().flat_map(|entry| entry.versions.values());
        versions.filter_map(|version| version.route.clone()).collect()
    }

    /// The route for `model`, its newest version that can take requests if none is named.
    pub fn resolve(
        &self,
        model: &str,
        version: Option<ModelVersion>,
    ) -> Result<Arc<Route>, RequestError> {
        let models = self.shared.models.load();
        let entry = models.get(model).ok_or_else(|| unknown_model(model))?;
        let found = match version {
            Some(version) => {
                let found = entry.versions.get(&version);
                found.ok_or_else(|| unknown_version(model, version))?.route.as_ref()
            }
            None => entry.versions.values().rev().find_map(|v| v.route.as_ref()),
        };
        found.cloned().ok_or_else(|| not_serving(model, version, entry))
    }

    pub fn metadata(
        &self,
        model: &str,
        version: Option<ModelVersion>,
    ) -> Result<Metadata, RequestError> {
        let route = self.resolve(model, version)?;
        let versions = match version {
            Some(version) => vec![version],
            None => self.ready_versions(model),
        };
        let schema = route.schema();
        Ok(Metadata {
            name: model.to_owned(),
            versions,
            platform: route.platform().to_owned(),
            inputs: schema.inputs.iter().map(|port| port.client_spec()).collect(),
            outputs: schema.outputs.iter().map(|port| port.client_spec()).collect(),
        })
    }

    fn ready_versions(&self, model: &str) -> Vec<ModelVersion> {
        let models = self.shared.models.load();
        let versions = models.get(model).map(|entry| entry.versions.iter());
        let ready = versions.into_iter().flatten().filter(|(_, v)| v.state == ServingState::Ready);
        ready.map(|(&version, _)| version).collect()
    }

    /// Whether that model (version) can serve now; an error if it is unknown.
    pub fn model_ready(
        &self,
        model: &str,
        version: Option<ModelVersion>,
    ) -> Result<bool, RequestError> {
        let models = self.shared.models.load();
        let entry = models.get(model).ok_or_else(|| unknown_model(model))?;
        let ready = |v: &VersionEntry| v.state == ServingState::Ready;
        match version {
            Some(version) => entry
                .versions
                .get(&version)
                .map(ready)
                .ok_or_else(|| unknown_version(model, version)),
            None => Ok(entry.serves()),
        }
    }

    /// Whether every required model serves, the first loads have been tried and the server is not
    /// draining. A model that was unloaded on purpose is not missed.
    pub fn server_ready(&self) -> bool {
        self.started() && !self.draining() && self.waits_for().is_empty()
    }

    /// Whether it is known which models are required.
    pub fn started(&self) -> bool {
        self.shared.started.load(Ordering::Acquire)
    }

    /// Required models that do not serve.
    pub fn waits_for(&self) -> Vec<ModelName> {
        let models = self.shared.models.load();
        let required = self.shared.required.load();
        required.counted.iter().filter(|name| is_missed(&models, name)).cloned().collect()
    }

    /// How many models serve, of how many that nobody has unloaded.
    pub fn serving(&self) -> (usize, usize) {
        let models = self.shared.models.load();
        let wanted = models.values().filter(|entry| !entry.dismissed);
        (wanted.clone().filter(|entry| entry.serves()).count(), wanted.count())
    }

    /// Hears of changes from now on; several that follow each other may be heard as one.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.shared.changes.subscribe()
    }

    /// Whether the server is on its way out.
    pub fn draining(&self) -> bool {
        self.shared.draining.load(Ordering::Acquire)
    }

    /// Turns the server unready for good.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
        self.shared.changes.send_replace(());
    }

    /// Says which models must be ready, given those of before, and that their loads have begun.
    pub fn require(&self, decide: impl Fn(&Required) -> Required) {
        self.shared.required.rcu(|before| decide(before));
        self.shared.started.store(true, Ordering::Release);
        self.changed();
    }

    /// Whether the server has been ready.
    pub fn was_ready(&self) -> bool {
        self.shared.was_ready.load(Ordering::Relaxed)
    }

    /// To be said after each change.
    fn changed(&self) {
        self.count_anew();
        if !self.was_ready() && self.server_ready() {
            self.shared.was_ready.store(true, Ordering::Relaxed);
        }
        self.shared.changes.send_replace(());
    }

    /// After each change of either table, so that whichever comes last sees both.
    fn count_anew(&self) {
        self.shared.required.rcu(|required| {
            let models = self.shared.models.load();
            match required.is_settled(&models) {
                true => Arc::clone(required),
                false => Arc::new(required.counted_anew(&models)),
            }
        });
    }

    pub fn index(&self) -> Vec<IndexEntry> {
        let models = self.shared.models.load();
        let mut lines = Vec::new();
        for (name, entry) in models.iter() {
            let name = name.to_string();
            if entry.versions.is_empty() {
                let (state, reason) = match &entry.problem {
                    Some(problem) => (Some(ServingState::Unavailable), problem.clone()),
                    None => (None, String::new()),
                };
                lines.push(IndexEntry { name, version: None, state, reason });
                continue;
            }
            lines.extend(entry.versions.iter().map(|(&version, v)| IndexEntry {
                name: name.clone(),
                version: Some(version),
                state: Some(v.state),
                reason: v.reason.clone(),
            }));
        }
        lines
    }

    /// Asks for the model to be loaded (or loaded anew) and waits until it serves or has failed.
    pub async fn load(&self, model: &str) -> Result<(), RequestError> {
        self.wish(model, Wish::Load).await
    }

    /// Asks for the model to be unloaded and waits until that has come so far.
    pub async fn unload(&self, model: &str, answered: AnsweredWhen) -> Result<(), RequestError> {
        if !self.shared.models.load().contains_key(model) {
            return Err(unknown_model(model));
        }
        self.wish(model, Wish::Unload(answered)).await
    }

    /// Asks for new workers of a model and waits until they serve.
    pub async fn restart(&self, model: &str) -> Result<(), RequestError> {
        self.wish(model, Wish::Restart).await
    }

    /// Asks for what is quarantined of a model to try again, and waits until it serves.
    pub async fn reset(&self, model: &str) -> Result<(), RequestError> {
        self.wish(model, Wish::Reset).await
    }

    async fn wish(&self, model: &str, wish: Wish) -> Result<(), RequestError> {
        let model = ModelName::new(model).map_err(|e| RequestError::invalid(e.to_string()))?;
        let (done, outcome) = oneshot::channel();
        let ending = || RequestError::new(What::ShuttingDown, "the server is shutting down");
        let demand = Demand { model, wish, done };
        self.shared.demand.send(demand).await.map_err(|_| ending())?;
        outcome.await.map_err(|_| ending())?
    }

    /// Changes what is known of one model.
    pub fn update(&self, model: &ModelName, change: impl Fn(&mut ModelEntry)) {
        self.shared.models.rcu(|models| {
            let mut models = BTreeMap::clone(models);
            change(models.entry(model.clone()).or_default());
            models
        });
        self.changed();
    }

    /// Forgets a model that is in no repository any more.
    pub fn remove(&self, model: &ModelName) {
        self.shared.models.rcu(|models| {
            let mut models = BTreeMap::clone(models);
            models.remove(model);
            models
        });
        self.changed();
    }

    /// The models that must be ready, now or from when they serve.
    pub fn required(&self) -> Arc<Required> {
        self.shared.required.load_full()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn is_missed(models: &BTreeMap<ModelName, ModelEntry>, name: &ModelName) -> bool {
    models.get(name).is_none_or(|entry| !entry.serves())
}

fn unknown_model(model: &str) -> RequestError {
    let message = format!("Request for unknown model: '{model}' is not found");
    RequestError::new(What::UnknownModel, message)
}

fn unknown_version(model: &str, version: ModelVersion) -> RequestError {
    let message = format!("Request for unknown model: '{model}' version {version} is not found");
    RequestError::new(What::UnknownVersion, message)
}

/// Why a model that is known has no route now.
fn not_serving(model: &str, version: Option<ModelVersion>, entry: &ModelEntry) -> RequestError {
    let versions = entry.versions.iter().filter(|&(&v, _)| version.is_none_or(|only| only == v));
    let coming = |state| matches!(state, ServingState::Loading | ServingState::Unloading);
    let newest = versions.clone().rev().find(|(_, v)| coming(v.state));
    if let Some((version, _)) = newest {
        let message =
            format!("Request for unknown model: '{model}' version {version} is not at ready state");
        return RequestError::new(What::NotReady, message);
    }
    let reasons = versions.rev().map(|(_, v)| v.reason.as_str()).chain(entry.problem.as_deref());
    let reason = reasons.into_iter().find(|reason| !reason.is_empty());
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    let message = format!("Request for unknown model: '{model}' has no available versions{reason}");
    RequestError::new(What::NoVersion, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(state: ServingState, reason: &str) -> VersionEntry {
        VersionEntry { state, reason: reason.to_owned(), route: None }
    }

    fn routes(states: &[(u64, ServingState, &str)]) -> Routes {
        let (routes, _wishes) = Routes::new();
        routes.update(&ModelName::new("m").unwrap(), |model| {
            for &(version, state, reason) in states {
                let version = ModelVersion::new(version).unwrap();
                model.versions.insert(version, entry(state, reason));
            }
        });
        routes
    }

    fn what(routes: &Routes, model: &str, version: Option<u64>) -> What {
        routes.resolve(model, version.and_then(ModelVersion::new)).unwrap_err().what
    }

    #[test]
    fn what_cannot_be_routed_says_why() {
        let loading =
            routes(&[(1, ServingState::Unavailable, "bad"), (2, ServingState::Loading, "")]);
        assert_eq!(what(&loading, "x", None), What::UnknownModel);
        assert_eq!(what(&loading, "m", Some(9)), What::UnknownVersion);
        assert_eq!(what(&loading, "m", None), What::NotReady);
        assert_eq!(what(&loading, "m", Some(1)), What::NoVersion);
        let error = loading.resolve("m", ModelVersion::new(1)).unwrap_err();
        assert!(error.message.ends_with("has no available versions: bad"), "{error}");
    }

    #[test]
    fn the_server_is_ready_when_the_required_models_are() {
        let routes = routes(&[(1, ServingState::Loading, "")]);
        assert!(!routes.server_ready(), "not started");
        let name = ModelName::new("m").unwrap();
        routes.require(|_| Required { counted: [name.clone()].into(), ..Required::default() });
        assert!(!routes.server_ready(), "still loading");
        assert_eq!((routes.waits_for(), routes.was_ready()), (vec![name.clone()], false));
        assert_eq!(routes.serving(), (0, 1));
        let changes = routes.changes();
        routes.update(&name, |m| m.dismissed = true);
        assert!(changes.has_changed().unwrap());
        assert!(routes.server_ready(), "nobody misses it");
        assert_eq!((routes.waits_for(), routes.serving()), (vec![], (0, 0)));
        routes.update(&name, |m| m.dismissed = false);
        assert!(
            routes.server_ready() && routes.was_ready(),
            "nobody misses it before it serves again"
        );
        routes.drain();
        assert!(!routes.server_ready());
    }

    #[test]
    fn what_is_awaited_counts_from_when_it_serves() {
        let routes = routes(&[(1, ServingState::Loading, "")]);
        let name = ModelName::new("m").unwrap();
        let becomes = |state| {
            routes.update(&name, |model| {
                model.versions.insert(ModelVersion::new(1).unwrap(), entry(state, ""));
            });
            routes.server_ready()
        };
        routes.require(|_| Required { awaited: [name.clone()].into(), ..Required::default() });
        assert!(routes.server_ready());
        assert!(becomes(ServingState::Unavailable) && becomes(ServingState::Ready));
        assert!(!becomes(ServingState::Unavailable), "it has served, and is missed");
        assert!(becomes(ServingState::Ready));
        // One that serves already counts at once.
        routes.require(|_| Required { awaited: [name.clone()].into(), ..Required::default() });
        assert!(!becomes(ServingState::Unavailable));
    }

    #[test]
    fn the_index_names_models_that_could_not_be_read() {
        let (routes, _wishes) = Routes::new();
        let name = ModelName::new("broken").unwrap();
        routes.update(&name, |m| m.problem = Some("no config".to_owned()));
        let index = routes.index();
        assert_eq!(index[0].state, Some(ServingState::Unavailable));
        assert_eq!((index[0].name.as_str(), index[0].reason.as_str()), ("broken", "no config"));
    }
}
