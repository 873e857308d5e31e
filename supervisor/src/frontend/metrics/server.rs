//! The listener, and what each path is answered with.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue,
    REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use shared::sync::{AtomicUsize, Ordering};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::error;

use super::assets::{self, asset};
use super::events::Feed;
use super::text::{self, Text};
use crate::frontend::listener::{self, Limits, Protocols, Service};
use crate::heavy::heavy;
use crate::overview::Overview;

/// What this front end works with.
#[derive(Clone, Debug)]
pub struct MetricsDeps {
    pub overview: Overview,
    pub max_connections: usize,
    pub header_timeout: Duration,
}

/// Longer than most scrapers pause, and as long as somebody may take nothing of the events.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Serves `listener` for as long as it is polled, also while the server drains.
pub async fn serve(listener: TcpListener, deps: MetricsDeps) {
    let limits = Limits {
        max_connections: deps.max_connections,
        header_timeout: deps.header_timeout,
        idle_timeout: IDLE_TIMEOUT,
    };
    let service = Shown {
        text: Text::new(deps.overview.clone()),
        feed: Feed::start(deps.overview),
        last_size: AtomicUsize::new(0),
    };
    let (_never_changes, limits) = watch::channel(limits);
    listener::serve(listener, service, limits, None, std::future::pending()).await;
}

struct Shown {
    text: Text,
    feed: Feed,
    /// Bytes of the last scrape: about as many as the next will have.
    last_size: AtomicUsize,
}

impl Service for Shown {
    type Body = UnsyncBoxBody<Bytes, Infallible>;

    const SPEAKS: Protocols = Protocols::Http1;

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let mut answer = self.answer_path(request.method(), request.uri().path());
        let headers = answer.headers_mut();
        for (name, value) in HEADERS {
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        }
        answer
    }
}

/// Of every answer.
const HEADERS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, assets::CONTENT_SECURITY_POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    // A new version of the server has a new page.
    (CACHE_CONTROL, "no-cache"),
];

impl Shown {
    fn answer_path(&self, method: &Method, path: &str) -> Answer {
        let known = matches!(path, "/metrics" | "/events") || asset(path).is_some();
        if !known {
            return plain(StatusCode::NOT_FOUND, "There is nothing here; try / or /metrics.\n");
        }
        if method != Method::GET && method != Method::HEAD {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "This only shows.\n");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match (path, asset(path)) {
            ("/metrics", _) => self.metrics(),
            // Nobody watches what has no body.
            ("/events", _) if method == Method::GET => self.events(),
            (_, Some(asset)) => whole(asset.bytes, asset.content_type),
            (_, None) => whole("", EVENTS),
        }
    }

    fn metrics(&self) -> Answer {
        let size = self.last_size.load(Ordering::Relaxed);
        match heavy(size, || self.text.write()) {
            Ok(text) => {
                self.last_size.store(text.len(), Ordering::Relaxed);
                whole(text, text::CONTENT_TYPE)
            }
            Err(_) => {
                error!("metrics could not be written");
                plain(StatusCode::INTERNAL_SERVER_ERROR, "Metrics could not be written.\n")
            }
        }
    }

    fn events(&self) -> Answer {
        let Some(events) = self.feed.watch() else {
            let mut answer = plain(StatusCode::SERVICE_UNAVAILABLE, "Too many watch already.\n");
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
            return answer;
        };
        let mut answer = Response::new(events.boxed_unsync());
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENTS));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer
    }
}

const EVENTS: &str = "text/event-stream";

fn whole(bytes: impl Into<Bytes>, content_type: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(bytes.into()).boxed_unsync());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = whole(text, "text/plain; charset=utf-8");
    *answer.status_mut() = status;
    answer
}
