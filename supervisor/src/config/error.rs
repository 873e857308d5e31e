//! What can be wrong with a configuration.

use std::fmt;
use std::path::PathBuf;

/// Everything that is wrong with one configuration; never empty.
#[derive(Debug)]
pub struct ConfigErrors {
    /// The file, if there was one.
    pub file: Option<PathBuf>,
    pub errors: Vec<ConfigError>,
}

impl std::error::Error for ConfigErrors {}

/// One line an error, with its causes, so that a caller needs no loop of its own.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "bad configuration in {}", file.display())?,
            None => f.write_str("bad configuration")?,
        }
        for error in &self.errors {
            write!(f, "\n  {error}")?;
            let mut cause = std::error::Error::source(error);
            while let Some(source) = cause {
                write!(f, ": {}", source.to_string().trim_end().replace('\n', "\n    "))?;
                cause = source.source();
            }
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the file cannot be read")]
    Read(#[source] std::io::Error),
    #[error("the file has more than {0} bytes")]
    TooLarge(u64),
    #[error("the file is not valid TOML")]
    Syntax(#[source] toml::de::Error),
    #[error("the file does not have the shape of a configuration")]
    Shape(#[source] toml::de::Error),
    #[error("--set {text}: {reason}")]
    Override { text: String, reason: &'static str },
    #[error("{key} is not a key{}", .nearest.as_ref().map(|n| format!("; did you mean {n}?")).unwrap_or_default())]
    UnknownKey { key: String, nearest: Option<String> },
    #[error("{key} = {value}: expected {expected}")]
    Value { key: String, value: String, expected: String },
    #[error("{key} = {value}: {reason}")]
    Conflict { key: String, value: String, reason: String },
}
