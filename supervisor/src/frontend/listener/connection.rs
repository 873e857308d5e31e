//! One connection: HTTP/1.1 or HTTP/2, found out from its first bytes.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::TcpUserTimeout;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::activity::{Activity, Counted, Verdict, Watch};

/// Most requests in progress on one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;
/// Bytes of body that a client may send ahead, for one request and for a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const MAX_HEADER_LIST: u32 = 64 << 10;

/// What is answered on the connections of a listener.
pub(in crate::frontend) trait Service: Send + Sync + 'static {
    type Body: Body<Data = Bytes, Error = Infallible> + Send + 'static;

    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// Limits of one listener.
#[derive(Clone, Copy, Debug)]
pub(in crate::frontend) struct Limits {
    /// Most open connections; further ones wait to be accepted.
    pub(in crate::frontend) max_connections: usize,
    /// From the first byte of a request, or from accepting a connection, to the end of the head.
    pub(in crate::frontend) header_timeout: Duration,
    /// How long a connection may do nothing, a client that does not read what is sent included.
    pub(in crate::frontend) idle_timeout: Duration,
}

/// What all connections of a listener share.
#[derive(Debug)]
pub(super) struct Server<S> {
    service: S,
    limits: Limits,
    protocol: auto::Builder<TokioExecutor>,
}

impl<S: Service> Server<S> {
    pub(super) fn new(service: S, limits: Limits) -> Self {
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
        Self { service, limits, protocol }
    }
}

enum Event {
    Ended,
    Stop,
    Tick,
}

/// Serves until the client leaves, is idle or stuck for too long, or, after `stop`, until the
/// requests in progress are answered.
pub(super) async fn serve_connection<S: Service>(
    server: Arc<Server<S>>,
    socket: TcpStream,
    mut stop: watch::Receiver<()>,
) {
    // Without it small responses may wait for an acknowledgement; a failure costs only latency.
    let _best_effort = socket.set_nodelay(true);
    give_up_on_the_dead(&socket, server.limits.idle_timeout);
    let activity = Arc::new(Activity::default());
    let io = TokioIo::new(Counted { socket, activity: Arc::clone(&activity) });
    let service = {
        let (server, activity) = (Arc::clone(&server), Arc::clone(&activity));
        service_fn(move |request: Request<Incoming>| {
            let busy = activity.begin();
            if request.version() == Version::HTTP_2 {
                activity.is_multiplexed();
            }
            let server = Arc::clone(&server);
            async move {
                let answer = server.service.answer(request).await;
                drop(busy);
                Ok::<_, Infallible>(answer)
            }
        })
    };
    let limits = server.limits;
    let mut watch = Watch::new(Instant::now(), limits.header_timeout, limits.idle_timeout);
    let mut connection = pin!(server.protocol.serve_connection(io, service));
    let mut stopping = false;
    loop {
        let event = tokio::select! {
            biased;
            _ = connection.as_mut() => Event::Ended,
            _ = stop.changed(), if !stopping => Event::Stop,
            () = sleep(watch.interval()) => Event::Tick,
        };
        match event {
            Event::Ended => return,
            Event::Stop => {
                stopping = true;
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

/// A client whose machine is gone acknowledges nothing, and what is sent to it fits the kernel's buffers for
/// long: without this it would hold its connection for a quarter of an hour.
fn give_up_on_the_dead(socket: &TcpStream, after: Duration) {
    let millis = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
    let _best_effort = setsockopt(socket, TcpUserTimeout, &millis);
}
