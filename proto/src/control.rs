//! Commands down, facts up, and the handshake before them.
//!
//! Down: [`Hello`] is the first packet on the control socket and carries the two memory objects;
//! [`Command`]s follow over ipc-channel, never more than one unacknowledged, so that a send cannot
//! block; a [`Handover`] on the control socket precedes a request that has memory of its own. Up: [`Fact`]s are packets of more than one byte; a packet of one byte is the doorbell.
//! The supervisor believes nothing in a fact without a check.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ipc_channel::ipc::IpcSender;
use serde::{Deserialize, Serialize};
use shared::id::WorkerId;
use shared::tensor::TensorSpec;

/// Both sides must have been built from the same protocol.
pub const HANDSHAKE_VERSION: u32 = 4;

/// First packet on the control socket, supervisor to worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    pub version: u32,
    pub worker: WorkerId,
    /// Repeated in [`Attach`], so that a stray connection is not taken for this worker's.
    pub nonce: u64,
    /// Name of the one-shot server that waits for [`Attach`].
    pub command_server: String,
    pub confinement: Confinement,
}

/// What a worker gives up before it reads a byte of its model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    pub level: Level,
    /// The only folder that the worker may write to, absolute.
    pub scratch: PathBuf,
    /// Bytes of private memory that the worker asks its own kernel limits for; `None` if nothing
    /// is to be limited, or something better holds.
    pub data_limit: Option<u64>,
    pub max_descriptors: u32,
    pub max_processes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    None,
    Standard,
    /// `Standard`, in namespaces of its own.
    Strict,
}

/// The worker's answer to [`Hello`] and the only message that the supervisor takes from an
/// ipc-channel: the worker sends it before it has read a model byte.
#[derive(Debug, Serialize, Deserialize)]
pub struct Attach {
    pub nonce: u64,
    pub commands: IpcSender<Command>,
}

/// A command, supervisor to worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Command {
    Load(LoadSpec),
    /// Give memory that is only kept for later back to the device, between two requests.
    Trim,
    /// Finish what has been published, then exit 0.
    Shutdown,
}

/// Everything a worker needs to load its model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadSpec {
    /// Which engine runs the model, as in `backend: "echo"`.
    pub engine: String,
    /// The version's folder, absolute.
    pub folder: PathBuf,
    /// The model file inside `folder`; engines without a file ignore it.
    pub filename: String,
    pub device: Device,
    /// What holds for the memory of each of its devices; `None` on the CPU.
    pub device_memory: Option<DeviceMemory>,
    /// Threads that one inference may use; at least 1.
    pub threads: u16,
    /// 0: the model does not batch. Otherwise dimension 0 of every tensor is the batch.
    pub max_batch_size: u32,
    /// In the order of `config.pbtxt`; empty if it named none.
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    /// The `parameters` of `config.pbtxt`.
    pub parameters: BTreeMap<String, String>,
}

/// Where a model runs. A worker sees no device but its own (`CUDA_VISIBLE_DEVICES`), so that these
/// are not the numbers of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Device {
    Cpu,
    /// CUDA ordinal.
    Cuda(u16),
    /// The model spreads itself over so many CUDA devices, from ordinal 0 on.
    Spread(u16),
}

/// Bounds for the memory that a worker may have on each of its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMemory {
    /// Bytes that the whole process may have, its context included.
    pub quota: u64,
    pub segments: Segments,
}

/// How the engine's allocator takes memory from a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Segments {
    Fixed,
    /// Ranges that grow in place, which leaves fewer holes.
    Expandable,
}

/// Supervisor to worker on the control socket, with one descriptor: the sealed memory object that
/// holds the inputs of `request`. It is sent before the request is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    pub request: u64,
}

/// A fact, worker to supervisor. Hostile input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Fact {
    /// What came of [`Hello::confinement`]; sent once, by our own code, before the model is read.
    Confined(Vec<Measure>),
    Loaded(Loaded),
    /// The model cannot be loaded; the worker exits after this. It is not sent where the exit says more:
    /// [`WorkerExit::DeviceOutOfMemory`], [`WorkerExit::DeviceFault`].
    LoadFailed {
        message: String,
        /// A repeat would fail alike (bad file, bad configuration).
        permanent: bool,
    },
    /// What [`Command::Trim`] asked for has been done; it is not sent again before this.
    Trimmed {
        /// How many of them this worker has done. Without it this would be a packet of one byte, which
        /// is a doorbell.
        count: u32,
    },
    /// Announces the file descriptor that comes with this packet: the memory object that holds the
    /// outputs of `request`, because they did not fit its slot.
    LargeOutput {
        request: u64,
    },
}

/// One measure of a confinement and whether it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    /// As `landlock` or `seccomp`.
    pub name: String,
    pub outcome: Taken,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Taken {
    /// It holds; the text says how far, as `ABI 7`, or is empty.
    Holds(String),
    /// The kernel, or this user, cannot; why.
    Missing(String),
}

/// What a worker learned while loading.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Loaded {
    /// The tensors in the order in which slots index them. What `config.pbtxt` gave is unchanged;
    /// the rest comes from the file and the warm-up.
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    pub load_nanos: u64,
    pub warmup_nanos: u64,
    /// Peak resident memory after warm-up, bytes.
    pub peak_rss: u64,
    /// What runs the model, with its version, as `libtorch 2.11.0`; at most [`MAX_BUILD_BYTES`].
    pub build: String,
    /// `None` on the CPU.
    pub on_device: Option<OnDevice>,
}

/// Of [`Loaded::build`].
pub const MAX_BUILD_BYTES: usize = 64;

/// What a worker learned of its device, or of the fullest of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnDevice {
    /// Bytes that the engine's allocator never goes beyond; `None` if it could not be told to.
    pub allocator_limit: Option<u64>,
    /// Most bytes that the allocator held at once, from the load to the end of the warm-up.
    pub peak: u64,
    pub warmup: WarmupExtent,
}

/// What a peak stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WarmupExtent {
    /// The largest request that the model takes was run.
    Largest,
    /// Requests may be larger: a dimension is open, or no warm-up was possible.
    Partial,
}

/// The exit codes of a worker. Any other code, and death by a signal, is a crash.
///
/// When the supervisor has gone, a worker ends by SIGKILL to itself; a panic in it ends by SIGABRT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum WorkerExit {
    /// Told to shut down, and everything that had been published was answered.
    Clean = 0,
    /// The process was started in a wrong way: arguments, descriptors, parent.
    BadStart = 2,
    /// The handshake failed: no [`Hello`] in time, another version, memory that cannot be mapped.
    Handshake = 3,
    /// No [`Command::Load`] came in time, or another command came first.
    NoLoad = 4,
    /// [`Fact::LoadFailed`] was sent before.
    LoadFailed = 5,
    /// The control socket or the memory objects failed while serving.
    Transport = 6,
    /// The model does not fit the memory of its device, or that has no memory any more for requests that
    /// it had memory for before; a smaller batch may fit.
    DeviceOutOfMemory = 7,
    /// The device refuses this process from now on (a sticky error of CUDA): whatever it is asked
    /// would fail, in a new process it may not. What had been published is not answered.
    DeviceFault = 8,
}

impl WorkerExit {
    pub const ALL: [Self; 8] = [
        Self::Clean,
        Self::BadStart,
        Self::Handshake,
        Self::NoLoad,
        Self::LoadFailed,
        Self::Transport,
        Self::DeviceOutOfMemory,
        Self::DeviceFault,
    ];

    pub fn code(self) -> u8 {
        self as u8
    }

    /// Reads the exit status of a process.
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| i32::from(exit.code()) == code)
    }
}
