//! Many streams of one HTTP/2 connection, by hyper's client.

use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tests::{Infer, Supervisor};
use tokio::net::TcpStream;

use crate::{JSON_LENGTH, assert_unharmed};

type Sender = SendRequest<Full<Bytes>>;

#[tokio::test]
async fn many_streams_share_one_connection() {
    let server = Supervisor::with_echo("echo").start();
    let sender = connect(&server).await;
    let failed = tokio::spawn(infer(sender.clone(), Infer::echo("ghost")));
    let mut streams = Vec::new();
    for i in 1..=50_u8 {
        let values = vec![f32::from(i); usize::from(i) * 100];
        streams.push(tokio::spawn(infer(sender.clone(), Infer::new("echo").floats(&values))));
    }
    for stream in streams {
        assert_eq!(stream.await.expect("no panic"), Outcome::Echoed);
    }
    assert_eq!(failed.await.expect("no panic"), Outcome::Status(404));
    assert_unharmed(&server, "many streams");
}

#[tokio::test]
async fn a_stream_that_is_given_up_leaves_the_others() {
    let server = Supervisor::with_echo("echo").set("worker.slots", "2").start();
    let sender = connect(&server).await;
    for _ in 0..10 {
        let given_up = tokio::spawn(infer(sender.clone(), Infer::command("echo", "delay 5ms")));
        let kept = tokio::spawn(infer(sender.clone(), Infer::echo("echo")));
        tokio::task::yield_now().await;
        given_up.abort();
        assert_eq!(kept.await.expect("no panic"), Outcome::Echoed);
    }
    assert_unharmed(&server, "streams that were given up");
}

async fn connect(server: &Supervisor) -> Sender {
    let stream = TcpStream::connect(server.address()).await.expect("it listens");
    let connection = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = connection.expect("it speaks HTTP/2");
    tokio::spawn(connection);
    sender
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Echoed,
    Status(u16),
}

async fn infer(mut sender: Sender, infer: Infer) -> Outcome {
    let (length, body) = infer.binary();
    let request = Request::post(format!("http://test{}", infer.path()))
        .header(JSON_LENGTH, length)
        .body(Full::from(body))
        .expect("a good request");
    let response = sender.send_request(request).await.expect("an answer");
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let body = response.into_body().collect().await.expect("a whole answer").to_bytes();
    let json = headers.get(JSON_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if status == 200 && body.get(json.unwrap_or(0)..) == Some(infer.first()) {
        return Outcome::Echoed;
    }
    Outcome::Status(status)
}
