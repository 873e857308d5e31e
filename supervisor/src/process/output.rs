//! A worker's output: always drained, forwarded within bounds, its end kept.
//!
//! Whatever a worker writes to standard output and error arrives here. Lines are cut at a length
//! and forwarded at a rate; what is over is counted, so that a flood costs a line that says so.

use std::collections::VecDeque;
use std::io::PipeReader;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use shared::id::WorkerId;
use shared::text::clean;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::time::{Duration, Instant};
use tracing::{debug, error, info, warn};

use super::journal::Journal;

/// How much of a worker's output is passed on.
#[derive(Clone, Copy, Debug)]
pub struct LogLimits {
    pub lines_per_second: u32,
    pub line_bytes: usize,
    pub tail_lines: usize,
}

/// The last lines of a worker's output.
#[derive(Clone, Debug, Default)]
pub struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    /// The lines, oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn push(&self, line: String, limit: usize) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= limit {
            lines.pop_front();
        }
        if limit > 0 {
            lines.push_back(line);
        }
    }
}

/// Whose output it is.
#[derive(Clone, Debug)]
pub enum Speaker {
    Worker(WorkerId, Journal),
    /// The zygote of the binary of this name.
    Zygote(String),
}

/// How long nothing is read after a flood. The pipe fills meanwhile, and whoever writes too much waits.
const PAUSE: Duration = Duration::from_millis(10);
/// Bytes that are read between two pauses, whatever is in them; more if the rate allows more lines.
const BYTES_PER_PAUSE: usize = 64 << 10;
const PAUSES_PER_SECOND: usize = 100;
const CHUNK: usize = 16 << 10;

