//! One connection: HTTP/1.1 or HTTP/2, found out from its first bytes.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hyper::Version;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep, sleep_until};

use super::activity::{Activity, Counted, Verdict, Watch};
use super::service;
use super::settings::{HttpDeps, HttpSettings};

/// Most requests in progress on one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;
/// Bytes of body that a client may send ahead, for one request and for a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const MAX_HEADER_LIST: u32 = 64 << 10;

/// What all connections of a listener share.
#[derive(Debug)]
pub(super) struct Server {
    /// A request has what there is when it begins.
    deps: ArcSwap<HttpDeps>,
    protocol: auto::Builder<TokioExecutor>,
}

impl Server {
    pub(super) fn new(deps: HttpDeps) -> Self {
        let mut protocol = auto::Builder::new(TokioExecutor::new());
        // `activity::Watch` bounds the time for a head, and idleness with it.
        protocol.http1().timer(TokioTimer::new()).header_read_timeout(None);
        protocol
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADER_LIST);
        Self { deps: ArcSwap::from_pointee(deps), protocol }
    }

    pub(super) fn max_connections(&self) -> usize {
        self.deps.load().settings.max_connections
    }

    /// For requests and connections that come from now on.
    pub(super) fn adopt(&self, settings: HttpSettings) {
        let deps = HttpDeps { settings, ..HttpDeps::clone(&self.deps.load()) };
        self.deps.store(Arc::new(deps));
    }
}

/// How long a connection that has brought no request yet may still bring one after `stop`: its client
/// may have sent it already.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

enum Event {
    Ended,
    Stop,
    Waited,
    Tick,
}

/// Serves until the client leaves, is idle or stuck for too long, or, after `stop`, until the
/// requests in progress are answered and the first one had its chance.
pub(super) async fn serve_connection(
    server: Arc<Server>,
    socket: TcpStream,
    mut stop: watch::Receiver<()>,
) {
    // Without it small responses may wait for an acknowledgement; a failure costs only latency.
    let _best_effort = socket.set_nodelay(true);
    let activity = Arc::new(Activity::default());
    let io = TokioIo::new(Counted { socket, activity: Arc::clone(&activity) });
    let service = {
        let (server, activity) = (Arc::clone(&server), Arc::clone(&activity));
        service_fn(move |request: hyper::Request<Incoming>| {
            let busy = activity.begin();
            if request.version() == Version::HTTP_2 {
                activity.is_multiplexed();
            }
            let deps = server.deps.load_full();
            async move {
                let answer = service::answer(&deps, request).await;
                drop(busy);
                Ok::<_, Infallible>(answer)
            }
        })
    };
    let mut watch = {
        let settings = &server.deps.load().settings;
        Watch::new(Instant::now(), settings.header_timeout, settings.idle_timeout)
    };
    let mut connection = pin!(server.protocol.serve_connection(io, service));
    let mut stopping = false;
    let mut first_request = None;
    loop {
        let event = tokio::select! {
            biased;
            _ = connection.as_mut() => Event::Ended,
            _ = stop.changed(), if !stopping => Event::Stop,
            () = until(first_request) => Event::Waited,
            () = sleep(watch.interval()) => Event::Tick,
        };
        match event {
            Event::Ended => return,
            Event::Stop => {
                stopping = true;
                match activity.is_fresh() {
                    true => first_request = Some(Instant::now() + FIRST_REQUEST),
                    false => connection.as_mut().graceful_shutdown(),
                }
            }
            Event::Waited => {
                first_request = None;
                connection.as_mut().graceful_shutdown();
            }
            Event::Tick => match watch.look(Instant::now(), activity.snapshot()) {
                Verdict::Fine => {}
                Verdict::Idle => connection.as_mut().graceful_shutdown(),
                Verdict::Stuck => return,
            },
        }
    }
}

/// For ever without a moment.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
