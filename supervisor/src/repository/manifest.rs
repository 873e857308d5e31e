//! What a model says of itself, checked: the content of a `config.pbtxt` in our own types.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use shared::id::ModelVersion;
use shared::tensor::{DataType, TensorSpec};

/// A checked `config.pbtxt`, or what is known of a model that has none.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    pub engine: EngineKind,
    /// As clients see it in the model's metadata.
    pub platform: String,
    /// The model file in a version's folder; `None` for engines without one.
    pub filename: Option<String>,
    /// 0: no batches. Otherwise each tensor has a batch dimension in front.
    pub max_batch_size: u32,
    /// In the order of the file; empty if it named none.
    pub inputs: Vec<Tensor>,
    pub outputs: Vec<Tensor>,
    /// Never empty.
    pub instance_groups: Vec<InstanceGroup>,
    pub version_policy: VersionPolicy,
    pub dynamic_batching: Option<DynamicBatching>,
    /// For the engine, and our own additions.
    pub parameters: BTreeMap<String, String>,
    /// Fields that are read but do not have their full effect.
    pub warnings: Vec<Warning>,
}

/// What runs the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EngineKind {
    /// TorchScript through libtorch.
    Torch,
    /// No framework: outputs are inputs, with faults on demand.
    Echo,
}

impl EngineKind {
    /// Name of the `backend` in `config.pbtxt`.
    pub fn backend(self) -> &'static str {
        match self {
            Self::Torch => "pytorch",
            Self::Echo => "echo",
        }
    }

    /// Name of the `platform` in the metadata of a model whose file gives none.
    pub fn platform(self) -> &'static str {
        match self {
            Self::Torch => "pytorch_libtorch",
            Self::Echo => "echo",
        }
    }

    /// The model file, unless `default_model_filename` names another.
    pub fn default_filename(self) -> Option<&'static str> {
        match self {
            Self::Torch => Some("model.pt"),
            Self::Echo => None,
        }
    }
}

/// One input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    pub name: String,
    /// `None` where the file leaves it to be learned from the first run.
    pub dtype: Option<DataType>,
    /// As clients send it, without the batch dimension; -1 is any size. `None` as above.
    pub dims: Option<Vec<i64>>,
    /// As the model takes it, where that differs from `dims`; may be empty (a scalar).
    pub reshape: Option<Vec<i64>>,
    pub optional: bool,
    pub label_filename: Option<String>,
}

/// From which side a tensor's shape is seen; they differ where the file has a `reshape`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    Client,
    Model,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceGroup {
    pub name: String,
    pub kind: InstanceKind,
    /// At least 1; on a GPU, on each of `gpus`.
    pub count: u16,
    /// Ordinals of devices; empty is all.
    pub gpus: Vec<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceKind {
    /// A GPU if there is one, else the CPU.
    Auto,
    Gpu,
    Cpu,
    /// The model chooses.
    Model,
}

/// What one instance runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    pub kind: InstanceKind,
    /// The devices that it runs on, by number, if the group names any: one, unless the model spreads
    /// itself over all of them.
    pub gpus: Vec<u16>,
}

/// Which of the versions on disk are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionPolicy {
    /// The highest so many; at least 1.
    Latest(u32),
    All,
    Specific(BTreeSet<ModelVersion>),
}

/// How requests are gathered into batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamicBatching {
    /// Each within `1..=max_batch_size`, ascending.
    pub preferred_batch_sizes: BTreeSet<u32>,
    pub max_queue_delay: Duration,
    pub preserve_ordering: bool,
    /// 0: no priorities. Otherwise 1 is the most urgent.
    pub priority_levels: u64,
    pub default_priority_level: u64,
    pub default_queue_policy: QueuePolicy,
    pub priority_queue_policies: BTreeMap<u64, QueuePolicy>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueuePolicy {
    pub timeout_action: TimeoutAction,
    /// Zero: none.
    pub default_timeout: Duration,
    pub allow_timeout_override: bool,
    /// 0: no limit.
    pub max_queue_size: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeoutAction {
    #[default]
    Reject,
    Delay,
}

/// A field that a file sets and that is not, or not wholly, honoured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// Dotted, as `optimization.cuda`.
    pub field: String,
    pub reason: &'static str,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

impl Manifest {
    pub fn input_specs(&self, view: View) -> Vec<TensorSpec> {
        self.specs(&self.inputs, view)
    }

    pub fn output_specs(&self, view: View) -> Vec<TensorSpec> {
        self.specs(&self.outputs, view)
    }

    /// Where the instances of one version run, by index: as many as `instances` says, taken in turn
    /// from the groups, or else one for each that the groups ask for. Never empty.
    pub fn seats(&self, instances: Option<u16>) -> Vec<Seat> {
        let seats = self.instance_groups.iter().flat_map(InstanceGroup::seats);
        match instances {
            None => seats.collect(),
            Some(count) => {
                let all: Vec<Seat> = seats.collect();
                all.iter().cloned().cycle().take(count.into()).collect()
            }
        }
    }

    fn specs(&self, tensors: &[Tensor], view: View) -> Vec<TensorSpec> {
        let spec = |tensor: &Tensor| TensorSpec {
            name: tensor.name.clone(),
            dtype: tensor.dtype,
            dims: tensor.dims(view).map(|dims| self.with_batch(dims)),
            optional: tensor.optional,
        };
        tensors.iter().map(spec).collect()
    }

    fn with_batch(&self, dims: &[i64]) -> Vec<i64> {
        let batch = (self.max_batch_size > 0).then_some(-1);
        batch.into_iter().chain(dims.iter().copied()).collect()
    }
}

impl InstanceGroup {
    /// One for each instance; a group that names GPUs has `count` on each, or, if the model spreads itself,
    /// `count` on all of them.
    pub(super) fn seats(&self) -> impl Iterator<Item = Seat> + '_ {
        let kind = self.kind;
        let places: Vec<Vec<u16>> = match (kind, self.gpus.is_empty()) {
            (_, true) => vec![Vec::new()],
            (InstanceKind::Model, false) => vec![self.gpus.clone()],
            (InstanceKind::Auto | InstanceKind::Gpu | InstanceKind::Cpu, false) => {
                self.gpus.iter().map(|&gpu| vec![gpu]).collect()
            }
        };
        places.into_iter().flat_map(move |gpus| {
            let seat = Seat { kind, gpus };
            std::iter::repeat_n(seat, self.count.into())
        })
    }
}

impl Tensor {
    /// The shape without the batch dimension.
    pub fn dims(&self, view: View) -> Option<&[i64]> {
        match view {
            View::Client => self.dims.as_deref(),
            View::Model => self.reshape.as_deref().or(self.dims.as_deref()),
        }
    }
}
