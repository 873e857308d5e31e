//! Reads the configuration again and has each part take over what is its own.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use shared::id::ModelName;
use tokio::sync::{Mutex, Notify, mpsc, oneshot, watch};
use tracing::{error, info, warn};

use super::{capacity, http_settings};
use crate::config::{Change, Config, Diff, Effect, Origin};
use crate::frontend::http::{ByteBudget, HttpSettings};
use crate::lifecycle::reload::{
    Applied, Found, Order, Outcomes, ReloadReport, Scope, Sighted, Survey,
};
use crate::quota::Quotas;
use crate::repository::{ScanError, Scanner, on_disk};
use crate::route::Routes;
use crate::system::Notifier;
use crate::telemetry::LogFilter;
use crate::telemetry::traces::Traces;

/// Has the configuration read again; a cheap handle.
///
/// Reloads that are asked for at once are applied one after the other. None waits for the models of the
/// one before: what has been wished for wrongly can be put right while it is still being loaded.
#[derive(Clone, Debug)]
pub struct Reloader(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    parts: Parts,
    /// What the server runs with.
    running: ArcSwap<Config>,
    turn: Mutex<()>,
}

/// A reload that holds, and whose models are on their way.
#[derive(Debug)]
struct Begun {
    changes: Vec<Change>,
    applied: Applied,
}

/// Who takes over what.
#[derive(Debug)]
struct Parts {
    rereading: Rereading,
    models: mpsc::Sender<Order>,
    routes: Routes,
    quotas: Quotas,
    traces: Traces,
    http: watch::Sender<HttpSettings>,
    /// Where the HTTP front end listens.
    address: SocketAddr,
}

/// Where those who take something over hear of it.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) models: mpsc::Receiver<Order>,
    /// At first what holds at the start.
    pub(super) http: watch::Receiver<HttpSettings>,
}

/// What a reload needs from before the server was built.
#[derive(Clone, Debug)]
pub struct Rereading {
    pub origin: Origin,
    pub logs: LogFilter,
}

const ENDING: &str = "the server is shutting down";

impl Reloader {
    pub(super) fn new(
        running: &Config,
        rereading: Rereading,
        routes: &Routes,
        (quotas, traces): (Quotas, Traces),
        address: SocketAddr,
    ) -> (Self, Changes) {
        let buffers = Arc::new(ByteBudget::new(running.limits.buffer_memory));
        let (http, settings) = watch::channel(http_settings(running, address, buffers));
        let (models, orders) = mpsc::channel(1);
        let routes = routes.clone();
        let parts = Parts { rereading, models, routes, quotas, traces, http, address };
        let running = ArcSwap::from_pointee(running.clone());
        let this = Self(Arc::new(Shared { parts, running, turn: Mutex::new(()) }));
        (this, Changes { models: orders, http: settings })
    }

