//! What one request notes on its way. Without a sampler that wants it there is nothing: no clock is
//! read and no memory taken.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId};
use shared::limits::MAX_MODEL_NAME_BYTES;
use shared::sync::{AtomicU64, Ordering};

use super::export::Queue;
use crate::request::{RequestError, What};

/// A moment on the way of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Mark {
    /// It fits the model, and asks for a slot.
    Asked,
    /// It has one.
    Leased,
    /// A worker can see it.
    Published,
    /// The worker's answer has been seen.
    Completed,
}

const MARKS: usize = 4;
/// A number that was not noted.
const NONE: u64 = u64::MAX;

/// Goes with a request; finished when it is answered, or dropped when its client has left.
#[derive(Debug, Default)]
pub struct Trail(Option<Box<Noted>>);

/// Notes of a request that is sampled. Written by one task after the other, read at the end.
#[derive(Debug)]
struct Noted {
    queue: Arc<Queue>,
    context: SpanContext,
    parent: SpanId,
    model: String,
    began: Instant,
    began_at: SystemTime,
    /// Nanoseconds since it began.
    marks: [AtomicU64; MARKS],
    last_published: AtomicU64,
    publications: AtomicU64,
    compute: AtomicU64,
    version: AtomicU64,
    rows: AtomicU64,
}

/// A trail that has come to its end.
#[derive(Clone, Debug)]
pub(super) struct Finished {
    pub(super) context: SpanContext,
    /// Invalid if it is nobody's part.
    pub(super) parent: SpanId,
    pub(super) model: String,
    pub(super) version: Option<u64>,
    pub(super) rows: Option<u64>,
    pub(super) began_at: SystemTime,
    pub(super) asked: Option<Duration>,
    pub(super) leased: Option<Duration>,
    /// The first and the last time; there are two where its first worker has ended.
    pub(super) published: Option<(Duration, Duration)>,
    pub(super) publications: u64,
    pub(super) completed: Option<Duration>,
    /// As the worker says.
    pub(super) compute: Duration,
    pub(super) ended: Duration,
    pub(super) error: Option<Failed>,
    /// As HTTP has it; `None` if there was no answer.
    pub(super) status: Option<u16>,
}

/// Why there was no answer.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    /// `None` if the client has left.
    pub(super) what: Option<What>,
    pub(super) message: String,
}

/// Most bytes of an error that a span carries.
const MAX_ERROR: usize = 256;
const LEFT: &str = "the client has left";

impl Trail {
    pub(super) fn of(
        queue: &Arc<Queue>,
        context: SpanContext,
        parent: SpanId,
        model: &str,
    ) -> Self {
        Self(Some(Box::new(Noted {
            queue: Arc::clone(queue),
            context,
            parent,
            model: cut(model, MAX_MODEL_NAME_BYTES),
            began: Instant::now(),
            began_at: SystemTime::now(),
            marks: [const { AtomicU64::new(NONE) }; MARKS],
            last_published: AtomicU64::new(NONE),
            publications: AtomicU64::new(0),
            compute: AtomicU64::new(0),
            version: AtomicU64::new(NONE),
            rows: AtomicU64::new(NONE),
        })))
    }

    /// Notes the moment; the first time counts.
    pub fn mark(&self, mark: Mark) {
        let Some(noted) = &self.0 else { return };
        let now = noted.elapsed();
        if mark == Mark::Published {
            noted.last_published.store(now, Ordering::Relaxed);
            noted.publications.fetch_add(1, Ordering::Relaxed);
        }
        let at = &noted.marks[mark as usize];
        if at.load(Ordering::Relaxed) == NONE {
            at.store(now, Ordering::Relaxed);
        }
    }

    /// Notes the answer of a worker, and how long it computed by its own clock.
    pub fn completed(&self, compute: Duration) {
        if let Some(noted) = &self.0 {
            noted.compute.store(nanos(compute), Ordering::Relaxed);
        }
        self.mark(Mark::Completed);
    }

    /// Notes what it is that is asked for, and how many rows of a batch it has.
    pub fn admitted(&self, version: u64, rows: Option<u64>) {
        if let Some(noted) = &self.0 {
            noted.version.store(version, Ordering::Relaxed);
            noted.rows.store(rows.unwrap_or(NONE), Ordering::Relaxed);
        }
    }

    /// The request is answered, with this status of HTTP.
    pub fn finish(mut self, error: Option<&RequestError>, status: u16) {
        if let Some(noted) = self.0.take() {
            let failed = |error: &RequestError| Failed {
                what: Some(error.what),
                message: cut(&error.message, MAX_ERROR),
            };
            noted.finish(error.map(failed), Some(status));
        }
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        if let Some(noted) = self.0.take() {
            noted.finish(Some(Failed { what: None, message: LEFT.to_owned() }), None);
        }
    }
}

impl Noted {
    fn elapsed(&self) -> u64 {
        nanos(self.began.elapsed())
    }

    fn finish(self: Box<Self>, error: Option<Failed>, status: Option<u16>) {
        let ended = Duration::from_nanos(self.elapsed());
        let Self { queue, context, parent, model, began_at, .. } = *self;
        let at = |mark: Mark| noted(&self.marks[mark as usize]).map(Duration::from_nanos);
        let last = noted(&self.last_published).map(Duration::from_nanos);
        queue.put(Finished {
            context,
            parent,
            model,
            version: noted(&self.version),
            rows: noted(&self.rows),
            began_at,
            asked: at(Mark::Asked),
            leased: at(Mark::Leased),
            published: at(Mark::Published).zip(last),
            publications: self.publications.load(Ordering::Relaxed),
            completed: at(Mark::Completed),
            compute: Duration::from_nanos(self.compute.load(Ordering::Relaxed)),
            ended,
            error,
            status,
        });
    }
}

fn noted(number: &AtomicU64) -> Option<u64> {
    Some(number.load(Ordering::Relaxed)).filter(|&number| number != NONE)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn cut(text: &str, most: usize) -> String {
    let end = (0..=most.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    text[..end.unwrap_or_default()].to_owned()
}
