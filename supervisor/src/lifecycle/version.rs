//! One version of a model: its instances, its queue, and what is published of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proto::control::{Confinement, Device, Level, LoadSpec, Loaded};
use shared::id::{InstanceId, ModelName, ModelVersion};
use shared::ring::layout;
use shared::tensor::TensorSpec;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::instance::{Gone, Instance, InstanceSpec, InstanceView, Kit};
use super::live::Live;
use super::seating::{self, Seating};
use super::{Availability, Event};
use crate::config::{self, ModelSettings, WorkerSettings};
use crate::health::{HealthPolicy, Watchlist};
use crate::process::{LogLimits, Start};
use crate::repository::{EngineKind, Geometry, Manifest, ModelFolder, Seat, View};
use crate::request::{RequestError, What};
use crate::route::{Route, RouteParts, ServingState, VersionEntry};
use crate::schedule::{BatchCap, SlotQueue};
use crate::schema::{Port, Schema};
use crate::stats::VersionStats;
use crate::status::VersionCard;

/// How much longer than `infer_timeout` a worker may take over a request before it counts as hung.
const HANG_GRACE: Duration = Duration::from_secs(1);
/// Per quarter of a second, beyond one for each completion. About half of what `lane::listen` reads
/// of a flood in that time (64 packets in 10 ms), which is all of it that can be counted.
const SPARE_DOORBELLS: u32 = 800;
const FACTS: u32 = 50;

/// A version that is loaded, or on its way up or down.
#[derive(Debug)]
pub(super) struct Version {
    model: ModelName,
    version: ModelVersion,
    manifest: Manifest,
    infer_timeout: Duration,
    /// What the instances have of the settings that change while they run.
    live: watch::Sender<Live>,
    queue: Arc<SlotQueue>,
    batch_cap: Arc<BatchCap>,
    stats: Arc<VersionStats>,
    instances: Vec<Instance>,
    /// From the first time an instance was ready.
    route: Option<Arc<Route>>,
}

/// What all instances of a version come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) state: ServingState,
    pub(super) reason: String,
    /// Every instance is ready or has been given up.
    pub(super) settled: Settled,
    /// No instance has a process any more, and none will come.
    pub(super) gone: Gone,
    /// An instance was denied what it asked for.
    pub(super) denied: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    Not,
    Ready,
    Failed,
}

impl Version {
    /// Makes the instances; nothing is wanted yet. `watchlist` is what is held against requests of
    /// this version, from when it was loaded before.
    pub(super) fn new(
        folder: &ModelFolder,
        (version, watchlist): (ModelVersion, Arc<Watchlist>),
        settings: &ModelSettings,
        kit: &Kit,
        changed: &Arc<Notify>,
    ) -> Result<Self, String> {
        let manifest = folder.manifest.clone();
        let found = folder.version(version).ok_or_else(|| format!("no version {version}"))?;
        if let Some(problem) = &found.problem {
            return Err(problem.to_string());
        }
        let waiting = usize::try_from(settings.worker.queue).unwrap_or(usize::MAX);
        let queue = SlotQueue::new(waiting, watchlist);
        let batch_cap = Arc::new(BatchCap::new(manifest.max_batch_size));
        let (live, _) = watch::channel(Live::of(settings));
        let seats = manifest.seats(settings.worker.instances);
        let start = |(index, seat): (u16, &Seat)| {
            let id = InstanceId { model: folder.name.clone(), version, index };
            let load = load_spec(&manifest, found.path.clone(), settings)?;
            let shared = (kit, &batch_cap, live.subscribe());
            let spec = instance_spec(id, (load, seat), &manifest, settings, shared)?;
            Ok(Instance::start(spec, kit.clone(), Arc::clone(&queue), Arc::clone(changed)))
        };
        let instances = (0..).zip(&seats).map(start).collect::<Result<_, String>>()?;
        let (model, infer_timeout) = (folder.name.clone(), settings.worker.infer_timeout);
        Ok(Self {
            stats: kit.stats.of(&model, version),
            model,
            version,
            manifest,
            infer_timeout,
            live,
            queue,
            batch_cap,
            instances,
            route: None,
        })
    }

    /// Takes over what holds without new workers.
    pub(super) fn adopt(&mut self, settings: &ModelSettings) {
        let worker = &settings.worker;
        self.infer_timeout = worker.infer_timeout;
        if let Some(route) = &self.route {
            route.set_infer_timeout(worker.infer_timeout);
        }
        self.queue.set_limit(usize::try_from(worker.queue).unwrap_or(usize::MAX));
        self.live.send_replace(Live::of(settings));
    }

    pub(super) async fn ask(&self, event: &Event) {
        for instance in &self.instances {
            instance.ask(event.clone()).await;
        }
    }

    pub(super) fn instances(&self) -> &[Instance] {
        &self.instances
    }

