//! The composition root: the only file that knows every part.
//!
//! `build` binds and connects, `run` serves until a signal or an operator says so, then drains. Nothing
//! is bound before the configuration was checked.

mod operators;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant, timeout, timeout_at};
use tracing::{error, info, warn};

use self::operators::Operators;
use crate::admin::BindError;
use crate::config::{Config, Origin};
use crate::device::{Devices, kin};
use crate::enclosure::{EnclosureError, Enclosures};
use crate::exit::Exit;
use crate::frontend::http::{self, ByteBudget, HttpDeps, HttpSettings, RepositoryControl};
use crate::lane::Bells;
use crate::lifecycle::archive::Archive;
use crate::lifecycle::catalog::{Catalog, Ending};
use crate::lifecycle::instance::Kit;
use crate::process::turns::{self, Turns};
use crate::process::{Family, Journals, Spawner};
use crate::quota::{Capacity, Quotas, Sources};
use crate::route::{Demand, Routes};
use crate::status::Board;
use crate::system::{RuntimeFile, Signals, raise_descriptor_limit};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
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
    #[error("admin.group = {0}: there is no such group")]
    Group(String),
    #[error("cannot listen on admin.socket = {}", .0.display())]
    Admin(PathBuf, #[source] BindError),
    #[error("cannot write admin.audit_log = {}", .0.display())]
    Audit(PathBuf, #[source] io::Error),
    #[error("cannot write runtime_file = {}", .0.display())]
    RuntimeFile(PathBuf, #[source] io::Error),
}

/// How long a thread for work that blocks waits for more of it. Each keeps memory meanwhile.
const KEEP_THREADS: Duration = Duration::from_secs(1);

/// A server that is bound and not yet serving.
#[derive(Debug)]
pub struct App {
    config: Config,
    listener: TcpListener,
    address: SocketAddr,
    signals: Signals,
    kit: Kit,
    routes: Routes,
    wishes: mpsc::Receiver<Demand>,
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
    /// Of a configuration that was read from `origin`.
    pub async fn build(
        (config, origin): (Config, Origin),
        bells: Arc<Bells>,
    ) -> Result<Self, StartError> {
        raise_descriptor_limit();
        let signals = Signals::take().map_err(StartError::Signals)?;
        let listen = config.http.listen;
        let bound = |e| StartError::Bind(listen, e);
        let listener = listen_on(listen).map_err(bound)?;
        let address = listener.local_addr().map_err(bound)?;
        let operators = Operators::expect(&config, origin)?;
        // Answers while the rest is made.
        let devices = Devices::start(&config.devices);
        let spawner = Spawner::start().map_err(StartError::Spawner)?;
        let enclosures = Enclosures::open(&config.limits.cgroup, &config.scratch).await;
        let enclosures = enclosures.map_err(StartError::Enclosures)?;
        take_orphans();
        let program = std::env::current_exe().map_err(StartError::Binaries)?;
        devices.settled().await;
        let kit = Kit {
            spawner,
            enclosures,
            bells,
            quotas: quotas(&config, &devices),
            devices,
            board: Board::default(),
            archive: Archive::default(),
            journals: Journals::default(),
            binaries: program.parent().map(PathBuf::from).unwrap_or_default(),
        };
        let file = RuntimeFile::write(&config.runtime_file, address)
            .map_err(|e| StartError::RuntimeFile(config.runtime_file.clone(), e))?;
        let (routes, wishes) = Routes::new();
        let _runtime_file = file;
        Ok(Self {
            config,
            listener,
            address,
            signals,
            kit,
            routes,
            wishes,
            operators,
            _runtime_file,
        })
    }

    /// Serves until it is asked to end, then drains: readiness goes first, then new connections,
    /// then the workers when the last request was answered.
    pub async fn run(self) -> Exit {
        let Self { config, listener, address, mut signals, kit, routes, wishes, .. } = self;
        let drain_timeout = config.shutdown.drain_timeout;
        let enclosures = kit.enclosures.clone();
        let deps = HttpDeps { settings: http_settings(&config, address), routes: routes.clone() };
        let listens = [("http".to_owned(), address.to_string())].into();
        let mut operators = self.operators.hear(&kit, &routes, (&config, listens));
        let (end, ending) = mpsc::channel(2);
        let mut catalog = Catalog::new(config, kit, routes.clone());
        let mut catalog = tokio::spawn(async move {
            catalog.open().await;
            catalog.run(wishes, ending).await;
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        let mut http = tokio::spawn(http::serve(listener, deps, stopped));
        info!(http = %address, pid = std::process::id(), "listening");

        let asked = tokio::select! {
            signal = signals.next() => signal,
            () = operators.drain() => "an operator",
            // Neither ends by itself: a server that is up and deaf is worse than one that is gone.
            _bug = &mut http => return failed("the HTTP front end has ended"),
            _bug = &mut catalog => return failed("the catalog of models has ended"),
        };
        info!(signal = asked, "draining: no new connections, requests in progress may finish");
        routes.drain();
        operators.tell();
        drop(stop);
        let drain = async {
            let until = Instant::now() + drain_timeout;
            if timeout_at(until, &mut http).await.is_err() {
                warn!(?drain_timeout, "shutdown.drain_timeout has passed; connections are closed");
                http.abort();
            }
            let (drained, unloaded) = oneshot::channel();
            // The catalog lives until it is told to end. Nobody waits for an answer any more, so
            // its workers have little to finish.
            let _ended = end.send(Ending::Drain(drained)).await;
            if timeout_at(until.max(Instant::now() + LAST_UNLOADS), unloaded).await.is_err() {
                warn!("some workers did not end in time and are killed");
                let _ended = end.send(Ending::Kill).await;
            }
        };
        let exit = tokio::select! {
            () = drain => Exit::Ok,
            signal = signals.next() => {
                warn!(signal, "second signal: workers are killed");
                let _ended = end.send(Ending::Kill).await;
                Exit::Forced
            }
        };
        // It ends when no process is left.
        let _late = timeout(LAST_KILLS, catalog).await;
        enclosures.settle(LAST_FOLDERS).await;
        operators.dismiss().await;
        info!(?exit, "ended");
        exit
    }
}

fn quotas(config: &Config, devices: &Devices) -> Quotas {
    let (limits, settings) = (&config.limits, &config.devices);
    let capacity = Capacity {
        arenas: limits.arena_memory as u64,
        workers: u64::from(limits.max_workers),
        headroom: settings.headroom as u64,
        patience: settings.release_timeout,
    };
    let snapshots = devices.snapshots();
    let devices = devices.clone();
    let sources = Sources { snapshots, hurry: Box::new(move || devices.hurry()), kin: kin::kin };
    Quotas::start(capacity, settings.measured.clone(), sources)
}

/// How long workers may take to end after the last connection, at least.
const LAST_UNLOADS: Duration = Duration::from_secs(2);
/// How long processes that were killed may take to go.
const LAST_KILLS: Duration = Duration::from_secs(1);
/// How long their folders and control groups may take; what is left is swept at the next start.
const LAST_FOLDERS: Duration = Duration::from_secs(1);

/// Connections that may wait until they are accepted; the kernel has a limit of its own. Where they are
/// fewer, a burst of clients waits a second for its second attempt.
const BACKLOG: u32 = 4096;

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What workers leave behind comes here: to be ended where no control group does that, and to be
/// reaped everywhere.
fn take_orphans() {
    if let Err(error) = Family::take_orphans() {
        warn!(%error, "processes that workers leave behind will not be found");
    }
}

fn failed(what: &'static str) -> Exit {
    error!(what, "a part of the server is gone; the rest ends with it");
    Exit::Failed
}

fn http_settings(config: &Config, address: SocketAddr) -> HttpSettings {
    let (http, limits) = (&config.http, &config.limits);
    let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    HttpSettings {
        max_body: limits.max_body,
        max_decompressed: limits.max_decompressed,
        max_reply: limits.max_reply,
        buffers: Arc::new(ByteBudget::new(limits.buffer_memory)),
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
