//! Whether requests are traced, and which of them.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use opentelemetry_otlp::ExporterBuildError;
use shared::sync::{AtomicU64, Ordering};
use tokio::time::timeout;
use tracing::{info, warn};

use super::export::{Export, Queue};
use super::parent::parent;
use super::trail::Trail;
use crate::config;

/// Traces of requests; a cheap handle. The default is off.
#[derive(Clone, Debug, Default)]
pub struct Traces(Option<Arc<Sampler>>);

#[derive(Debug, thiserror::Error)]
#[error("cannot send traces to traces.endpoint = {endpoint}")]
pub struct NotStarted {
    endpoint: String,
    source: ExporterBuildError,
}

#[derive(Debug)]
struct Sampler {
    queue: Arc<Queue>,
    /// Of 2^63: a request that is nobody's part is sampled if what is drawn for it is less.
    threshold: AtomicU64,
}

/// Where collectors take spans, below the endpoint.
const PATH: &str = "/v1/traces";

impl Traces {
    /// Starts the task that sends, if there is somewhere to send to.
    pub fn start(settings: &config::Traces) -> Result<Self, NotStarted> {
        let Some(endpoint) = &settings.endpoint else { return Ok(Self::default()) };
        let to = format!("{}{PATH}", endpoint.trim_end_matches('/'));
        let export = Export::new(settings, &to)
            .map_err(|source| NotStarted { endpoint: endpoint.clone(), source })?;
        let (queue, messages) = Queue::new(usize::try_from(settings.queue).unwrap_or(usize::MAX));
        let queue = Arc::new(queue);
        tokio::spawn(export.run(messages, Arc::downgrade(&queue)));
        let threshold = AtomicU64::new(threshold(settings.sample));
        Ok(Self(Some(Arc::new(Sampler { queue, threshold }))))
    }

    /// A trail for a request for `model`. Whoever sent the request has decided if it says so in its
    /// `traceparent`. `header` gives a header that came several times as one, joined by commas.
    pub fn begin<'h>(&self, model: &str, header: impl Fn(&str) -> Option<Cow<'h, str>>) -> Trail {
        let Some(sampler) = &self.0 else { return Trail::default() };
        let given = header("traceparent");
        let parent = given.and_then(|text| parent(&text, header("tracestate").as_deref()));
        match parent {
            Some(parent) if parent.is_sampled() => {
                let (trace, state) = (parent.trace_id(), parent.trace_state().clone());
                Trail::of(&sampler.queue, context(trace, state), parent.span_id(), model)
            }
            Some(_) => Trail::default(),
            None => {
                let drawn: u64 = rand::random();
                if drawn >> 1 >= sampler.threshold.load(Ordering::Relaxed) {
                    return Trail::default();
                }
                // The lower half decides, as other samplers do it with what they are told.
                let trace = u128::from(rand::random::<u64>().max(1)) << 64 | u128::from(drawn);
                let context = context(TraceId::from(trace), TraceState::default());
                Trail::of(&sampler.queue, context, SpanId::INVALID, model)
            }
        }
    }

    /// For requests that come from now on.
    pub fn set_sample(&self, sample: f64) {
        if let Some(sampler) = &self.0 {
            sampler.threshold.store(threshold(sample), Ordering::Relaxed);
        }
    }

    /// Requests whose spans were lost: there was no room, or the collector did not take them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |sampler| sampler.queue.dropped())
    }

    /// Sends what waits, within `limit` and no longer.
    pub async fn flush(&self, limit: Duration) {
        let Some(sampler) = &self.0 else { return };
        if timeout(limit, sampler.queue.flush()).await.is_err() {
            warn!(?limit, "the last traces could not be sent in time");
        }
        let requests = self.dropped();
        if requests > 0 {
            info!(requests, "requests whose traces were lost");
        }
    }
}

fn context(trace: TraceId, state: TraceState) -> SpanContext {
    let span = SpanId::from(rand::random::<u64>().max(1));
    SpanContext::new(trace, span, TraceFlags::SAMPLED, false, state)
}

/// 0 is none and 1 is all.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of 2^63, which need not be exact; the cast itself keeps to the range"
)]
fn threshold(sample: f64) -> u64 {
    (sample.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traces(sample: f64) -> (Traces, tokio::sync::mpsc::Receiver<super::super::export::Message>) {
        let (queue, messages) = Queue::new(1000);
        let threshold = AtomicU64::new(threshold(sample));
        (Traces(Some(Arc::new(Sampler { queue: Arc::new(queue), threshold }))), messages)
    }

    fn sampled(traces: &Traces, traceparent: Option<&str>) -> u64 {
        let before = traces.dropped();
        for _ in 0..400 {
            let header = |name: &str| traceparent.filter(|_| name == "traceparent").map(Cow::from);
            traces.begin("m", header).finish(None, 200);
        }
        traces.dropped() - before
    }

    /// With no one to take them all are dropped, and so counted.
    fn share(sample: f64, traceparent: Option<&str>) -> u64 {
        let (traces, messages) = traces(sample);
        drop(messages);
        sampled(&traces, traceparent)
    }

    #[test]
    fn those_without_a_parent_are_drawn() {
        assert_eq!((share(0.0, None), share(1.0, None)), (0, 400));
        let half = share(0.5, None);
        assert!((100..300).contains(&half), "{half}");
        let (traces, messages) = traces(0.0);
        drop(messages);
        traces.set_sample(1.0);
        assert_eq!(sampled(&traces, None), 400);
    }

    #[test]
    fn a_parent_has_decided() {
        let parent = |flags: &str| format!("00-{:032x}-{:016x}-{flags}", 5, 6);
        assert_eq!(share(0.0, Some(&parent("01"))), 400);
        assert_eq!(share(1.0, Some(&parent("00"))), 0);
        // One that is none decides nothing.
        assert_eq!(share(1.0, Some("nonsense")), 400);
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let (traces, mut messages) = traces(1.0);
        for _ in 0..1003 {
            traces.begin("m", |_| None).finish(None, 200);
        }
        assert_eq!(traces.dropped(), 3);
        assert!(messages.try_recv().is_ok());
    }

    #[tokio::test]
    async fn off_is_nothing() {
        let off = Traces::start(&config::Traces::default()).unwrap();
        off.begin("m", |_| panic!("no header is looked at")).finish(None, 200);
        off.set_sample(1.0);
        off.flush(Duration::ZERO).await;
        assert_eq!(off.dropped(), 0);
    }
}
