//! What waits to be sent, and the task that sends it. Nobody waits for either.

use std::time::Duration;

use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::SpanExporter as _;
use shared::sync::{AtomicU64, Ordering};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use super::spans::{self, spans};
use super::trail::Finished;
use crate::config;

/// Requests whose spans are sent together, and how long the first of them waits for others.
const BATCH: usize = 128;
const LINGER: Duration = Duration::from_secs(1);
/// After a failure: a collector that is down is not asked again for each batch.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is told that requests were lost.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Finished trails on their way out. Bounded: what does not fit is dropped and counted.
#[derive(Debug)]
pub(super) struct Queue {
    inbox: mpsc::Sender<Message>,
    dropped: AtomicU64,
}

#[derive(Debug)]
pub(super) enum Message {
    Finished(Box<Finished>),
    /// To be answered when all that came before has been sent, or lost.
    Flush(oneshot::Sender<()>),
}

impl Queue {
    pub(super) fn new(room: usize) -> (Self, mpsc::Receiver<Message>) {
        let (inbox, messages) = mpsc::channel(room);
        (Self { inbox, dropped: AtomicU64::new(0) }, messages)
    }

    pub(super) fn put(&self, finished: Finished) {
        if self.inbox.try_send(Message::Finished(Box::new(finished))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests whose spans were lost.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn lost(&self, requests: usize) {
        self.dropped.fetch_add(u64::try_from(requests).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        let _ended = self.inbox.send(Message::Flush(done)).await;
        let _ended = flushed.await;
    }
}

/// Sends what is in the queue. Ends with the queue.
#[derive(Debug)]
pub(super) struct Export {
    exporter: SpanExporter,
    scope: InstrumentationScope,
    timeout: Duration,
    health: Health,
    /// What was told of lost requests, and when.
    told: (u64, Option<Instant>),
}

/// How the last attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Good,
    Failing,
}

/// A batch, and who waits for it.
#[derive(Debug, Default)]
struct Batch {
    requests: Vec<Finished>,
    flushes: Vec<oneshot::Sender<()>>,
}

impl Export {
    pub(super) fn new(settings: &config::Traces, to: &str) -> Result<Self, ExporterBuildError> {
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(to)
            .with_timeout(settings.timeout)
            .build()?;
        exporter.set_resource(&resource());
        let scope = InstrumentationScope::builder("bulkhead")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        Ok(Self {
            exporter,
            scope,
            timeout: settings.timeout,
            health: Health::Good,
            told: (0, None),
        })
    }

    pub(super) async fn run(
        mut self,
        mut messages: mpsc::Receiver<Message>,
        queue: std::sync::Weak<Queue>,
    ) {
        while let Some(Batch { requests, flushes }) = next(&mut messages).await {
            let count = requests.len();
            let sent = requests.is_empty() || self.send(&requests).await;
            drop(requests);
            if let Some(queue) = queue.upgrade() {
                queue.lost(if sent { 0 } else { count });
                self.tell_lost(queue.dropped());
            }
            for flush in flushes {
                let _gone = flush.send(());
            }
            if !sent {
                sleep(PAUSE).await;
            }
        }
    }

    /// How many were lost so far, now and then if it is more than it was.
    fn tell_lost(&mut self, requests: u64) {
        let (told, at) = self.told;
        if requests > told && at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            warn!(requests, "requests whose traces were lost so far");
            self.told = (requests, Some(Instant::now()));
        }
    }

    async fn send(&mut self, requests: &[Finished]) -> bool {
        let mut batch = Vec::with_capacity(requests.len() * spans::MOST);
        batch.extend(requests.iter().flat_map(|finished| spans(finished, &self.scope)));
        let outcome = match timeout(self.timeout, self.exporter.export(batch)).await {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
            Err(_late) => Err(format!("no answer within {:?}", self.timeout)),
        };
        match (&outcome, self.health) {
            (Ok(()), Health::Good) | (Err(_), Health::Failing) => {}
            (Ok(()), Health::Failing) => info!("traces are taken again"),
            // Once; what is lost meanwhile is counted.
            (Err(error), Health::Good) => warn!(error, "traces are not taken, and are dropped"),
        }
        self.health = if outcome.is_ok() { Health::Good } else { Health::Failing };
        outcome.is_ok()
    }
}

/// Which of many servers this is. What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say comes on top.
fn resource() -> Resource {
    let name = std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
    let name = name.map(|name| KeyValue::new("service.name", name));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let instance = format!("{:016x}{:016x}", rand::random::<u64>(), rand::random::<u64>());
    Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", "bulkhead"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance),
            KeyValue::new("host.name", host.trim().to_owned()),
            KeyValue::new("process.pid", i64::from(std::process::id())),
        ])
        .with_detectors(&[
            Box::new(TelemetryResourceDetector),
            Box::new(EnvResourceDetector::new()),
        ])
        // Above what the other variable says of it.
        .with_attributes(name)
        .build()
}

/// The next requests to send together; `None` when the queue is gone.
async fn next(messages: &mut mpsc::Receiver<Message>) -> Option<Batch> {
    let mut batch = Batch::default();
    batch.take(messages.recv().await?);
    let until = Instant::now() + LINGER;
    while batch.waits() {
        match timeout_at(until, messages.recv()).await {
            Ok(Some(message)) => batch.take(message),
            Ok(None) | Err(_) => break,
        }
    }
    Some(batch)
}

impl Batch {
    fn take(&mut self, message: Message) {
        match message {
            Message::Finished(finished) => self.requests.push(*finished),
            Message::Flush(done) => self.flushes.push(done),
        }
    }

    fn waits(&self) -> bool {
        self.requests.len() < BATCH && self.flushes.is_empty()
    }
}
