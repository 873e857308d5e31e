//! Everything that is not an inference: health, metadata, the repository.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::Body;
use proto::inference::rest::{
    IndexEntry, IndexRequest, ModelMetadata, ParameterValue, Parameters, RepositoryRequest,
    ServerMetadata, TensorMetadata,
};
use shared::tensor::TensorSpec;

use super::decode::{BodyReader, check_depth};
use super::endpoint::Target;
use super::respond::{self, Answer};
use super::settings::{HttpDeps, RepositoryControl};
use crate::request::{RequestError, What};
use crate::route::{self, AnsweredWhen, Routes, ServingState};

/// Extensions of the protocol that this server has, by the protocol's names.
const EXTENSIONS: [&str; 2] = ["model_repository", "binary_tensor_data"];

/// Also while it drains: who restarts what is not live would take the requests in progress with it.
pub(super) fn live() -> Answer {
    respond::empty()
}

pub(super) fn ready(routes: &Routes) -> Result<Answer, RequestError> {
    if routes.draining() {
        return Err(RequestError::new(What::ShuttingDown, "the server is shutting down"));
    }
    Ok(if routes.server_ready() {
        respond::empty()
    } else {
        respond::refusal(StatusCode::BAD_REQUEST, "Server not ready")
    })
}

pub(super) fn server_metadata() -> Answer {
    respond::json(&ServerMetadata {
        name: "bulkhead",
        version: env!("CARGO_PKG_VERSION"),
        extensions: &EXTENSIONS,
    })
}

pub(super) fn model_metadata(routes: &Routes, target: &Target<'_>) -> Result<Answer, RequestError> {
    let found = routes.metadata(&target.model, target.version)?;
    Ok(respond::json(&ModelMetadata {
        name: &found.name,
        versions: found.versions.iter().map(ToString::to_string).collect(),
        platform: &found.platform,
        inputs: found.inputs.iter().map(tensor).collect(),
        outputs: found.outputs.iter().map(tensor).collect(),
    }))
}

fn tensor(spec: &TensorSpec) -> TensorMetadata<'_> {
    TensorMetadata {
        name: &spec.name,
        datatype: spec.dtype.map(|dtype| dtype.name()),
        shape: spec.dims.as_deref(),
    }
}

pub(super) fn model_ready(routes: &Routes, target: &Target<'_>) -> Result<Answer, RequestError> {
    readiness(routes.model_ready(&target.model, target.version))
}

/// A known model that cannot serve is "not ready", whatever the reason.
fn readiness(ready: Result<bool, RequestError>) -> Result<Answer, RequestError> {
    let not_ready = || respond::refusal(StatusCode::BAD_REQUEST, "Model version not ready");
    let error = match ready {
        Ok(true) => return Ok(respond::empty()),
        Ok(false) => return Ok(not_ready()),
        Err(error) => error,
    };
    match error.what {
        What::UnknownVersion | What::NoVersion | What::NotReady => Ok(not_ready()),
        What::UnknownModel
        | What::Invalid
        | What::TooLarge
        | What::SlowBody
        | What::Unsupported
        | What::QueueFull
        | What::QueueTimeout
        | What::Deadline
        | What::WorkerDied
        | What::Poison
        | What::Model
        | What::OutOfMemory
        | What::ShuttingDown
        | What::Forbidden
        | What::Internal => Err(error),
    }
}

pub(super) async fn index<B: Body<Data = Bytes> + Unpin>(
    deps: &HttpDeps,
    body: &mut BodyReader<'_, B>,
) -> Result<Answer, RequestError> {
    let json = body.all().await?;
    let asked: IndexRequest = parse(&json, deps.settings.max_json_depth)?;
    let entries = deps.routes.index();
    let listed: Vec<IndexEntry<'_>> = entries
        .iter()
        .filter(|entry| !asked.ready || entry.state == Some(ServingState::Ready))
        .map(index_entry)
        .collect();
    Ok(respond::json(&listed))
}

fn index_entry(entry: &route::IndexEntry) -> IndexEntry<'_> {
    IndexEntry {
        name: &entry.name,
        version: entry.version.map(|version| version.to_string()),
        state: entry.state.map(ServingState::name),
        reason: &entry.reason,
    }
}

pub(super) async fn load<B: Body<Data = Bytes> + Unpin>(
    deps: &HttpDeps,
    model: &str,
    body: &mut BodyReader<'_, B>,
) -> Result<Answer, RequestError> {
    let json = repository_request(deps, body).await?;
    let _none = parameters(&json, deps.settings.max_json_depth, &[])?;
    deps.routes.load(model).await?;
    Ok(respond::empty())
}

