//! Everything that is not an inference: metadata, the repository, errors.

use serde::{Deserialize, Serialize};

use super::Parameters;

#[derive(Clone, Debug, Serialize)]
pub struct ErrorBody<'a> {
    pub error: &'a str,
}

#[derive(Clone, Debug, Serialize)]
pub struct ServerMetadata<'a> {
    pub name: &'a str,
    pub version: &'a str,
    pub extensions: &'a [&'a str],
}

#[derive(Clone, Debug, Serialize)]
pub struct ModelMetadata<'a> {
    pub name: &'a str,
    pub versions: Vec<String>,
    pub platform: &'a str,
    pub inputs: Vec<TensorMetadata<'a>>,
    pub outputs: Vec<TensorMetadata<'a>>,
}

/// Datatype and shape are left out while they are not known.
#[derive(Clone, Debug, Serialize)]
pub struct TensorMetadata<'a> {
    pub name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datatype: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<&'a [i64]>,
}

#[derive(Clone, Debug, Serialize)]
pub struct IndexEntry<'a> {
    pub name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: &'a str,
}

/// Body of `POST /v2/repository/index`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct IndexRequest {
    #[serde(default)]
    pub ready: bool,
}

/// Body of a load or an unload.
#[derive(Debug, Default, Deserialize)]
pub struct RepositoryRequest<'a> {
    #[serde(borrow, default)]
    pub parameters: Parameters<'a>,
}
