//! What is asked of each version of a model.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::metrics::MetricType;

use crate::frontend::metrics::text::Kind::{Counter, Gauge, PlainCounter};
use crate::frontend::metrics::text::{Kind, Labels, Out};
use crate::overview::Overview;
use crate::request::What;
use crate::schedule::Usage;
use crate::stats::{Counted, Failure, Shape};

/// One version.
struct Row {
    model: String,
    version: String,
    counted: Counted,
    /// Of latency and queue time; a version that was never asked has none, which is most of what there is
    /// to write.
    shapes: Option<[Shape; 2]>,
    /// `None` while no request can reach it.
    usage: Option<Usage>,
}

impl Row {
    fn labels(&self) -> Labels<'_, 2> {
        [("model", self.model.as_str()), ("version", self.version.as_str())]
    }

    fn and<'a>(&'a self, name: &'static str, value: &'a str) -> Labels<'a, 3> {
        let [model, version] = self.labels();
        [model, version, (name, value)]
    }
}

pub(in crate::frontend::metrics) fn write(
    out: &mut Out<'_, '_>,
    overview: &Overview,
) -> fmt::Result {
    let rows = rows(overview);
    triton(out, &rows)?;
    failures(out, &rows)?;
    slots(out, &rows)?;
    let help = "Time from admission to reply of requests that succeeded.";
    let latency =
        |[latency, _]: &[Shape; 2], counted: &Counted| (latency.clone(), counted.request_us);
    histogram(out, ("bulkhead_request_duration_seconds", help), &rows, latency)?;
    let help = "Time of that in which they waited, for a slot and for their worker to begin.";
    let queued = |[_, queued]: &[Shape; 2], counted: &Counted| (queued.clone(), counted.queue_us);
    histogram(out, ("bulkhead_queue_duration_seconds", help), &rows, queued)?;
    let unrouted = overview.routes().stats().unrouted_so_far();
    let unrouted = unrouted.iter().map(|(what, count)| ([("what", what.name())], *count));
    let help = "Inferences that no model got, by what the client was told.";
    out.family((Counter, "bulkhead_unrouted_requests", help), unrouted)
}

fn rows(overview: &Overview) -> Vec<Row> {
    let routes = overview.routes().all();
    let usages: BTreeMap<_, Usage> = routes
        .iter()
        .map(|route| ((route.model(), route.version()), route.queue().usage()))
        .collect();
    let all = overview.routes().stats().all().into_iter();
    all.map(|(model, version, stats)| Row {
        usage: usages.get(&(model.as_str(), version)).copied(),
        model: model.to_string(),
        version: version.to_string(),
        shapes: stats.was_asked().then(|| [stats.latency(), stats.queued()]),
        counted: stats.counted(),
    })
    .collect()
}

/// The names and the meaning of Triton's.
fn triton(out: &mut Out<'_, '_>, rows: &[Row]) -> fmt::Result {
    let mut family = |(kind, name, help): (Kind, &str, &str), of: fn(&Row) -> Option<u64>| {
        let samples = rows.iter().filter_map(|row| Some((row.labels(), of(row)?)));
        out.family((kind, name, help), samples)
    };
    let help = "Number of successful inference requests, all batch sizes";
    family((PlainCounter, "nv_inference_request_success", help), |r| Some(r.counted.succeeded))?;
    let help = "Number of inferences performed (does not include cached requests)";
    family((PlainCounter, "nv_inference_count", help), |r| Some(r.counted.rows))?;
    let help = "Number of model executions performed (does not include cached requests)";
    family((PlainCounter, "nv_inference_exec_count", help), |r| Some(r.counted.executions))?;
    let help = "Cumulative inference request duration in microseconds (includes cached requests)";
    let name = "nv_inference_request_duration_us";
    family((PlainCounter, name, help), |r| Some(r.counted.request_us))?;
    let help = "Cumulative inference queuing duration in microseconds (includes cached requests)";
    let name = "nv_inference_queue_duration_us";
    family((PlainCounter, name, help), |r| Some(r.counted.queue_us))?;
    let help =
        "Cumulative compute input duration in microseconds (does not include cached requests)";
    let name = "nv_inference_compute_input_duration_us";
    family((PlainCounter, name, help), |r| Some(r.counted.input_us))?;
    let help =
        "Cumulative compute inference duration in microseconds (does not include cached requests)";
    let name = "nv_inference_compute_infer_duration_us";
    family((PlainCounter, name, help), |r| Some(r.counted.infer_us))?;
    let help = "Cumulative inference compute output duration in microseconds (does not include cached requests)";
    let name = "nv_inference_compute_output_duration_us";
    family((PlainCounter, name, help), |r| Some(r.counted.output_us))?;
    let help = "Instantaneous number of pending requests awaiting execution per-model.";
    family((Gauge, "nv_inference_pending_request_count", help), |r| {
        let Usage { executing, .. } = r.usage.unwrap_or_default();
        let executing = u64::try_from(executing).unwrap_or(u64::MAX);
        Some(r.counted.waiting + r.counted.in_flight.saturating_sub(executing))
    })
}

