//! Model repositories: which models there are on disk and what each says of itself.

pub mod folder;
pub mod manifest;

pub use folder::{ModelFolder, VersionFolder, VersionProblem};
pub use manifest::{
    DynamicBatching, EngineKind, InstanceGroup, InstanceKind, Manifest, QueuePolicy, Tensor,
    TimeoutAction, VersionPolicy, View, Warning,
};
