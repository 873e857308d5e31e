//! Model repositories: which models there are on disk and what each says of itself.
//!
//! Triton's layout: `<repository>/<model>/config.pbtxt` and `<repository>/<model>/<version>/<file>`.
//! [`Scanner`] lists the folders; `pbtxt` reads the text format against the real message
//! definition; [`support`] says of each field whether it is honoured, warned of or refused;
//! `convert` makes the checked [`Manifest`]; [`select`](select()) chooses versions and [`Geometry`]
//! sizes slots.
//!
//! It loads nothing and reads no model file. Invariants: one bad model never hides another; no
//! field of a `config.pbtxt` is ignored in silence; nothing outside a repository is opened unless
//! symbolic links may be followed.

mod convert;
mod error;
pub mod folder;
pub mod geometry;
mod look;
pub mod manifest;
mod pbtxt;
pub mod scan;
pub mod select;
pub mod support;
mod tensors;
#[cfg(test)]
mod tests;

pub use convert::{ModelFile, read_manifest};
pub use error::{ManifestError, ScanError, ScanProblem};
pub use folder::{ModelFolder, VersionFolder, VersionProblem};
pub use geometry::Geometry;
pub use look::{NotRead, on_disk};
pub use manifest::{
    DynamicBatching, EngineKind, InstanceGroup, InstanceKind, Manifest, QueuePolicy, Seat, Tensor,
    TimeoutAction, VersionPolicy, View, Warning,
};
pub use pbtxt::PbtxtError;
pub use scan::{Scan, Scanner};
pub use select::{Selection, select};
