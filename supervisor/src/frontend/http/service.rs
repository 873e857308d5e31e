//! One request to one response, whatever the endpoint.

use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use hyper::header::{ACCEPT_ENCODING, CONNECTION, EXPECT, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Version};
use tokio::time::Instant;

use super::decode::{BodyReader, Discarded, body_coding};
use super::endpoint::{Endpoint, endpoint};
use super::respond::{self, Answer};
use super::settings::HttpDeps;
use super::status::{After, after};
use super::{control, infer};
use crate::request::RequestError;

/// Most bytes of an unwanted body that are read, and for how long: it keeps the connection, and a
/// client that is still sending may otherwise see a reset instead of its answer.
const DISCARD_BYTES: usize = 16 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(1);

pub(super) async fn answer<B>(deps: &HttpDeps, request: Request<B>) -> Answer
where
    B: Body<Data = Bytes> + Unpin,
{
    let (parts, body) = request.into_parts();
    let counted = deps.turnover.begin(parts.uri.path());
    let (mut response, after) = answer_parts(deps, &parts, body).await;
    counted.answered(response.status());
    // A client that is told so before the connection is closed sends nothing that would be lost.
    let closes = after == After::Close || deps.routes.draining();
    // HTTP/2 has no such header; there the stream ends, not the connection.
    if closes && parts.version <= Version::HTTP_11 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn answer_parts<B>(deps: &HttpDeps, parts: &Parts, body: B) -> (Answer, After)
where
    B: Body<Data = Bytes> + Unpin,
{
    let (coding, refused) = match body_coding(&parts.headers) {
        Ok(coding) => (coding, None),
        Err(error) => (None, Some(error)),
    };
    let mut body = match BodyReader::new(body, coding, &deps.settings) {
        Ok(body) => body,
        Err(error) => {
            count_unread(deps, parts, &error);
            return (respond::error(&error), After::Close);
        }
    };
    if let Some(error) = refused {
        count_unread(deps, parts, &error);
        let mut response = respond::error(&error);
        let known = HeaderValue::from_static("gzip, deflate");
        response.headers_mut().insert(ACCEPT_ENCODING, known);
        return (response, settle(parts, &mut body, After::Keep).await);
    }
    let (response, then) = match endpoint(&parts.method, parts.uri.path()) {
        Err(why) => (respond::unrouted(why), After::Keep),
        Ok(endpoint) => match dispatch(deps, parts, endpoint, &mut body).await {
            Ok(response) => (response, After::Keep),
            Err(error) => (respond::error(&error), after(error.what)),
        },
    };
    (response, settle(parts, &mut body, then).await)
}

/// An inference that is refused before anybody looks at which model it is for.
fn count_unread(deps: &HttpDeps, parts: &Parts, error: &RequestError) {
    if let Ok(Endpoint::Infer(target)) = endpoint(&parts.method, parts.uri.path()) {
        infer::count_unserved(deps, &target, error);
    }
}

async fn dispatch<B>(
    deps: &HttpDeps,
    parts: &Parts,
    endpoint: Endpoint<'_>,
    body: &mut BodyReader<'_, B>,
) -> Result<Answer, RequestError>
where
    B: Body<Data = Bytes> + Unpin,
{
    match endpoint {
        Endpoint::Infer(target) => infer::infer(deps, &target, &parts.headers, body).await,
        Endpoint::Live => Ok(control::live()),
        Endpoint::Ready => control::ready(&deps.routes),
        Endpoint::ServerMetadata => Ok(control::server_metadata()),
        Endpoint::ModelMetadata(target) => control::model_metadata(&deps.routes, &target),
        Endpoint::ModelReady(target) => control::model_ready(&deps.routes, &target),
        Endpoint::Index => control::index(deps, body).await,
        Endpoint::Load(model) => control::load(deps, &model, body).await,
        Endpoint::Unload(model) => control::unload(deps, &model, body).await,
        Endpoint::NamedRepository => Err(control::named_repository()),
    }
}

/// A connection can be used again once the body is out of the way. A small rest is read, a large
/// one is not; nor is one that the client has not been asked for yet.
async fn settle<B>(parts: &Parts, body: &mut BodyReader<'_, B>, then: After) -> After
where
    B: Body<Data = Bytes> + Unpin,
{
    if body.remaining() == Some(0) {
        return then;
    }
    let waits_to_be_asked = parts.headers.contains_key(EXPECT) && body.is_untouched();
    if then == After::Close || waits_to_be_asked {
        return After::Close;
    }
    body.limit_until(Instant::now() + DISCARD_TIME);
    match body.discard(DISCARD_BYTES).await {
        Discarded::Wholly => After::Keep,
        Discarded::InPart => After::Close,
    }
}