fn failures(out: &mut Out<'_, '_>, rows: &[Row]) -> fmt::Result {
    let samples = rows.iter().flat_map(|row| {
        let counts = Failure::ALL.into_iter().zip(row.counted.failed);
        counts.map(|(reason, count)| (row.and("reason", reason.name()), count))
    });
    let help = "Number of failed inference requests, all batch sizes";
    out.family((PlainCounter, "nv_inference_request_failure", help), samples)?;
    let samples = rows.iter().flat_map(|row| {
        let counts = row.counted.refused.iter();
        counts.map(|(what, count)| (row.and("what", what.name()), *count))
    });
    let help =
        "Failed requests by what the client was told; a client that has left was told nothing.";
    out.family((Counter, "bulkhead_request_failures", help), samples)?;
    let poison = |row: &Row| {
        let found = row.counted.refused.iter().find(|(what, _)| *what == What::Poison);
        found.map_or(0, |(_, count)| *count)
    };
    let samples = rows.iter().map(|row| (row.labels(), poison(row)));
    let help = "Requests that were refused because the same request has ended workers.";
    out.family((Counter, "bulkhead_poisoned_requests_refused", help), samples)
}

fn slots(out: &mut Out<'_, '_>, rows: &[Row]) -> fmt::Result {
    let mut family = |name: &str, help: &str, of: fn(&Row) -> Option<u64>| {
        let samples = rows.iter().filter_map(|row| Some((row.labels(), of(row)?)));
        out.family((Gauge, name, help), samples)
    };
    let help = "Requests that wait for a slot.";
    family("bulkhead_requests_waiting", help, |r| Some(r.counted.waiting))?;
    let help = "Requests that have a slot.";
    family("bulkhead_requests_in_flight", help, |r| Some(r.counted.in_flight))?;
    let help = "Requests that may wait for a slot; more are refused.";
    family("bulkhead_queue_places", help, |r| u64::try_from(r.usage?.places).ok())?;
    let help = "Slots of the workers that serve.";
    family("bulkhead_slots", help, |r| u64::try_from(r.usage?.slots).ok())?;
    let help = "Slots of the workers that serve that are in use.";
    family("bulkhead_slots_in_use", help, |r| u64::try_from(r.usage?.in_use).ok())
}

/// The first and the last edge, as powers of two of a microsecond: 64 µs and 67 s.
const FIRST_EDGE: u32 = 6;
const LAST_EDGE: u32 = 26;

fn histogram(
    out: &mut Out<'_, '_>,
    (name, help): (&str, &str),
    rows: &[Row],
    of: fn(&[Shape; 2], &Counted) -> (Shape, u64),
) -> fmt::Result {
    let mut family = out.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for row in rows {
        let Some(shapes) = &row.shapes else { continue };
        let (shape, sum_us) = of(shapes, &row.counted);
        let edges = (FIRST_EDGE..=LAST_EDGE).map(|bits| seconds(1 << bits));
        let edges = edges.chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = edges.zip(shape.octaves(FIRST_EDGE, LAST_EDGE)).collect();
        let labels = row.labels();
        let mut metric = family.encode_family(&labels)?;
        metric.encode_histogram::<Labels<'_, 0>>(seconds(sum_us), shape.count(), &buckets, None)?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a sum of microseconds is exact for 285 years")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
