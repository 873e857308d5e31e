//! From a trail to spans; pure.
//!
//! ```text
//! infer      the whole request, as far as the server sees it
//!   admission  reading the head, finding the model, checking one against the other
//!   queue      waiting for a slot of a worker
//!   receive    filling the slot with the rest of the body
//!   retry      from the first worker, which has ended, to the next one; only where there was one
//!   ring       between server and worker: from the publication to the answer, less the computation
//!   compute    in the worker, by its own clock; put at the end of that time
//!   encode     making the reply
//! ```
//! They follow each other without gaps. A request that fails has no further spans than it came to; the
//! last one ends with the request and carries the error, except that what a worker has answered is the
//! error of its `compute`. By OpenTelemetry's conventions for servers, a request that was wrong is no
//! error of the whole; its `error.type` says what it was.

use std::borrow::Cow;
use std::time::Duration;

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::trail::{Failed, Finished};
use crate::request::{Fault, What};

/// Most spans of one request.
pub(super) const MOST: usize = 8;

const COMPUTE: &str = "compute";
const ROUTE: &str = "/v2/models/{model}/infer";
/// The type of the error of a request whose client has left.
const LEFT: &str = "left";

struct Step {
    name: &'static str,
    from: Duration,
    to: Duration,
}

pub(super) fn spans(finished: &Finished, scope: &InstrumentationScope) -> Vec<SpanData> {
    let steps = steps(finished);
    let failed = match finished.error.as_ref().and_then(|failed| failed.what) {
        // The model's own word on its inputs is of the client's fault, and not of the encoding's.
        Some(what) if what.fault() == Fault::Model || what == What::Invalid => {
            steps.iter().position(|step| step.name == COMPUTE).or(steps.len().checked_sub(1))
        }
        Some(_) | None => steps.len().checked_sub(1),
    };
    let mut spans = Vec::with_capacity(MOST);
    spans.push(root(finished, scope));
    for (index, step) in steps.iter().enumerate() {
        let error = finished.error.as_ref().filter(|_| failed == Some(index));
        let error = error.map(|failed| failed.message.as_str());
        let context = &finished.context;
        let child = SpanContext::new(
            context.trace_id(),
            child_id(context.span_id(), index),
            context.trace_flags(),
            false,
            context.trace_state().clone(),
        );
        spans.push(SpanData {
            span_context: child,
            parent_span_id: context.span_id(),
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            start_time: finished.began_at + step.from,
            end_time: finished.began_at + step.to,
            ..bare(step.name, error, scope)
        });
    }
    spans
}

fn root(finished: &Finished, scope: &InstrumentationScope) -> SpanData {
    let Finished { context, parent, model, version, rows, publications, status, .. } = finished;
    let failed = finished.error.as_ref();
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let mut attributes = vec![KeyValue::new("model", model.clone())];
    attributes.extend(version.map(|version| KeyValue::new("version", number(version))));
    attributes.extend(rows.map(|rows| KeyValue::new("batch", number(rows))));
    attributes
        .extend((*publications > 1).then(|| KeyValue::new("attempts", number(*publications))));
    attributes.extend([
        KeyValue::new("http.request.method", "POST"),
        KeyValue::new("url.scheme", "http"),
        KeyValue::new("http.route", ROUTE),
    ]);
    attributes
        .extend(status.map(|status| KeyValue::new("http.response.status_code", i64::from(status))));
    attributes.extend(failed.map(|failed| KeyValue::new("error", failed.message.clone())));
    let kind = failed.map(|failed| failed.what.map_or(LEFT, What::name));
    attributes.extend(kind.map(|kind| KeyValue::new("error.type", kind)));
    let is_ours = |failed: &&Failed| failed.what.is_some_and(|what| what.fault() != Fault::Client);
    let error = failed.filter(is_ours).map(|failed| failed.message.as_str());
    SpanData {
        span_context: context.clone(),
        parent_span_id: *parent,
        parent_span_is_remote: *parent != SpanId::INVALID,
        span_kind: SpanKind::Server,
        start_time: finished.began_at,
        end_time: finished.began_at + finished.ended,
        attributes,
        ..bare("infer", error, scope)
    }
}

/// The parts of the way, one after the other, up to the one in which the request has ended.
fn steps(finished: &Finished) -> Vec<Step> {
    let Finished { asked, leased, published, completed, ended, .. } = *finished;
    let mut steps = Vec::with_capacity(MOST);
    let mut from = Duration::ZERO;
    let mut step = |name, to: Option<Duration>| {
        let end = to.unwrap_or(ended).clamp(from, ended.max(from));
        steps.push(Step { name, from, to: end });
        from = end;
        to.is_some()
    };
    if !step("admission", asked) || !step("queue", leased) {
        return steps;
    }
    let (first, last) = published.unzip();
    if !step("receive", first) {
        return steps;
    }
    if finished.publications > 1 {
        step("retry", last);
    }
    // What a worker says may be anything.
    let computed = completed.map(|at| at.saturating_sub(finished.compute));
    if step("ring", computed) {
        step(COMPUTE, completed);
        step("encode", Some(ended));
    }
    steps
}

/// One after the other from that of the whole, which is drawn at random.
fn child_id(parent: SpanId, index: usize) -> SpanId {
    let parent = u64::from_be_bytes(parent.to_bytes());
    let step = u64::try_from(index).unwrap_or(u64::MAX).wrapping_add(1);
    SpanId::from(match parent.wrapping_add(step) {
        // No span has this one.
        0 => parent.wrapping_sub(step),
        id => id,
    })
}

fn bare(name: &'static str, error: Option<&str>, scope: &InstrumentationScope) -> SpanData {
    SpanData {
        span_context: SpanContext::NONE,
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: Cow::Borrowed(name),
        start_time: std::time::UNIX_EPOCH,
        end_time: std::time::UNIX_EPOCH,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: error.map_or(Status::Unset, |error| Status::error(error.to_owned())),
        instrumentation_scope: scope.clone(),
    }
}

#[cfg(test)]
#[path = "spans_tests.rs"]
mod tests;
