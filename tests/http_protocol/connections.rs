//! What happens on connections: many requests on one, pieces, slowness, broken HTTP, HTTP/2.

use std::process::Command;

use tests::{Client, Infer, Supervisor, skipped, wait};

use crate::{INFER, JSON_LENGTH, assert_error, assert_unharmed, post};

/// A JSON inference as one would type it.
const BODY: &str =
    r#"{"inputs":[{"name":"INPUT0","datatype":"FP32","shape":[2],"data":[1.0,2.0]}]}"#;

fn chunked(chunks: &[&[u8]]) -> Vec<u8> {
    let mut bytes =
        format!("POST {INFER} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
            .into_bytes();
    for chunk in chunks {
        bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        bytes.extend(*chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

fn head(length: usize) -> String {
    format!("POST {INFER} HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n")
}

#[test]
fn one_connection_serves_good_and_bad_requests_in_turn() {
    let server = Supervisor::with_echo("echo").start();
    let mut client = server.client();
    let (length, body) = Infer::echo("echo").binary();
    let length = length.to_string();
    for _ in 0..20 {
        post(&mut client, INFER, &[(JSON_LENGTH, &length)], &body).assert_status(200);
        assert_error(&post(&mut client, INFER, &[], b"{"), 400, "parse");
        assert_error(&post(&mut client, "/v2/models/ghost/infer", &[], &body), 404, "ghost");
        assert_error(&client.get("/nowhere"), 404, "");
    }
    // Two at once: answered in order.
    let two = format!("GET /v2/health/live HTTP/1.1\r\nHost: t\r\n\r\n{}{BODY}", head(BODY.len()));
    client.send(two.as_bytes()).unwrap();
    assert!(client.receive().unwrap().assert_status(200).body.is_empty());
    assert_eq!(client.receive().unwrap().assert_status(200).json()["model_name"], "echo");
}

#[test]
fn bodies_come_in_pieces_up_to_a_limit() {
    let server = Supervisor::with_echo("echo").set("limits.max_chunks", "100").start();
    let mut client = server.client();
    let bytes: Vec<&[u8]> = BODY.as_bytes().chunks(1).collect();
    assert!(bytes.len() < 100);
    client.send(&chunked(&bytes)).unwrap();
    client.receive().unwrap().assert_status(200);
    let blank: Vec<&[u8]> = vec![b" "; 500];
    client.hang_up();
    client.send(&chunked(&[blank, bytes].concat())).unwrap();
    assert_error(&client.receive().unwrap(), 400, "chunks");
    assert_unharmed(&server, "too many pieces");
}

#[test]
fn bodies_over_the_limit_are_refused_announced_or_not() {
    let server = Supervisor::with_echo("echo").set("limits.max_body", "64KiB").start();
    let large = vec![b' '; 100 << 10];
    let answer = post(&mut server.client(), INFER, &[], &large);
    assert_error(&answer, 400, "exceeds the maximum allowed");
    let mut client = server.client();
    client.send(&chunked(&[&large[..50 << 10], &large[..50 << 10]])).unwrap();
    assert_error(&client.receive().unwrap(), 400, "exceeds the maximum allowed");
    // Announced, and never sent: the answer does not wait for it.
    let mut client = server.client();
    client.send(head(1 << 40).as_bytes()).unwrap();
    assert_error(&client.receive().unwrap(), 400, "exceeds the maximum allowed");
    assert_unharmed(&server, "large bodies");
}

#[test]
fn a_body_that_stops_arriving_is_408() {
    let server = Supervisor::with_echo("echo").set("http.stall_timeout", "500ms").start();
    let (length, binary) = Infer::echo("echo").binary();
    let with_tensors = format!(
        "POST {INFER} HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n{JSON_LENGTH}: {length}\r\n\r\n",
        binary.len()
    );
    let beginnings = [
        head(BODY.len()).into_bytes(),
        [head(BODY.len()).as_bytes(), &BODY.as_bytes()[..20]].concat(),
        [with_tensors.as_bytes(), &binary[..length + 3]].concat(),
    ];
    for beginning in beginnings {
        let mut client = server.client();
        client.send(&beginning).unwrap();
        assert_error(&client.receive().unwrap(), 408, "too long");
        assert_unharmed(&server, "a slow body");
    }
}

#[test]
fn a_head_that_stops_arriving_ends_the_connection() {
    let server = Supervisor::with_echo("echo").set("http.header_timeout", "1s").start();
    for beginning in ["P", "POST /v2/models/echo/inf", "GET /v2 HTTP/1.1\r\nHost: t\r\nX: "] {
        let mut client = server.client();
        client.send(beginning.as_bytes()).unwrap();
        // A status or none: the connection does not stay.
        let answer = client.receive();
        assert!(answer.is_err() || answer.is_ok_and(|a| a.status == 408), "{beginning}");
    }
    assert_unharmed(&server, "slow heads");
}

#[test]
fn clients_that_leave_in_the_middle_cost_nothing() {
    let server = Supervisor::with_echo("echo").set("worker.slots", "2").start();
    let (length, body) = Infer::echo("echo").binary();
    let head = format!(
        "POST {INFER} HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n{JSON_LENGTH}: {length}\r\n\r\n",
        body.len()
    );
    let whole = [head.as_bytes(), &body].concat();
    for end in [5, head.len() - 2, head.len(), head.len() + length, whole.len() - 1, whole.len()] {
        for _ in 0..5 {
            let mut client = server.client();
            client.send(&whole[..end]).unwrap();
            client.hang_up();
        }
        assert_unharmed(&server, "clients that left");
    }
}

#[test]
fn what_is_no_http_is_refused_and_forgotten() {
    let server = Supervisor::with_echo("echo").start();
    let many_headers: String = (0..2000).map(|i| format!("X-{i}: y\r\n")).collect();
    let garbage = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n".to_vec(),
        b"\0\0\0\0\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        format!("GET /v2 HTTP/1.1\r\nHost: t\r\n{many_headers}\r\n").into_bytes(),
        format!("GET /{} HTTP/1.1\r\nHost: t\r\n\r\n", "a".repeat(1 << 20)).into_bytes(),
        b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: t\r\nContent-Length: -1\r\n\r\n".to_vec(),
        b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"
            .to_vec(),
        b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n"
            .to_vec(),
    ];
    for bytes in garbage {
        let mut client = server.client();
        // It may close before all was sent.
        let _refused = client.send(&bytes);
        let answer = client.receive();
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        assert!(answer.is_err() || answer.is_ok_and(|a| (400..500).contains(&a.status)), "{shown}");
        assert_unharmed(&server, &shown);
    }
}

#[test]
fn idle_connections_are_closed() {
    let server = Supervisor::with_echo("echo").set("http.idle_timeout", "1s").start();
    let mut client: Client = server.client();
    client.get("/v2/health/live").assert_status(200);
    let closed = client.receive();
    assert!(closed.is_err(), "{closed:?}");
    assert_unharmed(&server, "an idle connection");
}

#[test]
fn http2_is_spoken_without_asking() {
    let server = Supervisor::with_echo("echo").start();
    let url = format!("http://{}{INFER}", server.address());
    let curl = |arguments: &[&str]| {
        let limit = wait::WATCHDOG.as_secs().to_string();
        Command::new("curl")
            .args(["-sS", "--noproxy", "*", "--http2-prior-knowledge", "--max-time", &limit])
            .args(["-w", "\n%{http_version} %{http_code}"])
            .args(arguments)
            .output()
    };
    let speaks = Command::new("curl").arg("-V").output();
    if !speaks.is_ok_and(|v| String::from_utf8_lossy(&v.stdout).contains("HTTP2")) {
        skipped("http2_is_spoken_without_asking", "there is no curl that speaks HTTP/2");
        return;
    }
    for (body, ending) in [(BODY, "\n2 200"), ("{", "\n2 400")] {
        let output = curl(&["-d", body, &url]).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.ends_with(ending), "{text} {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_unharmed(&server, "HTTP/2");
}
