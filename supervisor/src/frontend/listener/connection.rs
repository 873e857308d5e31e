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
use tokio::time::{Instant, sleep, sleep_until};

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

    const SPEAKS: Protocols;

    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::frontend) enum Protocols {
    /// One answer at a time on each connection, so that connections bound what answers may hold.
    Http1,
    Both,
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
    /// A connection has those that there are when it comes.
    limits: watch::Receiver<Limits>,
    protocol: auto::Builder<TokioExecutor>,
}

impl<S: Service> Server<S> {
    pub(super) fn new(service: S, limits: watch::Receiver<Limits>) -> Self {
        let protocol = auto::Builder::new(TokioExecutor::new());
        let mut protocol = match S::SPEAKS {
            Protocols::Http1 => protocol.http1_only(),
            Protocols::Both => protocol,
        };
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

    /// Those that hold now.
    pub(super) fn limits(&self) -> Limits {
        *self.limits.borrow()
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
pub(super) async fn serve_connection<S: Service>(
    server: Arc<Server<S>>,
    socket: TcpStream,
    mut stop: watch::Receiver<()>,
) {
    // Without it small responses may wait for an acknowledgement; a failure costs only latency.
    let _best_effort = socket.set_nodelay(true);
    let limits = server.limits();
    give_up_on_the_dead(&socket, limits.idle_timeout);
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
    let mut watch = Watch::new(Instant::now(), limits.header_timeout, limits.idle_timeout);
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

/// A client whose machine is gone acknowledges nothing, and what is sent to it fits the kernel's buffers for
/// long: without this it would hold its connection for a quarter of an hour.
fn give_up_on_the_dead(socket: &TcpStream, after: Duration) {
    let millis = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
    let _best_effort = setsockopt(socket, TcpUserTimeout, &millis);
}
