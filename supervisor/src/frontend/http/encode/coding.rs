//! Whether and how a response is compressed: only if the client asks for it by name.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use hyper::HeaderMap;
use hyper::header::{ACCEPT_ENCODING, HeaderValue};

use crate::frontend::http::decode::Coding;

pub(crate) fn name_of(coding: Coding) -> HeaderValue {
    match coding {
        Coding::Gzip => HeaderValue::from_static("gzip"),
        Coding::Deflate => HeaderValue::from_static("deflate"),
    }
}

/// The coding with the highest weight; the first of equals; none if `identity` weighs more.
pub(crate) fn negotiate(headers: &HeaderMap) -> Option<Coding> {
    let values = headers.get_all(ACCEPT_ENCODING).iter();
    let items = values.filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    let mut best = (0, None);
    let mut identity = 0;
    for (name, weight) in items.filter_map(item) {
        let coding = if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
            Coding::Gzip
        } else if name.eq_ignore_ascii_case("deflate") {
            Coding::Deflate
        } else {
            if name.eq_ignore_ascii_case("identity") {
                identity = weight;
            }
            continue;
        };
        if weight > best.0 {
            best = (weight, Some(coding));
        }
    }
    if identity > best.0 { None } else { best.1 }
}

/// A name and its weight in thousandths; `None` for what is not one.
fn item(text: &str) -> Option<(&str, u16)> {
    let (name, parameters) = text.split_once(';').unwrap_or((text, ""));
    let parameters = parameters.trim();
    if parameters.is_empty() {
        return Some((name.trim(), 1000));
    }
    let value = parameters.strip_prefix("q=").or_else(|| parameters.strip_prefix("Q="))?;
    weight(value.trim()).map(|weight| (name.trim(), weight))
}

/// `0` to `1` with up to three decimals.
fn weight(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = fraction.len() <= 3 && fraction.bytes().all(|b| b.is_ascii_digit());
    let thousandths = format!("{fraction:0<3}").parse::<u16>().ok().filter(|_| digits)?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

pub(crate) fn compress(coding: Coding, body: &[u8]) -> std::io::Result<Vec<u8>> {
    let out = Vec::with_capacity(body.len() / 2 + 64);
    match coding {
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(out, Compression::fast());
            encoder.write_all(body)?;
            encoder.finish()
        }
        Coding::Deflate => {
            let mut encoder = ZlibEncoder::new(out, Compression::fast());
            encoder.write_all(body)?;
            encoder.finish()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_heaviest_coding_wins() {
        let table = [
            ("", None),
            ("*", None),
            ("br", None),
            ("gzip", Some(Coding::Gzip)),
            ("GZIP", Some(Coding::Gzip)),
            ("deflate", Some(Coding::Deflate)),
            ("gzip, deflate", Some(Coding::Gzip)),
            ("gzip;q=0.5, deflate;q=0.8", Some(Coding::Deflate)),
            ("gzip; q=0.001", Some(Coding::Gzip)),
            ("gzip;q=0", None),
            ("gzip;q=0.5, identity", None),
            ("identity;q=0.5, gzip", Some(Coding::Gzip)),
            ("gzip;q=2", None),
            ("gzip;q=0.1234", None),
            ("gzip;q=x, deflate;q=0.1", Some(Coding::Deflate)),
            ("gzip;q=1.000", Some(Coding::Gzip)),
        ];
        for (text, expected) in table {
            let headers = [(ACCEPT_ENCODING, HeaderValue::from_static(text))];
            assert_eq!(negotiate(&headers.into_iter().collect()), expected, "{text:?}");
        }
        assert_eq!(negotiate(&HeaderMap::new()), None);
    }

    #[test]
    fn compressed_bodies_can_be_read_again() {
        let mut gzip = Vec::new();
        let packed = compress(Coding::Gzip, b"hello").unwrap();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut gzip).unwrap();
        let mut zlib = Vec::new();
        let packed = compress(Coding::Deflate, b"hello").unwrap();
        flate2::read::ZlibDecoder::new(&packed[..]).read_to_end(&mut zlib).unwrap();
        assert_eq!((gzip.as_slice(), zlib.as_slice()), (&b"hello"[..], &b"hello"[..]));
    }
}
