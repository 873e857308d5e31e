//! The REST protocol against the real server: what each endpoint answers, and what each kind of
//! broken request gets. After a broken one the same worker answers the next.

mod bad_requests;
mod connections;
mod endpoints;
mod http2;
mod inference;

use tests::{Client, Infer, Response, Supervisor};

const INFER: &str = "/v2/models/echo/infer";
const JSON_LENGTH: &str = "Inference-Header-Content-Length";

fn post(client: &mut Client, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    client.request("POST", path, headers, body).expect("the server answers")
}

/// An error has its status, its one field, and something to say.
#[track_caller]
fn assert_error(response: &Response, status: u16, says: &str) {
    response.assert_status(status);
    assert_eq!(response.header("content-type"), Some("application/json"));
    let body = response.json();
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(1), "{body}");
    let message = response.error();
    assert!(!message.is_empty() && message.contains(says), "{message:?} does not say {says:?}");
}

/// The model `echo` still answers, from a worker that was not replaced.
#[track_caller]
fn assert_unharmed(server: &Supervisor, what: &str) {
    let echo = Infer::echo("echo");
    assert!(echo.is_echoed_by(&server.infer(&echo)), "after {what}: no echo");
    assert_eq!(server.worker("echo").generation, 1, "after {what}: another worker");
}
