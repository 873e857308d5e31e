//! Clients that are too large, too slow, gone too early, or make no sense.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use tests::{Aside, Client, Infer, Response};

use crate::field::Field;
use crate::fleet::{Engine, Victim};
use crate::question::{Tolerance, check};
use crate::schedule::Nuisance;

/// A body that is taken into a slot while it arrives.
const BODY: usize = 60_000;
/// An input that fits no slot.
const LARGE: usize = 1_000_000;
const CROWD: usize = 100;

const MALFORMED: [&[u8]; 10] = [
    b"\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello over TLS",
    b"POST /v2/models/plain/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n{\"inpu\"",
    b"POST /v2/models/plain/infer HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /v2/models/plain/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /v2/models/plain/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\
      Inference-Header-Content-Length: 99\r\n\r\n{}",
    b"POST /v2/models/../../etc/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    b"DELETE /v2/models/plain HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /v2/models/plain/infer HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\n\
      Content-Length: 4\r\n\r\nnope",
];

pub(crate) fn be(field: &Field<'_>, victim: Victim, nuisance: Nuisance) {
    match nuisance {
        Nuisance::LargeInputs => large_inputs(field, victim),
        Nuisance::HangUpInBody => {
            let (head, body) = upload(victim);
            let mut client = field.server.client();
            let _sent = client.send(&[head.as_bytes(), &body[..body.len() / 2]].concat());
            client.hang_up();
        }
        Nuisance::HangUpInAnswer => {
            let (head, body) = upload(victim);
            let mut client = field.server.client();
            let _sent = client.send(&[head.as_bytes(), &body].concat());
            client.hang_up();
        }
        Nuisance::SlowUpload => slow_upload(field, victim),
        Nuisance::Stall => {
            let (head, body) = upload(victim);
            let mut client = field.server.client();
            let sent = client.send(&[head.as_bytes(), &body[..body.len() / 2]].concat());
            judge(field, victim, (sent.and_then(|()| client.receive()), Instant::now()));
        }
    }
}

fn large_inputs(field: &Field<'_>, victim: Victim) {
    let sent = Instant::now();
    let infer = match victim.engine() {
        Engine::Echo => Infer::new(victim.name()).floats(&vec![0.25; LARGE]),
        // Of a shape that it does not take.
        Engine::Torch => {
            let bytes = vec![0; LARGE / 64 * 64 * 4];
            Infer::new(victim.name()).tensor("image", "FP32", &[LARGE / 64, 1, 8, 8], &bytes)
        }
    };
    let asides = [(); 4].map(|()| Aside::send(field.server.client(), infer.clone()));
    for aside in asides {
        let outcome = aside.outcome();
        if victim.engine() == Engine::Echo
            && outcome.as_ref().is_ok_and(|answer| answer.status == 200)
            && !outcome.as_ref().is_ok_and(|answer| infer.is_echoed_by(answer))
        {
            field.journal.violated(format!("a wrong large answer of {}", victim.name()));
        }
        judge(field, victim, (outcome, sent));
    }
}

/// Ten pieces, a while between them.
fn slow_upload(field: &Field<'_>, victim: Victim) {
    let (head, body) = upload(victim);
    let mut client = field.server.client();
    let mut sent = client.send(head.as_bytes());
    for piece in body.chunks(body.len() / 10) {
        if field.stop.comes_within(Duration::from_millis(150)) {
            return;
        }
        sent = sent.and_then(|()| client.send(piece));
    }
    judge(field, victim, (sent.and_then(|()| client.receive()), Instant::now()));
}

/// The server may answer before all was sent, and close: the answer may then be lost on the way.
fn judge(field: &Field<'_>, victim: Victim, (outcome, sent): (io::Result<Response>, Instant)) {
    let early = |kind| {
        [ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof, ErrorKind::BrokenPipe]
            .contains(&kind)
    };
    if outcome.as_ref().is_err_and(|error| early(error.kind())) {
        return;
    }
    check(&field.journal, victim.name(), Tolerance::Oddities, (&outcome, sent.elapsed()));
}

/// The head and the body of a request.
fn upload(victim: Victim) -> (String, Vec<u8>) {
    let infer = match victim.engine() {
        Engine::Echo => {
            Infer::new(victim.name()).floats(&vec![0.125; BODY]).and_command("delay 50ms")
        }
        Engine::Torch => {
            let bytes = vec![0; 32 * 64 * 4];
            Infer::new(victim.name()).tensor("image", "FP32", &[32, 1, 8, 8], &bytes)
        }
    };
    let (json, body) = infer.binary();
    let (path, length) = (infer.path(), body.len());
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\
         Inference-Header-Content-Length: {json}\r\n\r\n"
    );
    (head, body)
}

/// Each is answered as the client's mistake, or its connection closed.
pub(crate) fn malformed(field: &Field<'_>) {
    for bytes in MALFORMED {
        let mut client = field.server.client();
        let sent = Instant::now();
        let outcome = client.send(bytes).and_then(|()| client.receive());
        let took = sent.elapsed();
        let fine = match &outcome {
            // The model may be away, or not ready.
            Ok(answer) => {
                (400..500).contains(&answer.status) || [501, 503, 505].contains(&answer.status)
            }
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        };
        if !fine {
            let outcome = outcome.map(|answer| (answer.status, answer.text()));
            let bytes = bytes.escape_ascii();
            field.journal.violated(format!("after {took:?}, {bytes} gave {outcome:?}"));
        }
    }
}

pub(crate) fn crowd(field: &Field<'_>) {
    let one = |number: usize| {
        let mut client: Client = field.server.client();
        let some = if number.is_multiple_of(2) { "GET /v2/health/live HTT" } else { "G" };
        let _closed = client.send(some.as_bytes());
        client
    };
    let crowd: Vec<Client> = (0..CROWD).map(one).collect();
    let _stopped = field.stop.comes_within(Duration::from_millis(400));
    drop(crowd);
}
