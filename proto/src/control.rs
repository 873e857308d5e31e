//! Commands down, facts up, and the handshake before them.
//!
//! Down: [`Hello`] is the first packet on the control socket and carries the two memory objects;
//! [`Command`]s follow over ipc-channel, never more than one unacknowledged, so that a send cannot
//! block. Up: [`Fact`]s are packets of more than one byte; a packet of one byte is the doorbell.
//! The supervisor believes nothing in a fact without a check.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shared::id::WorkerId;
use shared::tensor::TensorSpec;

/// Both sides must have been built from the same protocol.
pub const HANDSHAKE_VERSION: u32 = 1;

/// First packet on the control socket, supervisor to worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    pub version: u32,
    pub worker: WorkerId,
    /// Repeated in [`Attach`], so that a stray connection is not taken for this worker's.
    pub nonce: u64,
    /// Name of the one-shot server that waits for [`Attach`].
    pub command_server: String,
}

/// A command, supervisor to worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Command {
    Load(LoadSpec),
    /// Finish what has been published, then exit 0.
    Shutdown,
}

/// Everything a worker needs to load its model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadSpec {
    /// The version's folder, absolute.
    pub folder: PathBuf,
    /// The model file inside `folder`; engines without a file ignore it.
    pub filename: String,
    pub device: Device,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Device {
    Cpu,
    /// CUDA ordinal.
    Cuda(u16),
}

/// A fact, worker to supervisor. Hostile input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Fact {
    Loaded(Loaded),
    /// The model cannot be loaded; the worker exits after this.
    LoadFailed {
        message: String,
        /// A repeat would fail alike (bad file, bad configuration).
        permanent: bool,
    },
    /// Announces the file descriptor that comes with this packet: the memory object that holds the
    /// outputs of `request`, because they did not fit its slot.
    LargeOutput {
        request: u64,
    },
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
}
