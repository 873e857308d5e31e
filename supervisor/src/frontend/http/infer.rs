//! One inference, from its headers to its response.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::body::Body;
use hyper::header::{CONTENT_ENCODING, HeaderValue};
use shared::id::ModelVersion;
use shared::tensor::TensorSpec;
use tokio::time::Instant;

use super::decode::{BodyReader, Coding, Gate, JSON_LENGTH, body_kind, receive};
use super::encode::{Echo, Encoded, compress, encode, name_of, negotiate};
use super::endpoint::Target;
use super::respond::{self, Answer};
use super::settings::HttpDeps;
use super::status::status_of;
use crate::admission::{Admitted, admit};
use crate::heavy::heavy;
use crate::request::{InferHead, RequestError, What};
use crate::route::{Route, Routes};
use crate::stats::{Spent, Tally};
use crate::telemetry::traces::Trail;

/// How many bytes are copied in the time in which one is turned into JSON, roughly.
const COPY_IS_LIGHTER: usize = 16;

/// One inference, counted, with a trace if one is wanted.
pub(super) async fn infer<B: Body<Data = Bytes> + Unpin>(
    deps: &HttpDeps,
    target: &Target<'_>,
    headers: &HeaderMap,
    body: &mut BodyReader<'_, B>,
) -> Result<Answer, RequestError> {
    let trail = deps.traces.begin(&target.model, |name| joined(headers, name));
    let answer = counted(deps, target, (headers, &trail), body).await;
    let status = answer.as_ref().map_or_else(|error| status_of(error.what), Answer::status);
    // A trail that is just dropped is that of a client that has left.
    if answer.is_ok() || !body.broke_off() {
        trail.finish(answer.as_ref().err(), status.as_u16());
    }
    answer
}

/// An inference that came to no version. One that was served until it was given up still has callers.
pub(super) fn count_unserved(deps: &HttpDeps, target: &Target<'_>, error: &RequestError) {
    match deps.routes.stats().known(&target.model, target.version) {
        Some(stats) => Tally::begin(&stats).failed(error.what),
        None => deps.routes.stats().unrouted(error.what),
    }
}

/// A header that came in several lines is one with commas.
fn joined<'h>(headers: &'h HeaderMap, name: &str) -> Option<Cow<'h, str>> {
    let mut lines = headers.get_all(name).iter().map(HeaderValue::to_str);
    let first = Cow::Borrowed(lines.next()?.ok()?);
    lines.try_fold(first, |all, line| Some(Cow::Owned(format!("{all},{}", line.ok()?))))
}

/// Nothing of the body is read before the model is known to be there.
async fn counted<B: Body<Data = Bytes> + Unpin>(
    deps: &HttpDeps,
    target: &Target<'_>,
    (headers, trail): (&HeaderMap, &Trail),
    body: &mut BodyReader<'_, B>,
) -> Result<Answer, RequestError> {
    let found = deps.routes.resolve(&target.model, target.version);
    let route = found.inspect_err(|error| count_unserved(deps, target, error))?;
    let mut tally = Tally::begin(route.stats());
    let gate = ModelGate { routes: &deps.routes, route: &route, asked: target.version, trail };
    match travel(deps, &gate, headers, body, &mut tally).await {
        Ok((answer, spent)) => {
            tally.succeeded(&spent);
            Ok(answer)
        }
        Err(error) => {
            // A tally that is just dropped is that of a client that has left.
            if !body.broke_off() {
                tally.failed(error.what);
            }
            Err(error)
        }
    }
}

async fn travel<B: Body<Data = Bytes> + Unpin>(
    deps: &HttpDeps,
    gate: &ModelGate<'_>,
    headers: &HeaderMap,
    body: &mut BodyReader<'_, B>,
    tally: &mut Tally,
) -> Result<(Answer, Spent), RequestError> {
    let kind = body_kind(headers)?;
    let received = receive(body, kind, deps.settings.max_json_depth, gate).await?;
    let route = Arc::clone(received.slot.route());
    tally.admitted(route.stats());
    let answered = received.slot.run(gate.trail).await?;
    tally.answered();
    let (reply, spent) = (&answered.reply, answered.spent);
    let echo =
        Echo { id: received.client_id.as_deref(), model: route.model(), version: route.version() };
    let total = reply.tensors().iter().fold(0_usize, |sum, t| sum.saturating_add(t.len));
    let (limit, max_json) = (deps.settings.max_reply, deps.settings.max_body);
    if total > limit {
        let message = format!(
            "the outputs have {total} bytes, which exceeds the maximum allowed of {limit} bytes"
        );
        return Err(RequestError::new(What::TooLarge, message));
    }
    let encode = || encode(echo, &received.wanted, reply, max_json);
    let encoded = match received.wanted.any_json(reply.tensors().len()) {
        true => heavy(total, encode)?,
        // Binary outputs are only copied, which is many times quicker.
        false => heavy(total / COPY_IS_LIGHTER, encode)?,
    };
    answered.release();
    Ok((respond_with(encoded, negotiate(headers))?, spent))
}

fn respond_with(encoded: Encoded, coding: Option<Coding>) -> Result<Answer, RequestError> {
    let Encoded { body, json_length } = encoded;
    let body = match coding {
        None => body,
        Some(coding) => heavy(body.len(), || compress(coding, &body))
            .map_err(|_| RequestError::new(What::Internal, "the reply could not be compressed"))?,
    };
    let content_type = if json_length.is_some() { respond::BINARY } else { respond::JSON };
    let mut response = respond::body(body, content_type);
    if let Some(length) = json_length {
        response.headers_mut().insert(JSON_LENGTH, HeaderValue::from(length));
    }
    if let Some(coding) = coding {
        response.headers_mut().insert(CONTENT_ENCODING, name_of(coding));
    }
    Ok(response)
}

struct ModelGate<'a> {
    routes: &'a Routes,
    route: &'a Arc<Route>,
    /// The version that the client named.
    asked: Option<ModelVersion>,
    trail: &'a Trail,
}

impl Gate for ModelGate<'_> {
    type Slot = Admitted;

    fn model(&self) -> &str {
        self.route.model()
    }

    fn inputs(&self) -> Result<Vec<TensorSpec>, RequestError> {
        let metadata = self.routes.metadata(self.route.model(), Some(self.route.version()))?;
        Ok(metadata.inputs)
    }

    /// The client's own deadline counts if it is sooner than the model's.
    async fn admit(&self, head: &InferHead) -> Result<Admitted, RequestError> {
        let deadline = self.route.deadline();
        let own = head.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let deadline = own.map_or(deadline, |own| own.min(deadline));
        admit(self.route, self.asked, head, (deadline, self.trail)).await
    }
}