/// Reads until every writer has closed its end.
pub async fn forward(
    pipe: PipeReader,
    speaker: Speaker,
    limits: LogLimits,
    tail: Tail,
) -> std::io::Result<()> {
    let mut pipe = pipe::Receiver::from_owned_fd(OwnedFd::from(pipe))?;
    let mut intake = Intake::new(limits, Instant::now());
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = pipe.read(&mut chunk).await?;
        let heard = match read {
            0 => intake.rest(Instant::now()),
            _ => intake.hear(&chunk[..read], Instant::now()),
        };
        for Heard { line, admitted } in heard.lines {
            let (level, text) = Level::split(&line);
            tail.push(text.to_owned(), limits.tail_lines);
            if let Admit::Yes { lost } = admitted {
                say_lost(&speaker, lost);
                emit(&speaker, level, text);
            }
        }
        if read == 0 {
            say_lost(&speaker, intake.rate.lost);
            return Ok(());
        }
        if heard.pace == Pace::Slow {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn say_lost(speaker: &Speaker, lost: u64) {
    if lost == 0 {
        return;
    }
    emit(speaker, Level::Warning, &format!("{lost} lines were too many"));
}

fn emit(speaker: &Speaker, level: Level, text: &str) {
    match speaker {
        Speaker::Worker(worker, journal) => {
            journal.write(worker, level.name(), text);
            emit_of_worker(worker, level, text);
        }
        Speaker::Zygote(binary) => match level {
            Level::Error => error!(target: "zygote", binary, "{text}"),
            Level::Warning => warn!(target: "zygote", binary, "{text}"),
            Level::Info => info!(target: "zygote", binary, "{text}"),
            Level::Debug => debug!(target: "zygote", binary, "{text}"),
        },
    }
}

fn emit_of_worker(worker: &WorkerId, level: Level, text: &str) {
    let model = worker.instance.model.as_str();
    let version = worker.instance.version.get();
    let (instance, generation) = (worker.instance.index, worker.generation.0);
    match level {
        Level::Error => error!(target: "worker", model, version, instance, generation, "{text}"),
        Level::Warning => warn!(target: "worker", model, version, instance, generation, "{text}"),
        Level::Info => info!(target: "worker", model, version, instance, generation, "{text}"),
        Level::Debug => debug!(target: "worker", model, version, instance, generation, "{text}"),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Error,
    Warning,
    Info,
    Debug,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// Takes the `<N>` that our own worker code puts before a line; other output is information.
    fn split(line: &str) -> (Self, &str) {
        let prefix = line.strip_prefix('<').and_then(|rest| rest.split_once('>'));
        match prefix {
            Some(("0" | "1" | "2" | "3", text)) => (Self::Error, text),
            Some(("4", text)) => (Self::Warning, text),
            Some(("5" | "6", text)) => (Self::Info, text),
            Some(("7", text)) => (Self::Debug, text),
            Some(_) | None => (Self::Info, line),
        }
    }
}

/// Bytes to lines that are passed on or only kept, and a pace; pure. What costs time costs it for
/// lines that somebody will see: of those that are over the rate, most are only counted.
#[derive(Debug)]
struct Intake {
    splitter: Splitter,
    rate: Rate,
    tail_lines: usize,
    /// Bytes per pause.
    budget: usize,
    since: Instant,
    spent: usize,
}

#[derive(Debug)]
struct HeardLines {
    lines: Vec<Heard>,
    pace: Pace,
}

#[derive(Debug)]
struct Heard {
    line: String,
    admitted: Admit,
}

/// Whether to go on reading at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    Full,
    Slow,
}

impl Intake {
    fn new(limits: LogLimits, now: Instant) -> Self {
        let lines = usize::try_from(limits.lines_per_second).unwrap_or(usize::MAX);
        let allowed = lines.saturating_mul(limits.line_bytes) / PAUSES_PER_SECOND;
        Self {
            splitter: Splitter::new(limits.line_bytes),
            rate: Rate::new(limits.lines_per_second, now),
            tail_lines: limits.tail_lines,
            budget: allowed.max(BYTES_PER_PAUSE),
            since: now,
            spent: 0,
        }
    }

    fn hear(&mut self, mut bytes: &[u8], now: Instant) -> HeardLines {
        let mut pace = self.pace(bytes.len(), now);
        let (mut lines, mut flooded) = (Vec::new(), false);
        while !bytes.is_empty() {
            if !flooded && self.rate.is_empty(now) {
                flooded = true;
                // Only the last lines will be seen, in the tail.
                let skipped = self.splitter.skip(&mut bytes, self.tail_lines);
                self.rate.refuse(skipped);
                if skipped > 0 {
                    pace = Pace::Slow;
                }
            }
            let Some(line) = self.splitter.next(&mut bytes) else { continue };
            let admitted = self.rate.admit(now);
            if matches!(admitted, Admit::No) {
                pace = Pace::Slow;
            }
            lines.push(Heard { line, admitted });
        }
        HeardLines { lines, pace }
    }

    /// What is left at the end.
    fn rest(&mut self, now: Instant) -> HeardLines {
        let line = self.splitter.take();
        let heard = line.map(|line| Heard { line, admitted: self.rate.admit(now) });
        HeardLines { lines: heard.into_iter().collect(), pace: Pace::Full }
    }

    /// Bytes count whatever is in them: lines without an end, and ends without a line.
    fn pace(&mut self, bytes: usize, now: Instant) -> Pace {
        if now.saturating_duration_since(self.since) >= PAUSE {
            (self.since, self.spent) = (now, 0);
        }
        self.spent = self.spent.saturating_add(bytes);
        if self.spent < self.budget { Pace::Full } else { Pace::Slow }
    }
}

/// Bytes to lines of valid, harmless text of bounded length; pure.
#[derive(Debug)]
struct Splitter {
    line: Vec<u8>,
    limit: usize,
    cut: bool,
}

impl Splitter {
    fn new(limit: usize) -> Self {
        Self { line: Vec::new(), limit, cut: false }
    }

    /// Takes bytes up to the end of a line. `None` if there is no end, or nothing before it.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<String> {
        let end = bytes.iter().position(|&b| b == b'\n');
        let text = &bytes[..end.unwrap_or(bytes.len())];
        *bytes = end.map_or(&[][..], |end| &bytes[end + 1..]);
        let room = self.limit.saturating_sub(self.line.len());
        self.cut |= text.len() > room;
        self.line.extend_from_slice(&text[..text.len().min(room)]);
        end.and_then(|_| self.take())
    }

    /// Forgets all lines that end in `bytes` but the last `keep`; says how many.
    fn skip(&mut self, bytes: &mut &[u8], keep: usize) -> u64 {
        let mut ends = bytes.iter().enumerate().rev().filter(|&(_, &b)| b == b'\n');
        let Some((last, _)) = ends.nth(keep) else { return 0 };
        let (skipped, left) = bytes.split_at(last + 1);
        *bytes = left;
        self.line.clear();
        self.cut = false;
        skipped.iter().map(|&b| u64::from(b == b'\n')).sum()
    }

    /// The line so far, if there is one.
    fn take(&mut self) -> Option<String> {
        let bytes = std::mem::take(&mut self.line);
        let cut = std::mem::take(&mut self.cut);
        if bytes.is_empty() {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes);
        let mut line = clean(&text, usize::MAX);
        if cut {
            line.push_str(" [cut]");
        }
        Some(line)
    }
}

/// A token bucket of one second's worth; pure.
#[derive(Debug)]
struct Rate {
    per_second: f64,
    tokens: f64,
    refilled: Instant,
    lost: u64,
}

#[derive(Debug)]
enum Admit {
    /// `lost` lines were refused since the last one that was admitted.
    Yes {
        lost: u64,
    },
    No,
}

impl Rate {
    fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, tokens: per_second, refilled: now, lost: 0 }
    }

    /// Whether no line would be admitted now.
    fn is_empty(&mut self, now: Instant) -> bool {
        let passed: Duration = now.saturating_duration_since(self.refilled);
        self.refilled = now;
        let refilled = self.tokens + passed.as_secs_f64() * self.per_second;
        self.tokens = refilled.min(self.per_second);
        self.tokens < 1.0
    }

    /// Counts lines that nobody looked at.
    fn refuse(&mut self, lines: u64) {
        self.lost = self.lost.saturating_add(lines);
    }

    fn admit(&mut self, now: Instant) -> Admit {
        if self.is_empty(now) {
            self.refuse(1);
            return Admit::No;
        }
        self.tokens -= 1.0;
        Admit::Yes { lost: std::mem::take(&mut self.lost) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: LogLimits = LogLimits { lines_per_second: 3, line_bytes: 64, tail_lines: 2 };

    fn push(splitter: &mut Splitter, mut bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        while !bytes.is_empty() {
            lines.extend(splitter.next(&mut bytes));
        }
        lines
    }

    #[test]
    fn lines_are_whole_across_chunks_and_bounded() {
        let mut splitter = Splitter::new(8);
        assert_eq!(push(&mut splitter, b"<3>ab"), [""; 0]);
        let lines = push(&mut splitter, b"c\n\nlonger than eight\nx");
        assert_eq!(lines, ["<3>abc", "longer t [cut]"]);
        assert_eq!(splitter.take().as_deref(), Some("x"));
        assert_eq!(push(&mut splitter, b"\x1b[31m\xff\n"), [" [31m\u{fffd}"]);
    }

    #[test]
    fn a_flood_of_lines_is_counted_and_its_end_kept() {
        let now = Instant::now();
        let mut intake = Intake::new(LIMITS, now);
        let flood: String = (0..1000).map(|i| format!("{i}\n")).collect();
        let heard = intake.hear(flood.as_bytes(), now);
        let lines: Vec<&str> = heard.lines.iter().map(|heard| heard.line.as_str()).collect();
        assert_eq!(lines, ["0", "1", "2", "998", "999"]);
        assert_eq!((heard.pace, intake.rate.lost), (Pace::Slow, 997));
        // A line that had begun is one of those that are forgotten.
        let _begun = intake.hear(b"begun", now);
        let heard = intake.hear(b" and ended\na\nb\nc", now);
        let lines: Vec<&str> = heard.lines.iter().map(|heard| heard.line.as_str()).collect();
        assert_eq!((lines.as_slice(), intake.rate.lost), (&["a", "b"][..], 1000));
        let rest = intake.rest(now);
        assert_eq!(rest.lines.first().map(|heard| heard.line.as_str()), Some("c"));
    }

    #[test]
    fn bytes_without_lines_are_a_flood_too() {
        for byte in [b'x', b'\n'] {
            let now = Instant::now();
            let mut intake = Intake::new(LIMITS, now);
            let chunk = [byte; CHUNK];
            let paces: Vec<Pace> = (0..4).map(|_| intake.hear(&chunk, now).pace).collect();
            assert_eq!(paces, [Pace::Full, Pace::Full, Pace::Full, Pace::Slow], "{byte}");
            assert_eq!(intake.hear(&chunk, now + PAUSE).pace, Pace::Full, "{byte}");
            assert!(intake.splitter.line.len() <= LIMITS.line_bytes);
        }
    }

    #[test]
    fn whoever_may_say_more_may_also_be_read_faster() {
        let limits = LogLimits { lines_per_second: 100_000, line_bytes: 4096, tail_lines: 2 };
        assert_eq!(Intake::new(limits, Instant::now()).budget, 4_096_000);
    }

    #[test]
    fn levels_come_from_our_own_prefix_only() {
        assert_eq!(Level::split("<3>bad"), (Level::Error, "bad"));
        assert_eq!(Level::split("<7>detail"), (Level::Debug, "detail"));
        assert_eq!(Level::split("<html>"), (Level::Info, "<html>"));
        assert_eq!(Level::split("plain"), (Level::Info, "plain"));
    }

    #[test]
    fn a_flood_is_counted() {
        let start = Instant::now();
        let mut rate = Rate::new(2, start);
        let admitted = (0..10).filter(|_| matches!(rate.admit(start), Admit::Yes { .. })).count();
        assert_eq!(admitted, 2);
        let later = rate.admit(start + Duration::from_secs(1));
        assert!(matches!(later, Admit::Yes { lost: 8 }));
    }
}