    pub(super) fn summary(&self) -> Summary {
        let views: Vec<InstanceView> = self.instances.iter().map(Instance::view).collect();
        let mut summary = summarize(&views);
        let serves = matches!(summary.state, ServingState::Ready | ServingState::Loading);
        if let (true, Some(largest)) = (serves, self.batch_cap.reduced()) {
            let cap = format!("batches of at most {largest} since a larger one ran out of memory");
            let reasons = [cap, summary.reason];
            let reasons: Vec<&str> =
                reasons.iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
            summary.reason = reasons.join("; ");
        }
        summary
    }

    /// What clients may know now. Makes the route when the first instance is ready, and ends its
    /// queue when none will come any more.
    pub(super) fn entry(&mut self) -> VersionEntry {
        let summary = self.summary();
        let route = match summary.state {
            ServingState::Ready | ServingState::Loading => {
                if summary.state == ServingState::Ready {
                    self.open_route();
                }
                self.route.clone()
            }
            ServingState::Unloading => None,
            ServingState::Unavailable => {
                self.close(&summary.reason);
                None
            }
        };
        VersionEntry { state: summary.state, reason: summary.reason, route }
    }

    /// Answers whoever still waits for a slot: none will come.
    pub(super) fn close(&self, reason: &str) {
        let colon = if reason.is_empty() { "" } else { ": " };
        let message = format!(
            "Request for unknown model: '{}' version {} is not at ready state{colon}{reason}",
            self.model, self.version
        );
        self.queue.close(&RequestError::new(What::NotReady, message));
    }

    /// Another route has taken this one's place: who waits here is served first, at most for
    /// `limit`; then the instances are no longer wanted, and late comers go to `successor`.
    pub(super) fn hand_over(&self, successor: Option<&Arc<Route>>, limit: Duration) {
        if let (Some(route), Some(successor)) = (&self.route, successor) {
            route.hand_over(successor);
        }
        let askers: Vec<_> = self.instances.iter().map(Instance::asker).collect();
        let queue = Arc::clone(&self.queue);
        let moved = RequestError::new(What::NotReady, "the model was loaded anew; try again");
        tokio::spawn(async move {
            let _late = timeout(limit, Arc::clone(&queue).nobody_waits()).await;
            for asker in askers {
                asker.ask(Event::Unwanted).await;
            }
            // Last, because a worker that becomes ready late would open the queue again.
            queue.close(&moved);
        });
    }

    /// What operators are shown of it, as far as it changes with each look.
    pub(super) fn card(&self, entry: &VersionEntry) -> VersionCard {
        VersionCard {
            state: entry.state.name(),
            reason: entry.reason.clone(),
            platform: self.manifest.platform.clone(),
            instances: self.instances.iter().map(Instance::card).collect(),
        }
    }

    pub(super) fn route(&self) -> Option<&Arc<Route>> {
        self.route.as_ref()
    }

    fn open_route(&mut self) {
        if self.route.is_some() {
            return;
        }
        let loaded = self.instances.iter().find_map(|instance| instance.view().loaded);
        let Some(loaded) = loaded else { return };
        let parts = RouteParts {
            model: self.model.clone(),
            version: self.version,
            platform: self.manifest.platform.clone(),
            infer_timeout: self.infer_timeout,
            queue: Arc::clone(&self.queue),
            batch_cap: Arc::clone(&self.batch_cap),
            stats: Arc::clone(&self.stats),
        };
        self.route =
            Some(Arc::new(Route::new(parts, schema(&self.model, &self.manifest, &loaded))));
    }
}

fn summarize(views: &[InstanceView]) -> Summary {
    let has = |wanted| views.iter().find(|view| view.status.availability == wanted);
    let reason = |view: &InstanceView| view.status.reason.clone();
    let failed = has(Availability::Unavailable);
    let coming = has(Availability::Loading);
    let going = has(Availability::Unloading);
    let (state, reason) = if has(Availability::Ready).is_some() {
        let partly = failed.or(coming).map(|view| format!("some instances: {}", reason(view)));
        // While one works it does not matter that others rest.
        let silent = |view: &&InstanceView| view.status.reason.is_empty();
        let mut ready = views.iter().filter(|v| v.status.availability == Availability::Ready);
        let resting = ready.clone().find(silent).is_none().then(|| ready.next().map(reason));
        (ServingState::Ready, partly.or(resting.flatten()).unwrap_or_default())
    } else if let Some(view) = coming {
        (ServingState::Loading, reason(view))
    } else if let Some(view) = going {
        (ServingState::Unloading, reason(view))
    } else {
        let unloaded = || "unloaded".to_owned();
        (ServingState::Unavailable, failed.map_or_else(unloaded, reason))
    };
    let settled = match (coming.or(going), failed) {
        (Some(_), _) => Settled::Not,
        (None, Some(_)) => Settled::Failed,
        (None, None) if has(Availability::Ready).is_some() => Settled::Ready,
        (None, None) => Settled::Failed,
    };
    let gone = if views.iter().all(|view| view.gone == Gone::Yes) { Gone::Yes } else { Gone::No };
    let denied = views.iter().any(|view| view.denied);
    Summary { state, reason, settled, gone, denied }
}

