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
    Worker(WorkerId),
    /// The zygote of the binary of this name.
    Zygote(String),
}

/// How long nothing is read after lines that were too many.
const PAUSE: Duration = Duration::from_millis(10);

/// Reads until every writer has closed its end.
pub async fn forward(
    pipe: PipeReader,
    speaker: Speaker,
    limits: LogLimits,
    tail: Tail,
) -> std::io::Result<()> {
    let mut pipe = pipe::Receiver::from_owned_fd(OwnedFd::from(pipe))?;
    let mut splitter = Splitter::new(limits.line_bytes);
    let mut rate = Rate::new(limits.lines_per_second, Instant::now());
    let mut chunk = vec![0; 16 << 10];
    loop {
        let read = pipe.read(&mut chunk).await?;
        let lines = if read == 0 { splitter.rest() } else { splitter.push(&chunk[..read]) };
        let mut flood = false;
        for line in lines {
            let (level, text) = Level::split(&line);
            tail.push(text.to_owned(), limits.tail_lines);
            match rate.admit(Instant::now()) {
                Admit::Yes { lost: 0 } => emit(&speaker, level, text),
                Admit::Yes { lost } => {
                    say_lost(&speaker, lost);
                    emit(&speaker, level, text);
                }
                Admit::No => flood = true,
            }
        }
        if read == 0 {
            if rate.lost > 0 {
                say_lost(&speaker, rate.lost);
            }
            return Ok(());
        }
        if flood {
            // The pipe fills meanwhile, and whoever writes too much waits.
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn say_lost(speaker: &Speaker, lost: u64) {
    emit(speaker, Level::Warning, &format!("{lost} lines were too many"));
}

fn emit(speaker: &Speaker, level: Level, text: &str) {
    match speaker {
        Speaker::Worker(worker) => emit_of_worker(worker, level, text),
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

    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|&b| b == b'\n') {
            let (text, ended) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                Some(_) | None => (piece, false),
            };
            let room = self.limit.saturating_sub(self.line.len());
            self.cut |= text.len() > room;
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if ended {
                lines.extend(self.take());
            }
        }
        lines
    }

    fn rest(&mut self) -> Vec<String> {
        self.take().into_iter().collect()
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

    fn admit(&mut self, now: Instant) -> Admit {
        let passed: Duration = now.saturating_duration_since(self.refilled);
        self.refilled = now;
        let refilled = self.tokens + passed.as_secs_f64() * self.per_second;
        self.tokens = refilled.min(self.per_second);
        if self.tokens < 1.0 {
            self.lost += 1;
            return Admit::No;
        }
        self.tokens -= 1.0;
        Admit::Yes { lost: std::mem::take(&mut self.lost) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_across_chunks_and_bounded() {
        let mut splitter = Splitter::new(8);
        assert_eq!(splitter.push(b"<3>ab"), [""; 0]);
        assert_eq!(splitter.push(b"c\n\nlonger than eight\nx"), ["<3>abc", "longer t [cut]"]);
        assert_eq!(splitter.rest(), ["x"]);
        assert_eq!(splitter.push(b"\x1b[31m\xff\n"), [" [31m\u{fffd}"]);
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
