//! The headers that say what a body is.

use hyper::HeaderMap;
use hyper::header::{CONTENT_ENCODING, HeaderName, HeaderValue};

use super::inflate::Coding;
use crate::request::{RequestError, What};

/// Bytes of JSON in front of the binary tensors; in requests and in replies.
pub(crate) const JSON_LENGTH: HeaderName =
    HeaderName::from_static("inference-header-content-length");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyKind {
    /// All of it is JSON.
    Json,
    /// So many bytes of JSON, then tensors.
    JsonThenBinary(usize),
    /// The data of the model's only input.
    RawBinary,
}

pub(crate) fn body_kind(headers: &HeaderMap) -> Result<BodyKind, RequestError> {
    let mut values = headers.get_all(JSON_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(BodyKind::Json) };
    if values.next().is_some() {
        return Err(RequestError::invalid("Inference-Header-Content-Length is given twice"));
    }
    match decimal(value) {
        Some(0) => Ok(BodyKind::RawBinary),
        Some(length) => Ok(BodyKind::JsonThenBinary(length)),
        None => Err(RequestError::invalid(
            "Inference-Header-Content-Length must be a decimal number of bytes",
        )),
    }
}

/// Digits only: `parse` alone would take a plus sign.
fn decimal(value: &HeaderValue) -> Option<usize> {
    let text = value.to_str().ok()?;
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// `None` is a body that is not compressed.
pub(crate) fn body_coding(headers: &HeaderMap) -> Result<Option<Coding>, RequestError> {
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let name = value.as_bytes().trim_ascii();
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    if values.next().is_none() {
        if is("gzip") || is("x-gzip") {
            return Ok(Some(Coding::Gzip));
        } else if is("deflate") {
            return Ok(Some(Coding::Deflate));
        } else if is("identity") || name.is_empty() {
            return Ok(None);
        }
    }
    let message = "the Content-Encoding is not supported; use gzip, deflate or none";
    Err(RequestError::new(What::Unsupported, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|v| (name.clone(), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn the_json_length_decides_the_kind() {
        let kind =
            |values: &[&'static str]| body_kind(&headers(JSON_LENGTH, values)).map_err(|e| e.what);
        assert_eq!(kind(&[]), Ok(BodyKind::Json));
        assert_eq!(kind(&["0"]), Ok(BodyKind::RawBinary));
        assert_eq!(kind(&["12"]), Ok(BodyKind::JsonThenBinary(12)));
        for bad in ["", "-1", "+1", "1.0", "0x1", "12 ", "99999999999999999999999", "a"] {
            assert_eq!(kind(&[bad]), Err(What::Invalid), "{bad:?}");
        }
        assert_eq!(kind(&["1", "1"]), Err(What::Invalid));
    }

    #[test]
    fn known_codings_are_recognised() {
        let coding = |values: &[&'static str]| {
            body_coding(&headers(CONTENT_ENCODING, values)).map_err(|e| e.what)
        };
        assert_eq!(coding(&[]), Ok(None));
        assert_eq!(coding(&["identity"]), Ok(None));
        assert_eq!(coding(&["GZip"]), Ok(Some(Coding::Gzip)));
        assert_eq!(coding(&["deflate"]), Ok(Some(Coding::Deflate)));
        for bad in ["br", "gzip, deflate", "zstd"] {
            assert_eq!(coding(&[bad]), Err(What::Unsupported), "{bad}");
        }
        assert_eq!(coding(&["gzip", "gzip"]), Err(What::Unsupported));
    }
}
