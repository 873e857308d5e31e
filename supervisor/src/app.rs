//! The composition root: the only file that knows every part.
//!
//! `build` binds and connects, `run` serves until a signal or an operator says so, then drains. Nothing
//! is bound before the configuration was checked.
//!
//! - `listen`: the sockets that are served, whoever opened them.
//! - `manager`: what a service manager is told while the server runs.
//! - `operators`: who is heard at the admin socket.
//! - `drain`: the way out.
//! - `reload`: the configuration, read again.

mod drain;
mod listen;
mod manager;
mod operators;
mod reload;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use shared::fault;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Duration, timeout};
use tracing::{error, info, warn};

use self::drain::Drain;
use self::listen::Listening;
use self::manager::ServiceManager;
use self::operators::Operators;
use self::reload::Changes;
pub use self::reload::{Reloader, Rereading};
use crate::admin::BindError;
use crate::config::Config;
use crate::device::{Devices, kin};
use crate::enclosure::{EnclosureError, Enclosures};
use crate::exit::Exit;
use crate::frontend::http::{
    self, ByteBudget, HttpDeps, HttpSettings, RepositoryControl, Tally, Turnover,
};
use crate::frontend::metrics::{self, MetricsDeps};
use crate::lane::Bells;
use crate::lifecycle::archive::Archive;
use crate::lifecycle::catalog::Catalog;
use crate::lifecycle::instance::Kit;
use crate::overview::{Overview, Parts};
use crate::process::turns::{self, Turns};
use crate::process::{Family, Journals, Spawner};
use crate::quota::{Capacity, Quotas, Sources};
use crate::route::{Demand, Routes};
use crate::status::Board;
use crate::system::{
    Activation, ActivationError, Asked, RuntimeFile, Signals, pulse, raise_descriptor_limit,
    watch_host,
};
use crate::telemetry::traces::{NotStarted, Traces};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    #[error("cannot take over the sockets of the service manager")]
    Activation(#[source] ActivationError),
    #[error("cannot take over signals")]
    Signals(#[source] io::Error),
    #[error("cannot start the thread that starts workers")]
    Spawner(#[source] io::Error),
    #[error("cannot make what holds workers")]
    Enclosures(#[source] EnclosureError),
    #[error("cannot find the folder of this program, in which the worker programs are")]
    Binaries(#[source] io::Error),
    #[error("cannot listen on http.listen = {0}")]
    Bind(SocketAddr, #[source] io::Error),
    #[error("cannot listen on metrics.listen = {0}")]
    BindMetrics(SocketAddr, #[source] io::Error),
    #[error("admin.group = {0}: there is no such group")]
    Group(String),
    #[error("cannot listen on admin.socket = {}", .0.display())]
    Admin(PathBuf, #[source] BindError),
    #[error("cannot write admin.audit_log = {}", .0.display())]
    Audit(PathBuf, #[source] io::Error),
    #[error(transparent)]
    Traces(NotStarted),
    #[error("cannot write runtime_file = {}", .0.display())]
    RuntimeFile(PathBuf, #[source] io::Error),
}

/// How long a thread for work that blocks waits for more of it. Each keeps memory meanwhile.
const KEEP_THREADS: Duration = Duration::from_secs(1);

/// A server that is bound and not yet serving.
#[derive(Debug)]
pub struct App {
    config: Config,
    http: Listening,
    /// If metrics are served.
    metrics: Option<Listening>,
    started: SystemTime,
    signals: Signals,
    rereading: Rereading,
    kit: Kit,
    routes: Routes,
    wishes: mpsc::Receiver<Demand>,
    traces: Traces,
    operators: Operators,
    _runtime_file: RuntimeFile,
}

/// The runtime, whose threads look at the completions of all workers before they sleep.
pub fn runtime(config: &Config) -> Result<(Runtime, Arc<Bells>), StartError> {
    // Threads of the runtime have it from this one. Where the kernel refuses, nothing changes.
    let _refused = turns::take(Turns::Short);
    let bells = Arc::new(Bells::default());
    let (parking, unparking) = (Arc::clone(&bells), Arc::clone(&bells));
    let mut builder = Builder::new_multi_thread();
    if let Some(threads) = config.limits.threads {
        builder.worker_threads(usize::from(threads));
    }
    let runtime = builder
        .thread_name("supervisor")
        .enable_all()
        .thread_keep_alive(KEEP_THREADS)
        .on_thread_park(move || parking.on_park())
        .on_thread_unpark(move || unparking.on_unpark())
        .build();
    Ok((runtime.map_err(StartError::Runtime)?, bells))
}

impl App {
    pub async fn build(
        config: Config,
        rereading: Rereading,
        bells: Arc<Bells>,
    ) -> Result<Self, StartError> {
        let started = SystemTime::now();
        // Before anything else is opened.
        let mut activation = Activation::take().map_err(StartError::Activation)?;
        raise_descriptor_limit();
        let signals = Signals::take().map_err(StartError::Signals)?;
        let http = Listening::http(&config.http, &mut activation)?;
        let metrics = Listening::metrics(&config.metrics, &mut activation)?;
        activation.close_the_rest();
        let operators = Operators::expect(&config, rereading.origin.clone())?;
        // Answers while the rest is made.
        let devices = Devices::start(&config.devices);
        let spawner = Spawner::start().map_err(StartError::Spawner)?;
        let enclosures = Enclosures::open(&config.limits.cgroup, &config.scratch).await;
        let enclosures = enclosures.map_err(StartError::Enclosures)?;
        take_orphans();
        let program = std::env::current_exe().map_err(StartError::Binaries)?;
        devices.settled().await;
        let (routes, wishes) = Routes::new();
        let kit = Kit {
            spawner,
            enclosures,
            bells,
            quotas: quotas(&config, &devices),
            devices,
            board: Board::default(),
            archive: Archive::default(),
            stats: routes.stats().clone(),
            journals: Journals::default(),
            binaries: program.parent().map(PathBuf::from).unwrap_or_default(),
        };
        let metrics_address = metrics.as_ref().map(|metrics| metrics.address);
        let file = RuntimeFile::write(&config.runtime_file, http.address, metrics_address)
            .map_err(|e| StartError::RuntimeFile(config.runtime_file.clone(), e))?;
        let traces = Traces::start(&config.traces).map_err(StartError::Traces)?;
        Ok(Self {
            config,
            http,
            metrics,
            started,
            signals,
            rereading,
            kit,
            routes,
            wishes,
            traces,
            operators,
            _runtime_file: file,
        })
    }

    /// Serves until it is asked to end, then drains (`app::drain`).
    pub async fn run(mut self) -> Exit {
        tokio::spawn(self.routes.stats().clone().keep_turning());
        let overview = self.overview();
        let metrics = self.serve_metrics(overview.clone());
        let Self { config, http, mut signals, rereading, kit, routes, wishes, traces, .. } = self;
        let patience = config.repository.required_timeout;
        let (enclosures, board) = (kit.enclosures.clone(), kit.board.clone());
        let parts = (kit.quotas.clone(), traces.clone());
        let (reloader, changes) = Reloader::new(&config, rereading, &routes, parts, http.address);
        let mut operators = self.operators.hear(overview, (&kit, &routes), &reloader);
        let Changes { models: orders, http: settings } = changes;
        let turnover = Arc::new(Turnover::default());
        let deps = http_deps(&settings, &routes, &traces, &turnover);
        let (main_pulse, mut turning) = pulse("the main loop");
        let (catalog_pulse, catalog_turning) = pulse("the catalog of models");
        let (http_pulse, mut http_turning) = pulse("the HTTP front end");
        let (end, ending) = mpsc::channel(2);
        let mut catalog = Catalog::new(config, kit, routes.clone());
        let mut catalog = tokio::spawn(async move {
            catalog.open().await;
            catalog.run(wishes, orders, ending, catalog_turning).await;
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        let (address, hold) = (http.address, http.hold(routes.clone()));
        let mut http = tokio::spawn(async move {
            http_turning.meanwhile(hold).await;
            http::serve(http.listener, deps, settings, http_turning, stopped).await;
        });
        let manager = ServiceManager::new(patience, routes.clone(), Arc::clone(&turnover));
        let hangups = Arc::new(Notify::new());
        let notifier = manager.notifier();
        tokio::spawn(reload::on_hangup(Arc::clone(&hangups), reloader.clone(), notifier));
        let manager = tokio::spawn(manager.keep_told(vec![main_pulse, catalog_pulse, http_pulse]));
        say_listening(address, metrics.as_ref().map(|(_, address)| *address));

        let signal = loop {
            tokio::select! {
                asked = signals.next() => match asked {
                    Asked::End(signal) => break signal,
                    Asked::Reload => hangups.notify_one(),
                },
                () = operators.drain() => break "an operator",
                () = turning.answer() => fault::hang("main_loop"),
                // Neither ends by itself: a server that is up and deaf is worse than one that is gone.
                _bug = &mut http => return failed("the HTTP front end has ended"),
                _bug = &mut catalog => return failed("the catalog of models has ended"),
            }
        };
        let shutdown = reloader.config().shutdown.clone();
        let drain = Drain { routes, board, hangups, turnover, shutdown, stop, http, end };
        let (exit, tally) = drain.run(signal, &mut signals).await;
        // Whoever looked on has seen the drain.
        metrics.iter().for_each(|(task, _)| task.abort());
        // It ends when no process is left.
        let _late = timeout(LAST_KILLS, catalog).await;
        enclosures.settle(LAST_FOLDERS).await;
        manager.abort();
        operators.dismiss().await;
        traces.flush(LAST_TRACES).await;
        say_ended(exit, tally);
        exit
    }
}

impl App {
    /// What is shown to operators.
    fn overview(&self) -> Overview {
        let metrics = self.metrics.as_ref().map(|metrics| ("metrics", metrics.address));
        let listens = [("http", self.http.address)].into_iter().chain(metrics);
        let listens = listens.map(|(name, at)| (name.to_owned(), at.to_string()));
        let admin = self.config.admin.socket.as_ref();
        let admin = admin.map(|path| ("admin".to_owned(), path.display().to_string()));
        Overview::new(Parts {
            board: self.kit.board.clone(),
            routes: self.routes.clone(),
            snapshots: self.kit.devices.snapshots(),
            quotas: self.kit.quotas.clone(),
            spawner: self.kit.spawner.clone(),
            traces: self.traces.clone(),
            host: watch_host(),
            listens: listens.chain(admin).collect(),
            started: self.started,
        })
    }

    /// Begins to serve metrics and the status page.
    fn serve_metrics(&mut self, overview: Overview) -> Option<(JoinHandle<()>, SocketAddr)> {
        let Listening { listener, address, .. } = self.metrics.take()?;
        let deps = MetricsDeps {
            overview,
            max_connections: count(self.config.metrics.max_connections),
            header_timeout: self.config.http.header_timeout,
        };
        Some((tokio::spawn(metrics::serve(listener, deps)), address))
    }
}

fn quotas(config: &Config, devices: &Devices) -> Quotas {
    let snapshots = devices.snapshots();
    let devices = devices.clone();
    let sources = Sources { snapshots, hurry: Box::new(move || devices.hurry()), kin: kin::kin };
    Quotas::start(capacity(config), config.devices.measured.clone(), sources)
}

fn capacity(config: &Config) -> Capacity {
    let (limits, devices) = (&config.limits, &config.devices);
    Capacity {
        arenas: limits.arena_memory as u64,
        workers: u64::from(limits.max_workers),
        headroom: devices.headroom as u64,
        patience: devices.release_timeout,
    }
}

/// How long processes that were killed may take to go.
const LAST_KILLS: Duration = Duration::from_secs(1);
/// How long the last spans may take to be sent.
const LAST_TRACES: Duration = Duration::from_secs(2);
/// How long their folders and control groups may take; what is left is swept at the next start.
const LAST_FOLDERS: Duration = Duration::from_secs(1);

/// What workers leave behind comes here: to be ended where no control group does that, and to be
/// reaped everywhere.
fn take_orphans() {
    if let Err(error) = Family::take_orphans() {
        warn!(%error, "processes that workers leave behind will not be found");
    }
}

fn say_listening(http: SocketAddr, metrics: Option<SocketAddr>) {
    let metrics = metrics.map(tracing::field::display);
    info!(%http, metrics, pid = std::process::id(), "listening");
}

fn say_ended(exit: Exit, tally: Tally) {
    let Tally { finished, refused, broken_off, .. } = tally;
    info!(?exit, finished, refused, broken_off, "ended");
}

fn failed(what: &'static str) -> Exit {
    error!(what, "a part of the server is gone; the rest ends with it");
    Exit::Failed
}

fn http_deps(
    settings: &watch::Receiver<HttpSettings>,
    routes: &Routes,
    traces: &Traces,
    turnover: &Arc<Turnover>,
) -> HttpDeps {
    HttpDeps {
        settings: settings.borrow().clone(),
        routes: routes.clone(),
        turnover: Arc::clone(turnover),
        traces: traces.clone(),
    }
}

fn http_settings(config: &Config, address: SocketAddr, buffers: Arc<ByteBudget>) -> HttpSettings {
    let (http, limits) = (&config.http, &config.limits);
    HttpSettings {
        max_body: limits.max_body,
        max_decompressed: limits.max_decompressed,
        max_reply: limits.max_reply,
        buffers,
        max_chunks: count(limits.max_chunks),
        max_json_depth: usize::from(limits.max_json_depth),
        max_connections: count(http.max_connections),
        header_timeout: http.header_timeout,
        body_timeout: http.body_timeout,
        stall_timeout: http.stall_timeout,
        idle_timeout: http.idle_timeout,
        repository_control: match http.repository_control.allows(address) {
            true => RepositoryControl::Allowed,
            false => RepositoryControl::Forbidden,
        },
    }
}

fn count(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
