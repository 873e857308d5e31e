//! A closed loop of inferences, for `scripts/gpu-check`: each connection sends its next request when it
//! has its answer, or, with a pace, when that is due.
//!
//! One thread for each connection, and nothing is made anew for a request: its bytes are built once and
//! answers are read into the same memory, so that large tensors cost little here. Every request is
//! the same; tensors of FP32 hold a ramp, all others zeros.
//!
//! It runs for `--seconds`, or until its standard input ends, and prints one JSON object: count,
//! errors, seconds, `p50_us`, `p99_us`, `max_us`, how often each status was seen (0 is a connection
//! that broke), and with `--answers` each answer as `[SENT, ANSWERED, STATUS]` in nanoseconds of
//! `CLOCK_MONOTONIC`, which all processes share.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// A server that is silent for so long does not answer any more.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a connection rests that could not be made.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);
/// Read at a time, beyond the head.
const PIECE: usize = 1 << 20;

#[derive(Parser)]
struct Options {
    address: SocketAddr,
    model: String,
    /// As `image=FP32:1x3x224x224`; for each input of the model.
    #[arg(long = "input", required = true)]
    inputs: Vec<String>,
    #[arg(long, default_value_t = 1)]
    connections: usize,
    #[arg(long)]
    seconds: Option<f64>,
    /// Least time from one request of a connection to its next.
    #[arg(long, default_value_t = 0)]
    pace_us: u64,
    #[arg(long)]
    answers: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let request = request(&options)?;
    let pace = Duration::from_micros(options.pace_us);
    let answers = thread::scope(|scope| -> Result<Vec<Answer>> {
        let looping = (0..options.connections).map(|_| {
            // Dropped at the end, which is how a loop learns of it.
            let (running, end) = channel();
            let connection = Connection { address: options.address, stream: None };
            let request = &request[..];
            (running, scope.spawn(move || connection.run(request, pace, &end)))
        });
        let (running, loops): (Vec<_>, Vec<_>) = looping.unzip();
        wait_for_end(options.seconds)?;
        drop(running);
        let joined = loops.into_iter().map(|one| one.join().expect("a loop does not panic"));
        Ok(joined.collect::<Result<Vec<_>>>()?.concat())
    })?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}", report(answers, options.answers))?;
    out.flush().context("nobody reads the report")
}

fn wait_for_end(seconds: Option<f64>) -> Result<()> {
    if let Some(seconds) = seconds {
        let time = TimeSpec::from_duration(Duration::try_from_secs_f64(seconds)?);
        ppoll(&mut [], Some(time), None)?;
        return Ok(());
    }
    let stdin = io::stdin();
    ppoll(&mut [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)], None, None)?;
    Ok(())
}

fn now() -> Result<Duration> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?))
}

#[derive(Clone, Copy)]
struct Answer {
    sent: Duration,
    answered: Duration,
    /// 0 if the connection broke.
    status: u16,
}

impl Answer {
    fn is_good(&self) -> bool {
        self.status == 200
    }

    fn latency(&self) -> Duration {
        self.answered - self.sent
    }
}

/// One connection, made when it is needed and again after it broke.
struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

impl Connection {
    fn run(mut self, request: &[u8], pace: Duration, end: &Receiver<()>) -> Result<Vec<Answer>> {
        let mut answers = Vec::new();
        let mut memory = vec![0; PIECE];
        let mut due = now()?;
        loop {
            let sent = now()?;
            let status = self.ask(request, &mut memory).unwrap_or(0);
            answers.push(Answer { sent, answered: now()?, status });
            due = (due + pace).max(sent);
            let pause = if status == 0 { REFUSED_PAUSE } else { due.saturating_sub(now()?) };
            if end.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
                return Ok(answers);
            }
        }
    }

    fn ask(&mut self, request: &[u8], memory: &mut [u8]) -> Result<u16> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(self.address)?,
        };
        // A server that refuses a body early may have closed its side; its answer is there.
        match stream.write_all(request) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        let head = read_answer(&mut stream, memory)?;
        if !head.closes {
            self.stream = Some(stream);
        }
        Ok(head.status)
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    Ok(stream)
}

/// What matters of the head of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    length: usize,
    closes: bool,
    /// Of the head itself.
    bytes: usize,
}

fn read_answer(stream: &mut impl io::Read, memory: &mut [u8]) -> Result<Head> {
    let mut filled = 0;
    let head = loop {
        filled += read(stream, &mut memory[filled..])?;
        if let Some(head) = head_of(&memory[..filled])? {
            break head;
        }
    };
    let mut rest = (head.bytes + head.length).checked_sub(filled).context("more than an answer")?;
    while rest > 0 {
        let room = rest.min(memory.len());
        rest -= read(stream, &mut memory[..room])?;
    }
    Ok(head)
}

fn read(stream: &mut impl io::Read, room: &mut [u8]) -> Result<usize> {
    match stream.read(room)? {
        0 => bail!("the connection ended, or the head is too long"),
        length => Ok(length),
    }
}

/// `None` as long as it is not all here.
fn head_of(bytes: &[u8]) -> Result<Option<Head>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..end])?;
    let field = |wanted: &str| {
        let fields = text.lines().skip(1).filter_map(|line| line.split_once(':'));
        let mut named = fields.filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        named.next().map(|(_, value)| value.trim())
    };
    let status = text.split(' ').nth(1).context("no status")?.parse()?;
    let length = field("content-length").context("no length")?.parse()?;
    let closes = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok(Some(Head { status, length, closes, bytes: end + 4 }))
}

