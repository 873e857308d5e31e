//! The listener of this protocol.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::service;
use super::settings::{HttpDeps, HttpSettings};
use crate::frontend::listener::{self, Limits, Protocols, Service};
use crate::system::Answers;

/// Serves `listener` until `shutdown`, then takes no more connections and returns when the
/// requests in progress are answered. How long that may take is the caller's to say: dropping the
/// future ends every connection at once.
///
/// What comes over `settings` takes the place of those in `deps`, for what comes after it.
pub async fn serve(
    listener: TcpListener,
    deps: HttpDeps,
    mut settings: watch::Receiver<HttpSettings>,
    pulse: Answers,
    shutdown: impl Future<Output = ()>,
) {
    let (change, limits) = watch::channel(limits_of(&deps.settings));
    let live = Arc::new(Live(ArcSwap::from_pointee(deps)));
    let serving = listener::serve(listener, Arc::clone(&live), limits, Some(pulse), shutdown);
    let adopting = async {
        while settings.changed().await.is_ok() {
            let settings = settings.borrow_and_update().clone();
            let limits = limits_of(&settings);
            live.adopt(settings);
            change.send_replace(limits);
        }
        std::future::pending().await
    };
    tokio::select! {
        () = serving => {}
        () = adopting => {}
    }
}

/// A request has what there is when it begins.
#[derive(Debug)]
struct Live(ArcSwap<HttpDeps>);

impl Live {
    fn adopt(&self, settings: HttpSettings) {
        let deps = HttpDeps { settings, ..HttpDeps::clone(&self.0.load()) };
        self.0.store(Arc::new(deps));
    }
}

impl Service for Arc<Live> {
    type Body = Full<Bytes>;

    const SPEAKS: Protocols = Protocols::Both;

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let deps = self.0.load_full();
        service::answer(&deps, request).await
    }
}

