//! What a connection is doing, and when it has done nothing for too long.
//!
//! Counters instead of a timer for each request: the connection's task looks at them now and then.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use shared::sync::{AtomicBool, AtomicU64, Ordering};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Counted by the socket and the service, read by the connection's task. Nothing but the counters
/// themselves depends on them, so that relaxed ordering is enough.
#[derive(Debug, Default)]
pub(super) struct Activity {
    begun: AtomicU64,
    ended: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
    multiplexed: AtomicBool,
}

/// A request in progress; over when dropped.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

impl Activity {
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// The connection carries control frames between requests, too.
    pub(super) fn is_multiplexed(&self) {
        self.multiplexed.store(true, Ordering::Relaxed);
    }

    /// Whether no request has come yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.begun.load(Ordering::Relaxed) == 0
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            begun: self.begun.load(Ordering::Relaxed),
            ended: self.ended.load(Ordering::Relaxed),
            reads: self.reads.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            multiplexed: self.multiplexed.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    begun: u64,
    ended: u64,
    reads: u64,
    writes: u64,
    multiplexed: bool,
}

/// Judges a connection from snapshots. Pure.
#[derive(Debug)]
pub(super) struct Watch {
    header_timeout: Duration,
    idle_timeout: Duration,
    last: Snapshot,
    quiet_since: Instant,
    /// Since when bytes have come that did not become a request.
    partial_since: Option<Instant>,
    told: Told,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Idle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    /// Idle for too long: to be closed in good order.
    Idle,
    /// Stuck in a request's head, or still here after it was to close.
    Stuck,
}

impl Watch {
    pub(super) fn new(now: Instant, header_timeout: Duration, idle_timeout: Duration) -> Self {
        Self {
            header_timeout,
            idle_timeout,
            last: Snapshot::default(),
            quiet_since: now,
            partial_since: None,
            told: Told::Nothing,
        }
    }

    /// How long to wait before looking again: a verdict is late by that much at most.
    pub(super) fn interval(&self) -> Duration {
        (self.header_timeout.min(self.idle_timeout) / 2).max(Duration::from_millis(1))
    }

    pub(super) fn look(&mut self, now: Instant, seen: Snapshot) -> Verdict {
        let moved = (seen.begun, seen.ended, seen.writes)
            != (self.last.begun, self.last.ended, self.last.writes);
        if moved || seen.begun != seen.ended {
            self.last = seen;
            self.quiet_since = now;
            self.partial_since = None;
            self.told = Told::Nothing;
            return Verdict::Fine;
        }
        if seen.reads != self.last.reads && !seen.multiplexed {
            self.partial_since.get_or_insert(now);
        }
        let stuck = self.partial_since.is_some_and(|since| now - since >= self.header_timeout);
        let idle = now - self.quiet_since >= self.idle_timeout;
        match (stuck, idle, self.told) {
            (true, _, _) | (false, true, Told::Idle) => Verdict::Stuck,
            (false, true, Told::Nothing) => {
                self.told = Told::Idle;
                Verdict::Idle
            }
            (false, false, _) => Verdict::Fine,
        }
    }
}

/// A socket that counts.
#[derive(Debug)]
pub(super) struct Counted<S> {
    pub(super) socket: S,
    pub(super) activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if read.is_ready() {
            self.activity.reads.fetch_add(1, Ordering::Relaxed);
        }
        read
    }
}

impl<S> Counted<S> {
    fn count_write(&self, written: &Poll<io::Result<usize>>) {
        if written.is_ready() {
            self.activity.writes.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.count_write(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.count_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(60);

    fn seen(begun: u64, ended: u64, reads: u64) -> Snapshot {
        Snapshot { begun, ended, reads, ..Snapshot::default() }
    }

    fn verdicts(story: &[(u64, Snapshot)]) -> Vec<Verdict> {
        let start = Instant::now();
        let mut watch = Watch::new(start, HEADER, IDLE);
        story.iter().map(|(s, seen)| watch.look(start + Duration::from_secs(*s), *seen)).collect()
    }

    #[test]
    fn a_request_in_progress_is_never_idle() {
        let story = [(5, seen(1, 0, 1)), (500, seen(1, 0, 1)), (1000, seen(1, 0, 9))];
        assert_eq!(verdicts(&story), [Verdict::Fine; 3]);
    }

    #[test]
    fn an_idle_connection_is_closed_then_dropped() {
        let story =
            [(5, seen(1, 1, 1)), (64, seen(1, 1, 1)), (65, seen(1, 1, 1)), (66, seen(1, 1, 1))];
        let expected = [Verdict::Fine, Verdict::Fine, Verdict::Idle, Verdict::Stuck];
        assert_eq!(verdicts(&story), expected);
    }

    #[test]
    fn half_a_head_is_dropped_early() {
        let fresh = [(5, seen(0, 0, 1)), (14, seen(0, 0, 2)), (15, seen(0, 0, 3))];
        assert_eq!(verdicts(&fresh), [Verdict::Fine, Verdict::Fine, Verdict::Stuck]);
        let reused = [(5, seen(1, 1, 1)), (10, seen(1, 1, 2)), (20, seen(1, 1, 2))];
        assert_eq!(verdicts(&reused), [Verdict::Fine, Verdict::Fine, Verdict::Stuck]);
    }

    #[test]
    fn a_body_read_before_the_look_is_no_half_head() {
        let story = [(5, seen(1, 0, 1)), (10, seen(1, 1, 7)), (30, seen(1, 1, 7))];
        assert_eq!(verdicts(&story), [Verdict::Fine; 3]);
    }

    #[test]
    fn control_frames_are_no_half_head() {
        let many = |reads| Snapshot { multiplexed: true, ..seen(1, 1, reads) };
        let story = [(5, many(1)), (20, many(2)), (40, many(3)), (65, many(4))];
        let expected = [Verdict::Fine, Verdict::Fine, Verdict::Fine, Verdict::Idle];
        assert_eq!(verdicts(&story), expected);
    }

    #[test]
    fn a_response_that_is_still_being_read_is_no_idleness() {
        let written = |writes| Snapshot { writes, ..seen(1, 1, 1) };
        let story = [(5, written(1)), (60, written(2)), (115, written(3)), (175, written(3))];
        let expected = [Verdict::Fine, Verdict::Fine, Verdict::Fine, Verdict::Idle];
        assert_eq!(verdicts(&story), expected);
    }
}
