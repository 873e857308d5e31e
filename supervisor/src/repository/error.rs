//! What can be wrong with a model on disk, and with a repository.

use std::io;
use std::path::PathBuf;

use shared::id::ModelName;

use super::look::NotRead;
use super::pbtxt::PbtxtError;
use super::support::Refusals;

/// Why a `config.pbtxt` is not that of a model that can be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error(transparent)]
    Text(#[from] PbtxtError),
    #[error("unsupported: {0}")]
    Unsupported(Refusals),
    #[error("the name in the file is {given:?}, that of the folder is {folder}")]
    Name { given: String, folder: ModelName },
    #[error(
        "no engine for {field} {given:?}: supported are platform \"pytorch_libtorch\" and \
         backend \"pytorch\" or \"echo\""
    )]
    Engine { field: &'static str, given: String },
    #[error("platform {platform:?} and backend {backend:?} are different engines")]
    Engines { platform: String, backend: String },
    #[error(
        "neither platform nor backend is set, and no version has a model.pt to learn the engine \
         from"
    )]
    NoEngine,
    /// A value that is of the right type and still wrong.
    #[error("{field}: {reason}")]
    Field { field: String, reason: String },
}

impl ManifestError {
    pub(super) fn field(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Field { field: field.into(), reason: reason.into() }
    }
}

/// Why a model is not available, as far as its folder says.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error("no repository holds a model of this name")]
    NotFound,
    #[error("config.pbtxt is not that of a model that can be served")]
    Manifest(#[source] ManifestError),
    #[error("it has no config.pbtxt, and no version of it has a model.pt to learn from")]
    NoConfig,
    #[error("config.pbtxt cannot be read")]
    ReadConfig(#[source] io::Error),
    #[error("config.pbtxt has more than {0} bytes")]
    ConfigTooLarge(u64),
    #[error("config.pbtxt is not a regular file")]
    ConfigNotAFile,
    #[error("config.pbtxt is not UTF-8")]
    ConfigNotText,
    #[error("its folder cannot be read")]
    List(#[source] io::Error),
    #[error("its folder has more than {0} entries")]
    TooManyEntries(usize),
    #[error("{} leaves the repository through a symbolic link", .0.display())]
    Escapes(PathBuf),
    #[error("more than one repository holds it: {}", show_paths(.0))]
    Duplicate(Vec<PathBuf>),
    #[error("{0}")]
    NotRead(#[from] NotRead),
}

impl ScanError {
    /// The error and its causes in one line, as the repository index shows it.
    pub fn reason(&self) -> String {
        match self {
            Self::Manifest(source) => format!("config.pbtxt: {source}"),
            Self::ReadConfig(source) | Self::List(source) => format!("{self}: {source}"),
            Self::NotFound
            | Self::NoConfig
            | Self::ConfigTooLarge(_)
            | Self::ConfigNotAFile
            | Self::ConfigNotText
            | Self::TooManyEntries(_)
            | Self::Escapes(_)
            | Self::Duplicate(_)
            | Self::NotRead(_) => self.to_string(),
        }
    }
}

/// What is wrong with a repository rather than with one of its models.
#[derive(Debug, thiserror::Error)]
pub enum ScanProblem {
    #[error("the repository {} cannot be read", .path.display())]
    Repository { path: PathBuf, source: io::Error },
    #[error("the repository {} has more than {limit} entries", .path.display())]
    TooManyEntries { path: PathBuf, limit: usize },
    #[error("{} is not a model: {reason}", .path.display())]
    Name { path: PathBuf, reason: String },
    #[error("{count} models are left out, because limits.max_models is {limit}")]
    TooManyModels { count: usize, limit: usize },
}

fn show_paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