fn limits_of(settings: &HttpSettings) -> Limits {
    Limits {
        max_connections: settings.max_connections,
        header_timeout: settings.header_timeout,
        idle_timeout: settings.idle_timeout,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::*;
    use crate::frontend::http::{HttpSettings, RepositoryControl, Turnover};
    use crate::route::Routes;
    use crate::system::pulse;
    use crate::telemetry::traces::Traces;

    const WATCHDOG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(60);

    struct Running {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        change: watch::Sender<HttpSettings>,
        done: JoinHandle<()>,
    }

    async fn start(settings: HttpSettings) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let turnover = Arc::new(Turnover::default());
        let (change, changes) = watch::channel(settings.clone());
        let traces = Traces::default();
        let deps = HttpDeps { settings, routes: Routes::new().0, turnover, traces };
        let shutdown = async move { drop(stopped.await) };
        let (_pulse, answers) = pulse("the server");
        let done = tokio::spawn(serve(listener, deps, changes, answers, shutdown));
        Running { address, stop, change, done }
    }

    impl Running {
        /// Sends `request`, and reads until the server closes the connection.
        async fn whole(&self, request: &str) -> String {
            let mut socket = TcpStream::connect(self.address).await.unwrap();
            socket.write_all(request.as_bytes()).await.unwrap();
            to_end(&mut socket).await
        }
    }

    async fn to_end(socket: &mut TcpStream) -> String {
        let mut answer = Vec::new();
        timeout(WATCHDOG, socket.read_to_end(&mut answer)).await.unwrap().unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// Reads until `end` was seen.
    async fn until(socket: &mut TcpStream, end: &str) -> String {
        let mut answer = Vec::new();
        while !answer.windows(end.len()).any(|w| w == end.as_bytes()) {
            let read = timeout(WATCHDOG, socket.read_buf(&mut answer)).await.unwrap().unwrap();
            assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn get(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")
    }

    fn post(path: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        )
    }

    fn allowed() -> HttpSettings {
        HttpSettings { repository_control: RepositoryControl::Allowed, ..HttpSettings::default() }
    }

    #[tokio::test]
    async fn every_answer_has_its_status_and_a_body() {
        const LOAD: &str = "/v2/repository/models/m/load";
        const CLOSE: &str = "connection: close\r\n";
        let server = start(allowed()).await;
        let deep = "[".repeat(101);
        let table = [
            (get("/v2?x=1"), 200, r#"{"name":"bulkhead","version":""#),
            (get("/v2/health/live"), 200, ""),
            (get("/v2/health/ready"), 400, r#"{"error":"Server not ready"}"#),
            (get("/v2/models/m"), 404, "unknown model"),
            (get("/v2/models/m/ready"), 404, "unknown model"),
            (post("/v2/models/m/infer", "", "{}"), 404, "unknown model"),
            (post("/v2/repository/index", "", r#"{"ready":true}"#), 200, "[]"),
            (post("/v2/repository/models/m/unload", "", ""), 404, "unknown model"),
            (post(LOAD, "", ""), 503, "retry-after: 1"),
            (get("/v2/nothing"), 404, r#"{"error":"Not Found"}"#),
            (get("/v2/models/m/infer"), 405, r#"{"error":"Method Not Allowed"}"#),
            (post("/v2/repository/r/index", "", ""), 501, "'repository_name'"),
            (post(LOAD, "", "{"), 400, "failed to parse"),
            (post(LOAD, "", &deep), 400, "nested deeper"),
            (post(LOAD, "", r#"{"parameters":{"config":"x"}}"#), 501, "'config'"),
            (post(LOAD, "content-encoding: br\r\n", "x"), 501, "accept-encoding: gzip, deflate"),
            (post(LOAD, "content-encoding: gzip\r\n", "x"), 400, "corrupt"),
        ];
        for (request, status, part) in table {
            let request = request.replacen("host: a\r\n", &format!("host: a\r\n{CLOSE}"), 1);
            let answer = server.whole(&request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}\n{answer}");
            assert!(answer.contains(part), "{request}\n{answer}");
        }
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_before_it_is_read() {
        let server = start(HttpSettings::default()).await;
        let head =
            "POST /v2/models/m/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999\r\n\r\n";
        let answer = server.whole(head).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("exceeds the maximum allowed"), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }

    #[tokio::test]
    async fn repository_control_can_be_forbidden() {
        let server = start(HttpSettings::default()).await;
        let close = "connection: close\r\n";
        let answer = server.whole(&post("/v2/repository/models/m/unload", close, "{}")).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    }

    #[tokio::test]
    async fn a_connection_outlives_an_error_with_an_unread_body() {
        let server = start(HttpSettings::default()).await;
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        let body = "x".repeat(100_000);
        socket.write_all(post("/nowhere", "", &body).as_bytes()).await.unwrap();
        let first = until(&mut socket, "Not Found\"}").await;
        assert!(!first.contains("connection: close"), "{first}");
        socket.write_all(get("/v2").as_bytes()).await.unwrap();
        until(&mut socket, "bulkhead").await;
    }

    #[tokio::test]
    async fn a_client_that_waits_to_be_asked_is_answered() {
        let server = start(HttpSettings::default()).await;
        let head = "POST /nowhere HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\
                    expect: 100-continue\r\n\r\n";
        let answer = server.whole(head).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    }

    #[tokio::test]
    async fn slow_bodies_get_a_timeout() {
        let server = start(HttpSettings { stall_timeout: SHORT, ..allowed() }).await;
        let head = "POST /v2/repository/models/m/load HTTP/1.1\r\nhost: a\r\n\
                    content-length: 10\r\n\r\n{";
        let answer = server.whole(head).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }

    #[tokio::test]
    async fn half_heads_and_idle_connections_are_closed() {
        let server = start(HttpSettings { header_timeout: SHORT, ..allowed() }).await;
        assert_eq!(server.whole("GET /v2 HT").await, "");
        assert_eq!(server.whole("PRI * HT").await, "");
        let server = start(HttpSettings { idle_timeout: SHORT, ..allowed() }).await;
        assert_eq!(server.whole("").await, "");
        assert!(server.whole(&get("/v2")).await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_wait() {
        let server = start(HttpSettings { max_connections: 1, ..allowed() }).await;
        let mut first = TcpStream::connect(server.address).await.unwrap();
        first.write_all(get("/v2").as_bytes()).await.unwrap();
        until(&mut first, "bulkhead").await;
        let mut second = TcpStream::connect(server.address).await.unwrap();
        second.write_all(get("/v2").as_bytes()).await.unwrap();
        assert!(timeout(SHORT, second.read_u8()).await.is_err(), "the first is still there");
        drop(first);
        until(&mut second, "bulkhead").await;
    }

    #[tokio::test]
    async fn other_settings_hold_for_what_comes_next_on_open_connections_too() {
        let server = start(HttpSettings { max_connections: 1, ..allowed() }).await;
        let mut first = TcpStream::connect(server.address).await.unwrap();
        let load = post("/v2/repository/models/m/load", "", r#"{"parameters":{"x":1}}"#);
        first.write_all(load.as_bytes()).await.unwrap();
        until(&mut first, "501 ").await;
        let mut second = TcpStream::connect(server.address).await.unwrap();
        second.write_all(get("/v2").as_bytes()).await.unwrap();
        server.change.send(HttpSettings { max_connections: 2, ..HttpSettings::default() }).unwrap();
        until(&mut second, "bulkhead").await;
        first.write_all(load.as_bytes()).await.unwrap();
        until(&mut first, "403 ").await;
    }

    #[tokio::test]
    async fn shutdown_lets_a_request_in_progress_finish() {
        let server = start(allowed()).await;
        let mut idle = TcpStream::connect(server.address).await.unwrap();
        idle.write_all(get("/v2").as_bytes()).await.unwrap();
        until(&mut idle, "data\"]}").await;
        let mut busy = TcpStream::connect(server.address).await.unwrap();
        let expect = "expect: 100-continue\r\n";
        let request = post("/v2/repository/models/m/load", expect, r#"{"parameters":{"x":1}}"#);
        let (head, body) = request.split_at(request.len() - 2);
        busy.write_all(head.as_bytes()).await.unwrap();
        until(&mut busy, "100 Continue\r\n\r\n").await;
        server.stop.send(()).unwrap();
        assert_eq!(to_end(&mut idle).await, "");
        busy.write_all(body.as_bytes()).await.unwrap();
        let answer = to_end(&mut busy).await;
        assert!(answer.starts_with("HTTP/1.1 501 "), "{answer}");
        timeout(WATCHDOG, server.done).await.unwrap().unwrap();
        assert!(TcpStream::connect(server.address).await.is_err());
    }

    #[tokio::test]
    async fn shutdown_lets_in_who_has_just_come() {
        let server = start(allowed()).await;
        let mut first = TcpStream::connect(server.address).await.unwrap();
        server.stop.send(()).unwrap();
        assert!(timeout(SHORT, first.read_u8()).await.is_err(), "it may still ask");
        first.write_all(get("/v2").as_bytes()).await.unwrap();
        assert!(to_end(&mut first).await.starts_with("HTTP/1.1 200 "));
        timeout(WATCHDOG, server.done).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn http2_is_recognised_by_its_preface() {
        let server = start(HttpSettings::default()).await;
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        // GET http://a/v2 as stream 1, in HPACK without indexing.
        let headers = b"\x82\x86\x04\x03/v2\x01\x01a";
        let frame = [0, 0, u8::try_from(headers.len()).unwrap(), 1, 5, 0, 0, 0, 1];
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        socket.write_all(&[&preface[..], &settings, &frame, headers].concat()).await.unwrap();
        until(&mut socket, r#""name":"bulkhead""#).await;
    }
}
