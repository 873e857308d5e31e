//! The checked configuration. Every value is within its range; paths are absolute.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use shared::id::ModelName;

use crate::exit_kind::ExitPattern;

/// Everything that an operator may choose.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where the addresses in use are written.
    pub runtime_file: PathBuf,
    /// The folder of the workers' scratch folders.
    pub scratch: PathBuf,
    pub log: Log,
    pub traces: Traces,
    pub http: Http,
    pub metrics: Metrics,
    pub admin: Admin,
    pub limits: Limits,
    pub devices: Devices,
    pub repository: Repository,
    pub shutdown: Shutdown,
    /// What a model without a section of its own gets.
    pub(super) defaults: ModelSettings,
    /// `[models.NAME]`, completed from the defaults.
    pub(super) models: BTreeMap<ModelName, ModelSettings>,
}

impl Config {
    /// The settings of one model: its own section over `[worker]` and `[restart]`.
    pub fn model(&self, name: &ModelName) -> &ModelSettings {
        self.models.get(name).unwrap_or(&self.defaults)
    }

    /// The models that have a section of their own, whether or not they exist in a repository.
    pub fn configured_models(&self) -> impl Iterator<Item = &ModelName> {
        self.models.keys()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub format: LogFormat,
    /// Directives of the tracing subscriber, as `info` or `info,supervisor::lane=debug`.
    pub filter: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For a person on a terminal, JSON otherwise.
    Auto,
    Human,
    Json,
}

/// Traces of requests, for an OpenTelemetry collector.
#[derive(Clone, Debug, PartialEq)]
pub struct Traces {
    /// `http://HOST:PORT`, perhaps with a path; `None` is off.
    pub endpoint: Option<String>,
    /// The share of requests without a parent that are sampled, 0 to 1.
    pub sample: f64,
    /// For the collector to take what it is sent.
    pub timeout: Duration,
    /// Requests whose spans may wait to be sent; what is more is dropped.
    pub queue: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Port 0 lets the system choose.
    pub listen: SocketAddr,
    pub max_connections: u32,
    /// From the first byte of a request to the end of its headers.
    pub header_timeout: Duration,
    /// From the end of the headers to the end of the body.
    pub body_timeout: Duration,
    /// Longest gap between two pieces of a body.
    pub stall_timeout: Duration,
    /// How long a connection may rest between two requests.
    pub idle_timeout: Duration,
    /// How long connections to a socket that a service manager has opened wait for required models at
    /// the start.
    pub activation_wait: Duration,
    pub repository_control: RepositoryControl,
}

/// Where metrics and the status page are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Port 0 lets the system choose; `None` serves neither.
    pub listen: Option<SocketAddr>,
    pub max_connections: u32,
}

/// Who may load and unload models over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepositoryControl {
    /// Everyone who reaches the listener, if that is bound to a loopback address; otherwise no one.
    Loopback,
    Allowed,
    Denied,
}

impl RepositoryControl {
    /// Whether a listener that is bound to `bound` may load and unload models.
    pub fn allows(self, bound: SocketAddr) -> bool {
        match self {
            Self::Loopback => bound.ip().to_canonical().is_loopback(),
            Self::Allowed => true,
            Self::Denied => false,
        }
    }
}

/// Where operators are heard, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// `None`: nowhere.
    pub socket: Option<PathBuf>,
    /// A group whose members may, beside root and the server's own user.
    pub group: Option<String>,
    /// Where changing commands are written down, beside the log.
    pub audit_log: Option<PathBuf>,
    pub max_connections: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one request's body as it arrives.
    pub max_body: usize,
    /// Bytes of one request's body after it was decompressed.
    pub max_decompressed: usize,
    /// Bytes of all outputs of one reply.
    pub max_reply: usize,
    /// Bytes of all bodies together that wait outside a slot for their rest.
    pub buffer_memory: usize,
    /// Pieces of one chunked body.
    pub max_chunks: u32,
    pub max_json_depth: u16,
    pub max_models: u32,
    pub max_workers: u32,
    /// Bytes of the request and response slots of all workers together.
    pub arena_memory: usize,
    /// Threads of the supervisor's runtime; `None` is one per core.
    pub threads: Option<u16>,
    pub cgroup: Cgroup,
}

/// Where control groups for workers may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cgroup {
    /// Wherever this process may.
    Auto,
    /// Nowhere.
    Off,
    /// Below this folder of a cgroup file system.
    Path(PathBuf),
}

/// What is asked of the machine's accelerators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices {
    pub nvml: NvmlLibrary,
    /// From one question about all devices to the next.
    pub poll_interval: Duration,
    /// After so long without an answer the driver counts as silent.
    pub answer_timeout: Duration,
    /// Bytes of each device that no worker is granted.
    pub headroom: usize,
    /// How long a worker that has ended may still be seen on a device before that is suspect.
    pub release_timeout: Duration,
    /// Where it is kept what models were seen to need.
    pub measured: PathBuf,
}

/// Where NVIDIA's management library is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NvmlLibrary {
    /// Where the driver puts it.
    Auto,
    /// It is not looked for; there are no GPUs.
    Off,
    Path(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Folders of model folders, absolute; the order says nothing.
    pub paths: Vec<PathBuf>,
    pub startup: Startup,
    pub required: Required,
    /// How long a service manager waits for them before it is told that the server has started;
    /// `None`: for ever.
    pub required_timeout: Option<Duration>,
    pub symlinks: Symlinks,
}