/// A whole request with binary tensors, as most clients send it.
fn request(options: &Options) -> Result<Vec<u8>> {
    let tensors: Vec<Tensor> =
        options.inputs.iter().map(|text| Tensor::parse(text)).collect::<Result<_>>()?;
    let described: Vec<Value> = tensors.iter().map(Tensor::described).collect();
    let head = json!({"inputs": described, "parameters": {"binary_data_output": true}}).to_string();
    let data: Vec<u8> = tensors.into_iter().flat_map(|tensor| tensor.data).collect();
    let mut bytes = format!(
        "POST /v2/models/{}/infer HTTP/1.1\r\nHost: {}\r\n\
         Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {}\r\n\
         Content-Length: {}\r\n\r\n{head}",
        options.model,
        options.address,
        head.len(),
        head.len() + data.len(),
    )
    .into_bytes();
    bytes.extend(data);
    Ok(bytes)
}

#[derive(Debug)]
struct Tensor {
    name: String,
    datatype: String,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl Tensor {
    fn parse(text: &str) -> Result<Self> {
        let form = || format!("an input is NAME=TYPE:1x3x224x224, not {text:?}");
        let (name, rest) = text.split_once('=').with_context(form)?;
        let (datatype, dims) = rest.split_once(':').with_context(form)?;
        let shape: Vec<usize> =
            dims.split('x').map(str::parse).collect::<Result<_, _>>().with_context(form)?;
        let count = shape.iter().product();
        let data = match datatype {
            "FP32" => (0_u16..251).cycle().take(count).flat_map(ramp).collect(),
            "INT64" => vec![0; 8 * count],
            "INT32" => vec![0; 4 * count],
            other => bail!("inputs are FP32, INT64 or INT32, not {other}"),
        };
        Ok(Self { name: name.to_owned(), datatype: datatype.to_owned(), shape, data })
    }

    fn described(&self) -> Value {
        json!({
            "name": self.name, "datatype": self.datatype, "shape": self.shape,
            "parameters": {"binary_data_size": self.data.len()},
        })
    }
}

fn ramp(step: u16) -> [u8; 4] {
    (f32::from(step) / 251.0).to_le_bytes()
}

fn report(mut answers: Vec<Answer>, all: bool) -> Value {
    let mut statuses: BTreeMap<String, usize> = BTreeMap::new();
    for answer in &answers {
        *statuses.entry(answer.status.to_string()).or_default() += 1;
    }
    answers.sort_by_key(|answer| answer.sent);
    let began = answers.first().map_or(Duration::ZERO, |answer| answer.sent);
    let ended = answers.iter().map(|answer| answer.answered).max().unwrap_or(began);
    let mut good: Vec<Duration> =
        answers.iter().filter(|answer| answer.is_good()).map(Answer::latency).collect();
    good.sort();
    let mut report = json!({
        "count": good.len(),
        "errors": answers.len() - good.len(),
        "seconds": (ended - began).as_secs_f64(),
        "p50_us": ranked(&good, 50),
        "p99_us": ranked(&good, 99),
        "max_us": ranked(&good, 100),
        "statuses": statuses,
    });
    if all {
        let line = |a: &Answer| json!([nanoseconds(a.sent), nanoseconds(a.answered), a.status]);
        report["answers"] = answers.iter().map(line).collect();
    }
    report
}

/// The nearest rank in microseconds; `None` without answers.
fn ranked(sorted: &[Duration], percent: usize) -> Option<f64> {
    let at = (percent * sorted.len() / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).map(|time| time.as_secs_f64() * 1e6)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn an_input_is_read() {
        let tensor = Tensor::parse("x=FP32:1x300").unwrap();
        assert_eq!((&*tensor.name, &*tensor.shape, tensor.data.len()), ("x", &[1, 300][..], 1200));
        assert_eq!(tensor.data[251 * 4..252 * 4], 0_f32.to_le_bytes(), "the ramp begins again");
        for bad in ["x", "x=FP32", "x=FP32:1xa", "x=FP16:1"] {
            assert!(Tensor::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_answer_may_come_in_pieces() {
        let bytes = b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        assert_eq!(head_of(&bytes[..40]).unwrap(), None);
        let mut pieces = bytes[..50].chain(&bytes[50..]);
        let head = read_answer(&mut pieces, &mut [0; 128]).unwrap();
        assert_eq!((head.status, head.length, head.closes), (503, 5, true));
        assert!(read_answer(&mut &bytes[..bytes.len() - 1], &mut [0; 128]).is_err(), "cut off");
    }

    #[test]
    fn a_report_tells_good_answers_from_errors() {
        let answer = |sent, answered, status| Answer {
            sent: Duration::from_millis(sent),
            answered: Duration::from_millis(answered),
            status,
        };
        let report = report(vec![answer(5, 9, 200), answer(0, 2, 200), answer(2, 3, 0)], true);
        assert_eq!((&report["count"], &report["errors"]), (&json!(2), &json!(1)));
        assert_eq!((&report["p50_us"], &report["seconds"]), (&json!(4000.0), &json!(0.009)));
        assert_eq!(report["statuses"], json!({"0": 1, "200": 2}));
        assert_eq!(report["answers"][0], json!([0, 2_000_000, 200]));
    }
}
