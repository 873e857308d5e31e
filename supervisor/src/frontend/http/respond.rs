//! Responses in their few shapes.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use proto::inference::rest::ErrorBody;
use serde::Serialize;

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
    let mut response = json(&ErrorBody { error: message });
    *response.status_mut() = status;
    response
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