pub(super) async fn unload<B: Body<Data = Bytes> + Unpin>(
    deps: &HttpDeps,
    model: &str,
    body: &mut BodyReader<'_, B>,
) -> Result<Answer, RequestError> {
    let json = repository_request(deps, body).await?;
    let answered = answered_when(&json, deps.settings.max_json_depth)?;
    deps.routes.unload(model, answered).await?;
    Ok(respond::empty())
}

fn answered_when(json: &[u8], max_depth: usize) -> Result<AnsweredWhen, RequestError> {
    // No model depends on another one yet, so that the first asks for nothing.
    let given = parameters(json, max_depth, &["unload_dependents", "wait"])?;
    match given.get("wait") {
        None | Some(ParameterValue::Bool(true)) => Ok(AnsweredWhen::Gone),
        Some(ParameterValue::Bool(false)) => Ok(AnsweredWhen::Begun),
        Some(
            ParameterValue::Uint(_)
            | ParameterValue::Int(_)
            | ParameterValue::Float(_)
            | ParameterValue::Text(_),
        ) => Err(RequestError::invalid("the parameter 'wait' must be true or false")),
    }
}

/// The body of a request that changes what is served, if that is allowed.
async fn repository_request<B: Body<Data = Bytes> + Unpin>(
    deps: &HttpDeps,
    body: &mut BodyReader<'_, B>,
) -> Result<Bytes, RequestError> {
    match deps.settings.repository_control {
        RepositoryControl::Allowed => body.all().await,
        RepositoryControl::Forbidden => {
            let message = "loading and unloading models over HTTP is not allowed by the \
                           configuration";
            Err(RequestError::new(What::Forbidden, message))
        }
    }
}

/// The parameters of such a request, all of which must be known.
fn parameters<'a>(
    json: &'a [u8],
    max_depth: usize,
    known: &[&str],
) -> Result<Parameters<'a>, RequestError> {
    let asked: RepositoryRequest<'a> = parse(json, max_depth)?;
    if let Some((name, _)) = asked.parameters.iter().find(|(name, _)| !known.contains(name)) {
        let message = format!("the parameter '{name}' is not supported by this server");
        return Err(RequestError::new(What::Unsupported, message));
    }
    Ok(asked.parameters)
}

pub(super) fn named_repository() -> RequestError {
    RequestError::new(What::Unsupported, "'repository_name' specification is not supported")
}

/// An empty body asks for nothing in particular.
fn parse<'a, T: Default + serde::Deserialize<'a>>(
    json: &'a [u8],
    max_depth: usize,
) -> Result<T, RequestError> {
    if json.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    check_depth(json, max_depth)?;
    serde_json::from_slice(json)
        .map_err(|e| RequestError::invalid(format!("failed to parse the request JSON buffer: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_has_its_own_codes() {
        let code = |ready| match readiness(ready) {
            Ok(answer) => answer.status().as_u16(),
            Err(error) => respond::error(&error).status().as_u16(),
        };
        let of = |what| code(Err(RequestError::new(what, "")));
        assert_eq!(code(Ok(true)), 200);
        assert_eq!(code(Ok(false)), 400);
        assert_eq!(of(What::UnknownModel), 404);
        assert_eq!(of(What::UnknownVersion), 400);
        assert_eq!(of(What::NoVersion), 400);
        assert_eq!(of(What::NotReady), 400);
        assert_eq!(of(What::ShuttingDown), 503);
    }

    #[test]
    fn empty_bodies_ask_for_nothing() {
        assert!(!parse::<IndexRequest>(b" \n", 10).unwrap().ready);
        assert!(parse::<IndexRequest>(br#"{"ready":true}"#, 10).unwrap().ready);
        assert!(parse::<IndexRequest>(b"{", 10).is_err());
        assert!(parse::<RepositoryRequest<'_>>(br#"{"parameters":3}"#, 10).is_err());
    }
    #[test]
    fn an_unload_can_be_answered_early() {
        let when = |json: &str| answered_when(json.as_bytes(), 10);
        assert_eq!(when("").ok(), Some(AnsweredWhen::Gone));
        assert_eq!(when(r#"{"parameters":{"wait":false}}"#).ok(), Some(AnsweredWhen::Begun));
        let error = when(r#"{"parameters":{"wait":0}}"#).unwrap_err();
        assert_eq!((error.what, error.message.contains("'wait'")), (What::Invalid, true));
        assert_eq!(when(r#"{"parameters":{"w":0}}"#).unwrap_err().what, What::Unsupported);
    }
}
