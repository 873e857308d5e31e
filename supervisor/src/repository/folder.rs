//! One model on disk: its folder, its manifest, its versions.

use std::path::PathBuf;

use shared::id::{ModelName, ModelVersion};

use super::manifest::Manifest;

/// A model whose configuration is sound.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFolder {
    pub name: ModelName,
    /// Absolute.
    pub path: PathBuf,
    pub manifest: Manifest,
    /// All versions on disk, ascending; which of them to load is for [`super::select()`] to say.
    pub versions: Vec<VersionFolder>,
}

/// One version on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionFolder {
    pub version: ModelVersion,
    /// Absolute.
    pub path: PathBuf,
    /// Why it cannot be loaded, as far as can be seen without reading the model.
    pub problem: Option<VersionProblem>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionProblem {
    #[error("the folder of version {version} has no file {filename}")]
    NoFile { version: ModelVersion, filename: String },
    #[error("{filename} of version {version} is not a regular file")]
    NotAFile { version: ModelVersion, filename: String },
    #[error("{} leaves the repository through a symbolic link", .0.display())]
    Escapes(PathBuf),
}

impl ModelFolder {
    pub fn version(&self, version: ModelVersion) -> Option<&VersionFolder> {
        self.versions.iter().find(|folder| folder.version == version)
    }
}
