//! Model → live lanes and status: the only place where the two planes meet.

use shared::id::ModelVersion;
use shared::tensor::TensorSpec;
use tokio::time::Instant;

use crate::request::RequestError;

/// Where requests for one version of a model go.
#[derive(Debug)]
pub struct Route {
    version: ModelVersion,
}

impl Route {
    pub fn model(&self) -> &str {
        unimplemented!()
    }

    pub fn version(&self) -> ModelVersion {
        self.version
    }

    /// When a request that arrives now must be answered: the model's `infer_timeout` from now,
    /// or the client's `timeout` if that is sooner.
    pub fn deadline(&self) -> Instant {
        unimplemented!()
    }
}

/// What a client may know of a model (protocol: model metadata).
#[derive(Clone, Debug)]
pub struct Metadata {
    pub name: String,
    /// Ready versions, or the one asked for.
    pub versions: Vec<ModelVersion>,
    pub platform: String,
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
}

/// One line of the repository index.
#[derive(Clone, Debug)]
pub struct IndexEntry {
    pub name: String,
    pub version: Option<ModelVersion>,
    pub state: Option<ServingState>,
    /// Empty if there is nothing to say.
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServingState {
    Ready,
    Loading,
    Unloading,
    Unavailable,
}

/// The table of all routes; a cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Routes {}

impl Routes {
    /// The route for `model`, its newest ready version if none is named.
    pub fn resolve(
        &self,
        model: &str,
        version: Option<ModelVersion>,
    ) -> Result<std::sync::Arc<Route>, RequestError> {
        unimplemented!("{model} {version:?}")
    }

    pub fn metadata(
        &self,
        model: &str,
        version: Option<ModelVersion>,
    ) -> Result<Metadata, RequestError> {
        unimplemented!("{model} {version:?}")
    }

    /// Whether that model (version) can serve now; an error if it is unknown.
    pub fn model_ready(
        &self,
        model: &str,
        version: Option<ModelVersion>,
    ) -> Result<bool, RequestError> {
        unimplemented!("{model} {version:?}")
    }

    /// Whether every required model serves and the server is not draining.
    pub fn server_ready(&self) -> bool {
        unimplemented!()
    }

    /// Whether the server is draining (health answers 503 then).
    pub fn draining(&self) -> bool {
        unimplemented!()
    }

    pub fn index(&self) -> Vec<IndexEntry> {
        unimplemented!()
    }

    /// Asks for the model to be loaded (or loaded anew) and waits until it serves or has failed.
    pub async fn load(&self, model: &str) -> Result<(), RequestError> {
        unimplemented!("{model}")
    }

    /// Asks for the model to be unloaded and waits until its processes are gone.
    pub async fn unload(&self, model: &str) -> Result<(), RequestError> {
        unimplemented!("{model}")
    }
}
