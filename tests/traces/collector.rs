//! A collector of OpenTelemetry's that keeps what it is sent: OTLP over HTTP, on a port that was free.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message as _;
use tests::wait;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// One span as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty if it is nobody's part.
    pub(crate) parent: String,
    pub(crate) state: String,
    pub(crate) name: String,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) attributes: Vec<(String, String)>,
    /// The message of an error; `None` if it is none.
    pub(crate) error: Option<String>,
}

/// How a collector treats those who send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Takes,
    /// Takes the connection, and never answers.
    Hangs,
    Refuses,
}

/// Ends when dropped.
#[derive(Debug)]
pub(crate) struct Collector {
    address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    _runtime: Runtime,
}

#[derive(Debug, Default)]
struct Kept {
    spans: Vec<Span>,
    resource: Vec<(String, String)>,
    requests: usize,
}

impl Span {
    pub(crate) fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

impl Collector {
    pub(crate) fn start(manner: Manner) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let kept = Arc::new(Mutex::new(Kept::default()));
        runtime.spawn(serve(listener, Arc::clone(&kept), manner));
        Self { address, kept, _runtime: runtime }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.lock().spans.clone()
    }

    pub(crate) fn resource(&self, key: &str) -> Option<String> {
        let kept = self.lock();
        kept.resource.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone())
    }

    pub(crate) fn requests(&self) -> usize {
        self.lock().requests
    }

    /// Waits for a whole request's spans: those of the trace that has this root or parent.
    pub(crate) fn wait_for(&self, what: &str, wanted: impl Fn(&Span) -> bool) -> Vec<Span> {
        wait::until(what, || {
            let spans = self.spans();
            let root = spans.iter().find(|span| span.name == "infer" && wanted(span))?;
            Some(spans.iter().filter(|span| span.trace == root.trace).cloned().collect())
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(listener: TcpListener, kept: Arc<Mutex<Kept>>, manner: Manner) {
    while let Ok((socket, _)) = listener.accept().await {
        let kept = Arc::clone(&kept);
        let service = service_fn(move |request: Request<Incoming>| {
            let kept = Arc::clone(&kept);
            async move { Ok::<_, Infallible>(answer(request, &kept, manner).await) }
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service),
        );
    }
}

async fn answer(
    request: Request<Incoming>,
    kept: &Mutex<Kept>,
    manner: Manner,
) -> Response<Full<Bytes>> {
    assert_eq!(request.uri().path(), "/v1/traces");
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut status = StatusCode::OK;
    {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.requests += 1;
        match manner {
            Manner::Takes => keep(&mut kept, body),
            Manner::Refuses => status = StatusCode::BAD_REQUEST,
            Manner::Hangs => {}
        }
    }
    if manner == Manner::Hangs {
        std::future::pending::<()>().await;
    }
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

fn keep(kept: &mut Kept, body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body).expect("what is sent is OTLP");
    for of_resource in request.resource_spans {
        kept.resource = of_resource.resource.map(|r| pairs(&r.attributes)).unwrap_or_default();
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let status = span.status.unwrap_or_default();
            kept.spans.push(Span {
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                state: span.trace_state,
                name: span.name,
                from: span.start_time_unix_nano,
                to: span.end_time_unix_nano,
                attributes: pairs(&span.attributes),
                error: (status.code == 2).then_some(status.message),
            });
        }
    }
}

fn pairs(attributes: &[KeyValue]) -> Vec<(String, String)> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|v| v.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes.iter().map(|pair| (pair.key.clone(), text(&pair.value))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