    /// What the server runs with.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.0.running.load_full()
    }

    /// What a reload of everything would change; changes nothing.
    pub async fn preview(&self) -> Result<Diff, String> {
        let new = self.read().await?;
        Ok(Diff::between(&self.config(), &new))
    }

    /// Reads the configuration again, checks the whole of it, and applies what differs. An error says
    /// why nothing was changed. What was begun goes on if the caller leaves.
    pub async fn reload(&self, scope: Scope) -> Result<ReloadReport, String> {
        let this = self.clone();
        let task = tokio::spawn(async move {
            let begun = this.begin(scope).await?;
            Ok(begun.settled().await)
        });
        task.await.unwrap_or_else(|error| Err(format!("the reload has failed: {error}")))
    }

    /// [`Reloader::reload`] of everything, of which the log tells what became of the models.
    pub async fn apply(&self) -> Result<Vec<Change>, String> {
        let this = self.clone();
        let task = tokio::spawn(async move {
            let begun = this.begin(Scope::Everything).await?;
            let changes = begun.changes.clone();
            tokio::spawn(begun.settled());
            Ok(changes)
        });
        task.await.unwrap_or_else(|error| Err(format!("the reload has failed: {error}")))
    }

    async fn begin(&self, scope: Scope) -> Result<Begun, String> {
        let _turn = self.0.turn.lock().await;
        let begun = self.take_up(scope).await;
        match &begun {
            Ok(begun) => log_changes(&begun.changes),
            Err(reason) => error!(reason, "not reloaded; nothing has changed"),
        }
        begun
    }

    async fn take_up(&self, scope: Scope) -> Result<Begun, String> {
        let parts = &self.0.parts;
        if parts.routes.draining() {
            return Err(ENDING.to_owned());
        }
        let (old, read) = (self.config(), self.read().await?);
        let new = match &scope {
            Scope::Everything => read,
            Scope::Model(name) => old.with_model_of(&read, name),
        };
        let changes = Diff::between(&old, &new).changes;
        let holds = old.reloaded(&new);
        let survey = self.survey(&scope, &holds).await?;
        let (applied, told) = oneshot::channel();
        if scope == Scope::Everything {
            self.adopt(&holds);
        }
        self.0.running.store(Arc::new(holds.clone()));
        let order = Order { scope, config: holds, survey, applied };
        parts.models.send(order).await.map_err(|_ended| ENDING.to_owned())?;
        let applied = told.await.map_err(|_ended| ENDING.to_owned())?;
        Ok(Begun { changes, applied })
    }

    async fn read(&self) -> Result<Config, String> {
        let origin = self.0.parts.rereading.origin.clone();
        let read = on_disk(move || origin.load()).await;
        read.map_err(|error| error.to_string())?.map_err(|errors| errors.to_string())
    }

    /// What lies in the repositories, or what of one model does.
    async fn survey(&self, scope: &Scope, config: &Config) -> Result<Survey, String> {
        let scanner = Scanner::new(config);
        match scope {
            Scope::Everything => {
                let scan = scanner.look().await;
                scan.map(Survey::from).map_err(|error| format!("repositories: {error}"))
            }
            Scope::Model(name) => {
                let found = match scanner.look_at(name).await {
                    Ok(folder) => Found::At(folder.path),
                    Err(ScanError::NotFound) if !self.is_known(name) => {
                        return Err(format!("model '{name}' is in no repository"));
                    }
                    Err(error) => Found::Unreadable(error.reason()),
                };
                let models = [(name.clone(), found)].into();
                Ok(Survey { models, problems: Vec::new(), sighted: Sighted::InPart })
            }
        }
    }

    fn is_known(&self, name: &ModelName) -> bool {
        self.0.parts.routes.index().iter().any(|line| line.name == name.as_str())
    }

    /// What is not the models'.
    fn adopt(&self, config: &Config) {
        let Parts { rereading, quotas, traces, http, address, .. } = &self.0.parts;
        if let Err(error) = rereading.logs.set(&config.log.filter) {
            warn!(%error, "the log is filtered as before");
        }
        traces.set_sample(config.traces.sample);
        quotas.set_capacity(capacity(config));
        http.send_modify(|settings| {
            let buffers = Arc::clone(&settings.buffers);
            buffers.set_limit(config.limits.buffer_memory);
            *settings = http_settings(config, *address, buffers);
        });
    }
}

impl Begun {
    /// Waits for the models.
    async fn settled(self) -> ReloadReport {
        let Self { changes, applied } = self;
        let Outcomes { models, problems } = applied.settled().await;
        let report = ReloadReport { changes, models, problems };
        log_outcome(&report);
        report
    }
}

/// Reloads with each SIGHUP, which a service manager is told of; those that come before it has been
/// applied are one.
pub(super) async fn on_hangup(hangups: Arc<Notify>, reloader: Reloader, notifier: Notifier) {
    loop {
        hangups.notified().await;
        info!(signal = "SIGHUP", "reading the configuration again");
        let begin = reloader.begin(Scope::Everything);
        // A manager that waits for the end of the server is told of nothing else. One that waits for a
        // reload would hand on no other one, not even a correction, until the models are ready.
        let begun = match reloader.0.parts.routes.draining() {
            true => begin.await,
            false => notifier.while_reloading(begin).await,
        };
        if let Ok(begun) = begun {
            // It says itself what comes of it.
            tokio::spawn(begun.settled());
        }
    }
}

fn log_changes(changes: &[Change]) {
    for change in changes {
        let (key, old, new) = (&change.key, &change.old, &change.new);
        match change.effect {
            Effect::Live | Effect::Workers => info!(key, old, new, "configuration changed"),
            // All of them in one line, at the end.
            Effect::Server => {}
        }
    }
}

fn log_outcome(report: &ReloadReport) {
    for problem in &report.problems {
        warn!("repository: {problem}");
    }
    for one in &report.models {
        let (model, outcome) = (one.model.as_str(), one.outcome.name());
        match one.outcome.failure() {
            None => info!(model, outcome, "model reloaded"),
            Some(reason) => warn!(model, outcome, reason, "model not reloaded"),
        }
    }
    let restart: Vec<String> = report
        .needs_restart()
        .map(|change| format!("{} ({} -> {})", change.key, change.old, change.new))
        .collect();
    if !restart.is_empty() {
        warn!(keys = restart.join(", "), "these keys hold only after a restart of the server");
    }
    let (changes, models) = (report.changes.len() - restart.len(), report.models.len());
    info!(changes, models, "configuration reloaded");
}
