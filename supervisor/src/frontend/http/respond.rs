//! Responses in their few shapes.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use proto::inference::rest::ErrorBody;
use serde::Serialize;
use shared::limits::MAX_ERROR_BYTES;

use super::endpoint::Unrouted;
use super::status::{retry_after, status_of};
use crate::request::RequestError;

pub(super) type Answer = Response<Full<Bytes>>;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(super) const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Success with nothing to say.
pub(super) fn empty() -> Answer {
    Response::new(Full::default())
}

pub(super) fn body(bytes: Vec<u8>, content_type: HeaderValue) -> Answer {
    let mut response = Response::new(Full::new(bytes.into()));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

pub(super) fn json(value: &impl Serialize) -> Answer {
    let text = serde_json::to_vec(value)
        .expect("strings and numbers, to memory: there is nothing that could fail");
    body(text, JSON)
}

/// An error whose status is not one of a request's.
pub(super) fn refusal(status: StatusCode, message: &str) -> Answer {
    let mut response = json(&ErrorBody { error: bounded(message) });
    *response.status_mut() = status;
    response
}

/// Messages quote what the client sent, which can be as long as a body.
fn bounded(message: &str) -> &str {
    let longest = MAX_ERROR_BYTES.min(message.len());
    let end = (0..=longest).rev().find(|&end| message.is_char_boundary(end));
    message.get(..end.unwrap_or_default()).unwrap_or_default()
}

pub(super) fn error(error: &RequestError) -> Answer {
    let mut response = refusal(status_of(error.what), &error.message);
    if let Some(seconds) = retry_after(error.what) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(seconds));
    }
    response
}

pub(super) fn unrouted(why: Unrouted) -> Answer {
    match why {
        Unrouted::NotFound => refusal(StatusCode::NOT_FOUND, "Not Found"),
        Unrouted::WrongVerb => refusal(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_between_characters() {
        assert_eq!(bounded("short"), "short");
        let long = "ä".repeat(MAX_ERROR_BYTES);
        assert_eq!(bounded(&long).len(), MAX_ERROR_BYTES);
        assert_eq!(bounded(&format!("x{long}")).len(), MAX_ERROR_BYTES - 1);
    }
}
