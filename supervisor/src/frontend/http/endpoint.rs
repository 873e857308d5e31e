//! Which endpoint a method and a path mean: a pure function.

use std::borrow::Cow;

use hyper::Method;
use shared::id::ModelVersion;

/// A model, and one version of it if the path names one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub model: Cow<'a, str>,
    pub version: Option<ModelVersion>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint<'a> {
    Live,
    Ready,
    ServerMetadata,
    ModelMetadata(Target<'a>),
    ModelReady(Target<'a>),
    Infer(Target<'a>),
    Index,
    Load(Cow<'a, str>),
    Unload(Cow<'a, str>),
    /// A repository chosen by name, which this server does not have.
    NamedRepository,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unrouted {
    NotFound,
    WrongVerb,
}

pub(super) fn endpoint<'a>(method: &Method, path: &'a str) -> Result<Endpoint<'a>, Unrouted> {
    let endpoint = by_path(path).ok_or(Unrouted::NotFound)?;
    let verb_is_right = match endpoint {
        Endpoint::Live | Endpoint::Ready => method == Method::GET || method == Method::HEAD,
        Endpoint::ServerMetadata | Endpoint::ModelMetadata(_) | Endpoint::ModelReady(_) => {
            method == Method::GET
        }
        Endpoint::Infer(_)
        | Endpoint::Index
        | Endpoint::Load(_)
        | Endpoint::Unload(_)
        | Endpoint::NamedRepository => method == Method::POST,
    };
    if verb_is_right { Ok(endpoint) } else { Err(Unrouted::WrongVerb) }
}

fn by_path(path: &str) -> Option<Endpoint<'_>> {
    let rest = path.strip_prefix("/v2")?;
    if let Some(model) = rest.strip_prefix("/models/") {
        return of_model(model);
    }
    match rest {
        "" | "/" => Some(Endpoint::ServerMetadata),
        "/health/live" => Some(Endpoint::Live),
        "/health/ready" => Some(Endpoint::Ready),
        "/repository/index" => Some(Endpoint::Index),
        other => of_repository(other.strip_prefix("/repository/")?),
    }
}

/// `M[/versions/V][/infer|/ready]`
fn of_model(rest: &str) -> Option<Endpoint<'_>> {
    let (name, rest) = rest.split_once('/').map_or((rest, None), |(n, r)| (n, Some(r)));
    let model = name_of(name)?;
    let (version, rest) = match rest.and_then(|r| r.strip_prefix("versions/")) {
        None => (None, rest),
        Some(after) => {
            let (version, rest) =
                after.split_once('/').map_or((after, None), |(v, r)| (v, Some(r)));
            (Some(ModelVersion::parse(version)?), rest)
        }
    };
    let target = Target { model, version };
    match rest {
        None => Some(Endpoint::ModelMetadata(target)),
        Some("infer") => Some(Endpoint::Infer(target)),
        Some("ready") => Some(Endpoint::ModelReady(target)),
        Some(_) => None,
    }
}

/// `models/M/load`, `models/M/unload`, and the same and `index` behind a repository's name.
fn of_repository(rest: &str) -> Option<Endpoint<'_>> {
    let (first, rest) = rest.split_once('/')?;
    let ours = (first == "models").then(|| of_repository_model(rest)).flatten();
    if ours.is_some() {
        return ours;
    }
    let named = match rest.strip_prefix("models/") {
        None => rest == "index",
        Some(model) => of_repository_model(model).is_some(),
    };
    (named && !first.is_empty()).then_some(Endpoint::NamedRepository)
}

fn of_repository_model(rest: &str) -> Option<Endpoint<'_>> {
    let (name, verb) = rest.split_once('/')?;
    match verb {
        "load" => name_of(name).map(Endpoint::Load),
        "unload" => name_of(name).map(Endpoint::Unload),
        _ => None,
    }
}