fn load_spec(
    manifest: &Manifest,
    folder: std::path::PathBuf,
    settings: &ModelSettings,
) -> Result<LoadSpec, String> {
    let folder = std::path::absolute(folder).map_err(|e| format!("no absolute path: {e}"))?;
    Ok(LoadSpec {
        engine: manifest.engine.backend().to_owned(),
        folder,
        filename: manifest.filename.clone().unwrap_or_default(),
        // Until devices are granted.
        device: Device::Cpu,
        device_memory: None,
        threads: settings.worker.threads,
        max_batch_size: manifest.max_batch_size,
        inputs: manifest.input_specs(View::Model),
        outputs: manifest.output_specs(View::Model),
        parameters: manifest.parameters.clone(),
    })
}

/// A binary an engine: a worker maps only the framework that its model needs.
fn binary(kind: EngineKind) -> &'static str {
    match kind {
        EngineKind::Torch => "bulkhead-worker-torch",
        EngineKind::Echo => "bulkhead-worker",
    }
}

fn instance_spec(
    id: InstanceId,
    (load, seat): (LoadSpec, &Seat),
    manifest: &Manifest,
    settings: &ModelSettings,
    (kit, batch_cap, live): (&Kit, &Arc<BatchCap>, watch::Receiver<Live>),
) -> Result<InstanceSpec, String> {
    let worker = &settings.worker;
    let Geometry { request_bytes, response_bytes, slots } = Geometry::of(manifest, worker);
    let geometry = layout::Geometry::new(u32::from(slots), request_bytes, response_bytes);
    kit.enclosures.tell_shortfalls(&id.model, &worker.host, worker.confinement);
    let memory = worker.host.memory.map(|bytes| u64::try_from(bytes).unwrap_or(u64::MAX));
    let threads = worker.host.max_processes;
    let scratch = worker.host.scratch.map(|bytes| u64::try_from(bytes).unwrap_or(u64::MAX));
    let library_path = std::env::var_os("LD_LIBRARY_PATH");
    let framework = seating::framework_on_gpu(manifest.engine, library_path.as_deref());
    let (grace, spare_doorbells, facts) = (HANG_GRACE, SPARE_DOORBELLS, FACTS);
    Ok(InstanceSpec {
        id,
        binary: kit.binaries.join(binary(manifest.engine)),
        start: match worker.start {
            config::Start::Zygote => Start::Zygote,
            config::Start::Exec => Start::Exec,
        },
        load,
        seating: Seating::of(seat, &worker.gpu, framework),
        gpu: worker.gpu,
        geometry: geometry.map_err(|e| e.to_string())?,
        health: HealthPolicy { grace, spare_doorbells, facts, memory, threads, scratch },
        confinement: confinement(worker),
        level: worker.confinement,
        host: worker.host.clone(),
        live,
        batch_cap: Arc::clone(batch_cap),
        log: LogLimits {
            lines_per_second: worker.log_lines_per_second,
            line_bytes: worker.log_line_bytes,
            tail_lines: usize::from(worker.log_tail_lines),
        },
    })
}

fn confinement(worker: &WorkerSettings) -> Confinement {
    Confinement {
        level: match worker.confinement {
            config::Confinement::None => Level::None,
            config::Confinement::Standard => Level::Standard,
            config::Confinement::Strict => Level::Strict,
        },
        scratch: std::path::PathBuf::new(),
        data_limit: None,
        max_descriptors: worker.host.max_descriptors,
        max_processes: worker.host.max_processes,
    }
}

/// The configuration's tensors, completed by the worker's; or the worker's, if it names none.
fn schema(model: &ModelName, manifest: &Manifest, loaded: &Loaded) -> Schema {
    let ports = |client: Vec<TensorSpec>, told: &[TensorSpec]| -> Vec<Port> {
        if client.is_empty() {
            return told.iter().map(|spec| Port::new(spec.clone(), spec.clone())).collect();
        }
        let by_name: BTreeMap<&str, &TensorSpec> =
            told.iter().map(|spec| (spec.name.as_str(), spec)).collect();
        let complete = |mut client: TensorSpec| {
            let model = by_name.get(client.name.as_str()).map_or(client.clone(), |&s| s.clone());
            client.dtype = client.dtype.or(model.dtype);
            if client.dims.is_none() {
                client.dims.clone_from(&model.dims);
            }
            Port::new(client, model)
        };
        client.into_iter().map(complete).collect()
    };
    Schema {
        model: model.to_string(),
        max_batch: manifest.max_batch_size,
        inputs: ports(manifest.input_specs(View::Client), &loaded.inputs),
        outputs: ports(manifest.output_specs(View::Client), &loaded.outputs),
    }
}