/// Which models are loaded when the server starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Startup {
    All,
    None,
    Listed(BTreeSet<ModelName>),
}

impl Startup {
    pub fn includes(&self, name: &ModelName) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Listed(names) => names.contains(name),
        }
    }
}

/// Which models must be ready before the server says that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Required {
    /// Each model that `startup` loads.
    Startup,
    Listed(BTreeSet<ModelName>),
}

/// What a symbolic link in a repository may point to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symlinks {
    /// Only what is inside the same repository.
    Inside,
    /// Anything.
    Follow,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// From the signal, which ends readiness, to the end of new connections.
    pub grace: Duration,
    /// How long requests may take to finish after that.
    pub drain_timeout: Duration,
}

/// What holds for one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelSettings {
    pub enabled: Enabled,
    pub worker: WorkerSettings,
    pub restart: RestartSettings,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enabled {
    #[default]
    Yes,
    /// Listed as unavailable; it cannot be loaded.
    No,
}

/// How the workers of one model run.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerSettings {
    /// Workers per version; `None` takes the counts of `instance_group` in `config.pbtxt`, or 1.
    pub instances: Option<u16>,
    /// Threads that one inference may use.
    pub threads: u16,
    /// Requests that one worker can hold at a time.
    pub slots: u16,
    pub slot_size: SlotSize,
    /// Requests that may wait for a slot of this model; more are refused.
    pub queue: u32,
    /// For a model to be loaded and warm, from the handshake on.
    pub load_timeout: Duration,
    /// From admission to reply.
    pub infer_timeout: Duration,
    /// How long an unload waits for requests in flight.
    pub drain_timeout: Duration,
    /// From the signal that asks a worker to exit to the one that does not ask.
    pub stop_timeout: Duration,
    /// From the start of a process to its first sign of life.
    pub handshake_timeout: Duration,
    /// How long a model may go without a request before its workers end; the next request brings
    /// one back. `None`: for ever.
    pub idle_timeout: Option<Duration>,
    pub start: Start,
    pub confinement: Confinement,
    pub host: HostLimits,
    pub gpu: GpuLimits,
    pub poison: PoisonSettings,
    /// Lines of a worker's output that are forwarded each second; what is more is counted.
    pub log_lines_per_second: u32,
    /// Longest line that is forwarded whole.
    pub log_line_bytes: usize,
    /// Last lines that are kept for the report of an exit.
    pub log_tail_lines: u16,
}

/// How a worker process comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// As a copy of a process that has the framework loaded; by `Exec` where there is none.
    Zygote,
    /// As a program of its own.
    Exec,
}

/// What a worker gives up before it reads a byte of its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confinement {
    None,
    Standard,
    /// `Standard`, in namespaces of its own.
    Strict,
}

/// What one worker may use of the machine.
#[derive(Clone, Debug, PartialEq)]
pub struct HostLimits {
    /// Bytes of memory; `None` is no limit.
    pub memory: Option<usize>,
    /// Cores; `None` is no limit.
    pub cpu: Option<f64>,
    /// The share of the processors when they are short, against the weights of others.
    pub cpu_weight: u16,
    /// Processes and threads.
    pub max_processes: u32,
    /// Open files.
    pub max_descriptors: u32,
    /// Bytes in its scratch folder; `None` is no limit.
    pub scratch: Option<usize>,
}

/// What one worker may use of a GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GpuLimits {
    /// Bytes on each of its devices. What the model was measured to need takes its place if that is
    /// less.
    pub memory: usize,
    /// The part of it beyond which a worker is told to give back what it only keeps.
    pub soft: f64,
    pub segments: Segments,
    /// Devices of an instance that spreads itself (`KIND_MODEL`) and names none; 0 is the CPU.
    pub spread: u16,
}

/// How a worker takes memory from a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segments {
    Fixed,
    Expandable,
}

/// When a request that ends its workers is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoisonSettings {
    /// Workers that the same request must have ended; 0 never refuses any.
    pub after: u32,
    /// How long such a request is refused for.
    pub ttl: Duration,
}

/// Bytes of a slot's data area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotSize {
    /// From the shapes in `config.pbtxt` (see `repository::geometry`).
    Auto,
    Bytes(usize),
}

/// When a worker that exited is started again.
#[derive(Clone, Debug, PartialEq)]
pub struct RestartSettings {
    /// Restarts within `window` before the model is quarantined; 0 quarantines at the first exit.
    pub max_restarts: u32,
    pub window: Duration,
    pub backoff: Backoff,
    /// After this long without an exit the next one restarts at once, as if it were the first.
    pub reset_after: Duration,
    /// Ends after which the model is quarantined at once.
    pub no_retry_on: Vec<ExitPattern>,
    pub on_oom: OnOom,
}

/// What follows the end of a worker for want of memory, of the host or of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOom {
    /// As any other end.
    Restart,
    /// The largest batch that the version accepts is halved.
    RestartWithSmallerBatch,
    /// The model is quarantined.
    Stop,
}

/// How long to wait before a restart: `initial`, then `factor` times longer each time, up to `max`.
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    pub initial: Duration,
    pub factor: f64,
    pub max: Duration,
    /// Part of the wait that is drawn at random, 0 to 1.
    pub jitter: f64,
}
