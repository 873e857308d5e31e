//! Names and numbers that identify things across processes.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::MAX_MODEL_NAME_BYTES;

/// The name of a model: also a folder name, a URL segment and a process title.
///
/// 1 to [`MAX_MODEL_NAME_BYTES`] bytes of ASCII letters, digits and `. _ - + @ ~ =`, not starting
/// with `.` or `-`. So it can be joined to a path, put in a URL or given as an argument as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ModelName(Arc<str>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidModelName {
    #[error("a model name must have 1 to {MAX_MODEL_NAME_BYTES} bytes, this one has {0}")]
    Length(usize),
    #[error("a model name must not start with {0:?}")]
    Start(char),
    #[error("a model name may hold ASCII letters, digits and . _ - + @ ~ = only, not {0:?}")]
    Character(char),
}

impl ModelName {
    pub fn new(name: &str) -> Result<Self, InvalidModelName> {
        if name.is_empty() || name.len() > MAX_MODEL_NAME_BYTES {
            return Err(InvalidModelName::Length(name.len()));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-+@~=".contains(c);
        if let Some(c) = name.chars().find(|&c| !allowed(c)) {
            return Err(InvalidModelName::Character(c));
        }
        match name.chars().next() {
            Some(c @ ('.' | '-')) => Err(InvalidModelName::Start(c)),
            Some(_) | None => Ok(Self(name.into())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for ModelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for ModelName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::new(&name).map_err(serde::de::Error::custom)
    }
}

/// A version of a model: the name of its folder, a positive decimal number without leading zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ModelVersion(u64);

impl ModelVersion {
    /// Reads a folder name or a URL segment; anything but `[1-9][0-9]*` within 63 bits is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        if !digits || text.starts_with('0') {
            return None;
        }
        text.parse().ok().and_then(Self::new)
    }

    pub fn new(number: u64) -> Option<Self> {
        (number > 0 && i64::try_from(number).is_ok()).then_some(Self(number))
    }

    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ModelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts the processes that one instance has had. A message, a ring or an exit of an older
/// generation must change nothing.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Generation(pub u64);

impl Generation {
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One place in which a model version runs; it outlives the processes that fill it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InstanceId {
    pub model: ModelName,
    pub version: ModelVersion,
    pub index: u16,
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}#{}", self.model, self.version, self.index)
    }
}

/// One worker process: an instance and which of its processes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkerId {
    pub instance: InstanceId,
    pub generation: Generation,
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} gen {}", self.instance, self.generation)
    }
}

/// Numbers the requests of one model version; never reused while a supervisor runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_their_folder_are_refused() {
        for bad in ["", ".", "..", ".hidden", "a/b", "a\\b", "a\0b", "-rf", "a b", "ä", "a\n"] {
            assert!(ModelName::new(bad).is_err(), "{bad:?}");
        }
        assert!(ModelName::new(&"a".repeat(MAX_MODEL_NAME_BYTES + 1)).is_err());
    }

    #[test]
    fn usual_names_are_accepted() {
        for good in ["digits", "resnet18", "bert-base.v2", "a", "team~model@2"] {
            assert_eq!(ModelName::new(good).map(|n| n.to_string()).as_deref(), Ok(good));
        }
    }

    #[test]
    fn versions_are_positive_decimals_without_leading_zero() {
        assert_eq!(ModelVersion::parse("12").map(ModelVersion::get), Some(12));
        for bad in
            ["", "0", "01", "-1", "+1", "1a", "v1", "9223372036854775808", "99999999999999999999"]
        {
            assert_eq!(ModelVersion::parse(bad), None, "{bad:?}");
        }
    }
}
