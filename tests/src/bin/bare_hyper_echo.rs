//! The yardstick of `scripts/bench`: hyper alone, answering each request with its own body.
//!
//! Same runtime, same allocator and same connection settings as the supervisor, and nothing else.
//! Prints its address on the first line of standard output and ends when standard input closes.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    let parent = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let accept = async {
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            let serve = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service_fn(echo));
            tokio::spawn(serve);
        }
    };
    tokio::select! {
        _ended = parent => Ok(()),
        failed = accept => failed,
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Ok(Response::new(Full::new(body)))
}