/// A path segment without its percent-encoding; `None` if it is empty, broken or not UTF-8.
fn name_of(segment: &str) -> Option<Cow<'_, str>> {
    if segment.is_empty() {
        return None;
    }
    if !segment.contains('%') {
        return Some(Cow::Borrowed(segment));
    }
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            decoded.push(hex(bytes.next()?)? << 4 | hex(bytes.next()?)?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(model: &str, version: Option<u64>) -> Target<'_> {
        Target { model: model.into(), version: version.and_then(ModelVersion::new) }
    }

    #[test]
    fn documented_paths_lead_to_their_endpoints() {
        let table = [
            ("GET", "/v2/health/live", Endpoint::Live),
            ("HEAD", "/v2/health/ready", Endpoint::Ready),
            ("GET", "/v2", Endpoint::ServerMetadata),
            ("GET", "/v2/", Endpoint::ServerMetadata),
            ("GET", "/v2/models/m", Endpoint::ModelMetadata(target("m", None))),
            ("GET", "/v2/models/m/versions/3", Endpoint::ModelMetadata(target("m", Some(3)))),
            ("GET", "/v2/models/m/ready", Endpoint::ModelReady(target("m", None))),
            ("GET", "/v2/models/m/versions/3/ready", Endpoint::ModelReady(target("m", Some(3)))),
            ("POST", "/v2/models/m/infer", Endpoint::Infer(target("m", None))),
            ("POST", "/v2/models/m/versions/12/infer", Endpoint::Infer(target("m", Some(12)))),
            ("POST", "/v2/models/a%2Fb%20c/infer", Endpoint::Infer(target("a/b c", None))),
            ("POST", "/v2/models/%C3%A4/infer", Endpoint::Infer(target("ä", None))),
            ("POST", "/v2/repository/index", Endpoint::Index),
            ("POST", "/v2/repository/models/m/load", Endpoint::Load("m".into())),
            ("POST", "/v2/repository/models/m/unload", Endpoint::Unload("m".into())),
            ("POST", "/v2/repository/r/index", Endpoint::NamedRepository),
            ("POST", "/v2/repository/r/models/m/load", Endpoint::NamedRepository),
        ];
        for (method, path, expected) in table {
            let method: Method = method.parse().unwrap();
            assert_eq!(endpoint(&method, path), Ok(expected), "{path}");
        }
    }

    #[test]
    fn other_paths_are_not_found() {
        let table = [
            "/",
            "",
            "/v3",
            "/v2x",
            "/base/v2/health/live",
            "/v2/health",
            "/v2/health/live/",
            "/v2/models",
            "/v2/models/",
            "/v2/models//infer",
            "/v2/models/m/",
            "/v2/models/m/infer/",
            "/v2/models/m/versions",
            "/v2/models/m/versions/",
            "/v2/models/m/versions/v1",
            "/v2/models/m/versions/0/infer",
            "/v2/models/m/versions/99999999999999999999/infer",
            "/v2/models/%/infer",
            "/v2/models/%f/infer",
            "/v2/models/%zz/infer",
            "/v2/models/%ff/infer",
            "/v2/repository",
            "/v2/repository//index",
            "/v2/repository/models/m",
            "/v2/repository/models//load",
        ];
        for path in table {
            assert_eq!(endpoint(&Method::POST, path), Err(Unrouted::NotFound), "{path}");
        }
    }

    #[test]
    fn wrong_verbs_are_named_as_such() {
        let table = [
            ("POST", "/v2/health/live"),
            ("HEAD", "/v2"),
            ("GET", "/v2/models/m/infer"),
            ("PUT", "/v2/models/m"),
            ("GET", "/v2/repository/index"),
            ("DELETE", "/v2/repository/models/m/load"),
        ];
        for (method, path) in table {
            let method: Method = method.parse().unwrap();
            assert_eq!(endpoint(&method, path), Err(Unrouted::WrongVerb), "{method} {path}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_routed_or_refused(path in "/v2(/(models|repository|versions|%[0-9a-g]{0,2}|[a-z]{0,3}|ä|1)){0,6}") {
            let _endpoint_or_not = endpoint(&Method::GET, &path);
        }
    }
}
