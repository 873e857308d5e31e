//! A steady load of the digits model, for `scripts/bench faults`: a request each so often, whatever
//! became of those before.
//!
//! One thread and few system calls, because it shares the machine with what it measures. Requests
//! go over connections that are kept; what is due while all of them wait is passed over. It prints
//! `ready` when its connections stand, and takes orders from standard input, a line each:
//!
//! * `after T`: prints the moment of the first good answer to a request sent after the moment T;
//! * `stop`: prints every answer as `SENT ANSWERED GOOD`, good being 1 or 0, and ends.
//!
//! Moments are nanoseconds of `CLOCK_MONOTONIC`, which all processes share.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use serde_json::json;

/// As many requests may wait at a time, fewer than the server's queue takes.
const CONNECTIONS: usize = 200;
const PIXELS: usize = 64;

#[derive(Parser)]
struct Options {
    address: SocketAddr,
    model: String,
    /// Nanoseconds from one request to the next.
    pace: u64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let mut pacer = Pacer::connect(&options)?;
    say("ready")?;
    let mut orders = Orders::default();
    let mut due = now()?;
    loop {
        let time = now()?;
        if time >= due {
            pacer.ask(time)?;
            // What was missed is not made up for: that would be a burst.
            due = time.max(due + options.pace);
        }
        let ordered = pacer.wait(Duration::from_nanos(due.saturating_sub(now()?)))?;
        if ordered {
            for order in orders.read()? {
                match order.split_once(' ') {
                    Some(("after", moment)) => pacer.awaited = Some(moment.parse()?),
                    _ => return pacer.report(),
                }
            }
        }
    }
}

fn now() -> Result<u64> {
    let time = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    Ok(u64::try_from(time.as_nanos())?)
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush().context("nobody listens")
}

struct Answer {
    sent: u64,
    answered: u64,
    good: bool,
}

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    sent: u64,
}

struct Pacer {
    request: Request,
    /// The one that was used last is used next, so that few of them are warm and not all lukewarm.
    idle: Vec<Connection>,
    waiting: Vec<Connection>,
    answers: Vec<Answer>,
    awaited: Option<u64>,
    count: u16,
}

impl Pacer {
    fn connect(options: &Options) -> Result<Self> {
        let connection = |_| {
            let stream = TcpStream::connect(options.address)?;
            stream.set_nodelay(true)?;
            Ok(Connection { stream, received: Vec::new(), sent: 0 })
        };
        Ok(Self {
            request: Request::new(options)?,
            idle: (0..CONNECTIONS).map(connection).collect::<Result<_>>()?,
            waiting: Vec::new(),
            answers: Vec::new(),
            awaited: None,
            count: 0,
        })
    }

    fn ask(&mut self, time: u64) -> Result<()> {
        let Some(mut connection) = self.idle.pop() else { return Ok(()) };
        self.count = self.count.wrapping_add(1);
        connection.sent = time;
        // Small, so it never waits for the server to read.
        connection.stream.write_all(self.request.number(self.count))?;
        self.waiting.push(connection);
        Ok(())
    }

    /// Hears what comes in this time, up to the first of it. Whether there is an order to read.
    fn wait(&mut self, time: Duration) -> Result<bool> {
        let stdin = std::io::stdin();
        let streams = self.waiting.iter().map(|connection| connection.stream.as_fd());
        let mut watched: Vec<PollFd<'_>> = streams
            .chain([stdin.as_fd()])
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
            .collect();
        ppoll(&mut watched, Some(TimeSpec::from_duration(time)), None)?;
        let mut heard: Vec<bool> = watched.iter().map(|one| one.any() == Some(true)).collect();
        drop(watched);
        let ordered = heard.pop() == Some(true);
        let mut heard = heard.into_iter();
        for connection in std::mem::take(&mut self.waiting) {
            if heard.next() == Some(true) {
                self.hear(connection)?;
            } else {
                self.waiting.push(connection);
            }
        }
        Ok(ordered)
    }

    fn hear(&mut self, mut connection: Connection) -> Result<()> {
        let mut piece = [0; 4096];
        let length = connection.stream.read(&mut piece).unwrap_or(0);
        connection.received.extend_from_slice(&piece[..length]);
        let status = status_of_whole(&connection.received);
        if status.is_none() && length > 0 {
            self.waiting.push(connection);
            return Ok(());
        }
        let (sent, answered, good) = (connection.sent, now()?, status == Some(200));
        self.answers.push(Answer { sent, answered, good });
        if good && self.awaited.is_some_and(|moment| sent > moment) {
            say(&answered.to_string())?;
            self.awaited = None;
        }
        // One that the server has closed is not used again.
        if length > 0 {
            connection.received.clear();
            self.idle.push(connection);
        }
        Ok(())
    }

    fn report(self) -> Result<()> {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        for Answer { sent, answered, good } in self.answers {
            writeln!(out, "{sent} {answered} {}", u8::from(good))?;
        }
        out.flush().context("nobody reads the answers")
    }
}

/// The status of an answer, once all of it is here.
fn status_of_whole(received: &[u8]) -> Option<u16> {
    let end = received.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&received[..end]).ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())?.ok()
    })?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    (received.len() - end - 4 >= length).then_some(status)
}

/// An image of one pixel that counts, so that no two requests are alike: one that is in flight alone
/// at two kills would be refused.
struct Request {
    bytes: Vec<u8>,
    first_pixel: usize,
}

impl Request {
    fn new(options: &Options) -> Result<Self> {
        let image = json!({
            "name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8],
            "parameters": {"binary_data_size": 4 * PIXELS},
        });
        let body = json!({"inputs": [image], "parameters": {"binary_data_output": true}});
        let body = body.to_string();
        let mut bytes = format!(
            "POST /v2/models/{}/infer HTTP/1.1\r\nHost: {}\r\n\
             Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            options.model,
            options.address,
            body.len(),
            body.len() + 4 * PIXELS,
        )
        .into_bytes();
        let first_pixel = bytes.len();
        bytes.resize(first_pixel + 4 * PIXELS, 0);
        Ok(Self { bytes, first_pixel })
    }

    fn number(&mut self, count: u16) -> &[u8] {
        let pixel = f32::from(count).to_le_bytes();
        self.bytes[self.first_pixel..][..pixel.len()].copy_from_slice(&pixel);
        &self.bytes
    }
}

/// Lines of standard input, of which only whole ones are given out.
#[derive(Default)]
struct Orders {
    unread: String,
}

impl Orders {
    fn read(&mut self) -> Result<Vec<String>> {
        let mut piece = [0; 256];
        let length = nix::unistd::read(std::io::stdin(), &mut piece)?;
        if length == 0 {
            bail!("whoever ordered this load is gone");
        }
        self.unread.push_str(std::str::from_utf8(&piece[..length])?);
        let end = self.unread.rfind('\n').map_or(0, |last| last + 1);
        Ok(self.unread.drain(..end).collect::<String>().lines().map(str::to_owned).collect())
    }
}
