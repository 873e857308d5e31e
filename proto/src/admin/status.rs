//! What operators are shown of a server: by the admin socket, by the status page, by metrics.
//!
//! Sizes are bytes, times are milliseconds, moments are milliseconds since 1970 in UTC. What is not known
//! is `null`, never 0.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The server and all that it has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub server: Server,
    /// By name.
    pub models: Vec<Model>,
    pub devices: Devices,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Server {
    pub version: String,
    pub pid: u32,
    pub started_at: u64,
    pub state: ServerState,
    /// Required models that are not ready.
    pub waits_for: Vec<String>,
    /// Where it listens, by what is spoken there, as `http` and `metrics`.
    pub listens: BTreeMap<String, String>,
    /// Resident memory of the supervisor.
    pub memory: Option<u64>,
    pub zygotes: Vec<Zygote>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerState {
    /// Its models are not ready yet.
    #[default]
    Starting,
    Ready,
    /// It was ready, and a required model is not.
    NotReady,
    Draining,
}

/// A process that makes workers by copying itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zygote {
    /// The worker program, without its folder.
    pub program: String,
    /// `starting`, `ready` or `down`.
    pub state: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    pub name: String,
    pub enabled: bool,
    /// Why no version of it is listed, or something of it does not serve; empty if there is nothing to say.
    pub problem: String,
    pub versions: Vec<Version>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    pub version: u64,
    /// As the repository index says it: `READY`, `LOADING`, `UNLOADING` or `UNAVAILABLE`.
    pub state: String,
    pub reason: String,
    /// As `pytorch_libtorch`.
    pub platform: String,
    pub instances: Vec<Instance>,
    /// `None` as long as nothing can be asked of it.
    pub traffic: Option<Traffic>,
}

/// What has been asked of a version since the server started, and in the last minute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    pub succeeded: u64,
    /// By reason, as metrics name them.
    pub failed: BTreeMap<String, u64>,
    /// Requests a second, of the last minute.
    pub rate: f64,
    /// Failed ones a second, of the last minute.
    pub failures: f64,
    /// Of the last minute, from admission to reply, in microseconds; `None` if there was none.
    pub p50_us: Option<u64>,
    pub p99_us: Option<u64>,
    /// Requests that wait for a slot now, and that have one.
    pub waiting: u64,
    pub in_flight: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    pub index: u16,
    /// As `ready`, `starting`, `backoff`, `quarantined`.
    pub state: String,
    /// Empty if there is nothing to say.
    pub reason: String,
    pub worker: Option<Worker>,
    /// Of the newest worker that loaded.
    pub loaded: Option<Loaded>,
    /// How often its workers ended, by kind.
    pub exits: BTreeMap<String, u64>,
    pub last_exit: Option<Exit>,
}

/// The process that is there now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    pub pid: i32,
    pub generation: u64,
    pub started_at: u64,
    /// What would come free if it ended; looked at now and then.
    pub private_memory: Option<u64>,
    pub memory_limit: Option<u64>,
    /// What the limit is held against, where the kernel does not hold it itself.
    pub memory_used: Option<u64>,
    /// What holds each of its limits, by name: `memory`, `cpu`, `processes`, `tree`, `scratch`.
    pub limits: BTreeMap<String, String>,
    pub confinement: Vec<Measure>,
    /// `None` on the CPU.
    pub device: Option<OnDevice>,
}

/// One measure of a confinement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    pub name: String,
    pub holds: bool,
    /// How far it holds, or why it does not.
    pub detail: String,
}

/// A worker's share of one device or of several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnDevice {
    /// Their ids.
    pub devices: Vec<String>,
    /// On each.
    pub quota: u64,
    /// On the fullest, at the last look; `None` if that cannot be told.
    pub used: Option<u64>,
    /// `hard`, `allocator`, `watchdog` or `none`.
    pub enforcement: String,
    /// Why the driver itself does not hold it, if it does not.
    pub not_hard: Option<String>,
    /// Looks that showed nothing certain.
    pub blind: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    pub load_ms: u64,
    pub warmup_ms: u64,
    /// As `libtorch 2.11.0`.
    pub build: String,
}

/// One end of one worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub at: u64,
    pub generation: u64,
    /// As `hang` or `SIGSEGV`.
    pub kind: String,
    pub summary: String,
    /// The state in which it was seen.
    pub during: String,
    /// How long the process lived, and how long of that it served.
    pub alive_ms: u64,
    pub healthy_ms: u64,
    /// Requests that it had and did not answer.
    pub in_flight: usize,
    /// What they are known by, in hexadecimal digits, as far as they are.
    pub fingerprints: Vec<String>,
    /// The last lines of its output.
    pub lines: Vec<String>,
}

/// All devices, and whether anybody can say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Devices {
    /// Its version, or why there is nothing to ask, or that it is silent.
    pub driver: String,
    pub devices: Vec<Device>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    pub id: String,
    pub index: u16,
    pub name: String,
    /// The device that it is a slice of.
    pub slice_of: Option<String>,
    /// Why it is lost; `None` if it can be used.
    pub lost: Option<String>,
    pub total: Option<u64>,
    pub used: Option<u64>,
    /// What workers were granted, and what can be granted at all.
    pub granted: u64,
    pub grantable: u64,
    /// An ended worker's memory has not come back: nothing is placed there.
    pub suspect: bool,
    pub busy_percent: Option<u8>,
    /// Why it cannot be told who uses it.
    pub blind: Option<String>,
}
