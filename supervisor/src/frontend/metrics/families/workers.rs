//! What runs: versions, their instances, and the workers that these have now.

use std::collections::BTreeMap;
use std::fmt;

use proto::admin::status::{Instance, Model, OnDevice, Version, Worker};

use crate::exit_kind::{ExitKind, ExitPattern, signal_name};
use crate::frontend::metrics::text::Kind::{Counter, Gauge};
use crate::frontend::metrics::text::{Kind, Labels, Out};
use crate::overview::Overview;
use crate::route::{ServingState, UNLOADED};

/// One instance.
struct Row<'a> {
    model: &'a str,
    version: String,
    index: String,
    instance: &'a Instance,
}

impl Row<'_> {
    fn labels(&self) -> Labels<'_, 3> {
        let (version, index) = (self.version.as_str(), self.index.as_str());
        [("model", self.model), ("version", version), ("index", index)]
    }

    fn and<'a>(&'a self, name: &'static str, value: &'a str) -> Labels<'a, 4> {
        let [model, version, index] = self.labels();
        [model, version, index, (name, value)]
    }

    fn worker(&self) -> Option<&Worker> {
        self.instance.worker.as_ref()
    }

    fn on_device(&self) -> Option<&OnDevice> {
        self.worker()?.device.as_ref()
    }
}

pub(in crate::frontend::metrics) fn write(
    out: &mut Out<'_, '_>,
    overview: &Overview,
) -> fmt::Result {
    let models = overview.board().models();
    versions(out, &models)?;
    let rows: Vec<Row<'_>> = rows(&models).collect();
    states(out, &rows)?;
    exits(out, &rows)?;
    processes(out, &rows)?;
    on_devices(out, &rows)
}

fn rows(models: &[Model]) -> impl Iterator<Item = Row<'_>> {
    let versions =
        models.iter().flat_map(|m| m.versions.iter().map(move |version| (&*m.name, version)));
    versions.flat_map(|(model, version)| {
        version.instances.iter().map(move |instance| Row {
            model,
            version: version.version.to_string(),
            index: instance.index.to_string(),
            instance,
        })
    })
}

fn versions(out: &mut Out<'_, '_>, models: &[Model]) -> fmt::Result {
    let versions =
        models.iter().flat_map(|m| m.versions.iter().map(move |version| (&*m.name, version)));
    let versions: Vec<_> = versions.map(|(m, v)| (m, v.version.to_string(), v)).collect();
    let samples = models.iter().map(|model| ([("model", &*model.name)], u64::from(is_down(model))));
    let help =
        "Whether something of the model that is to serve does not, and nobody has unloaded it.";
    out.family((Gauge, "bulkhead_model_problem", help), samples)?;
    let samples = versions.iter().map(|(model, number, version)| {
        ([("model", *model), ("version", number), ("state", &version.state)], 1_u64)
    });
    let help = "How each version does: READY, LOADING, UNLOADING, UNAVAILABLE.";
    out.family((Gauge, "bulkhead_model_version_state", help), samples)?;
    let samples = versions.iter().filter_map(|(model, number, version)| {
        let loads = version.instances.iter().filter_map(|instance| instance.loaded.as_ref());
        let millis = loads.map(|loaded| loaded.load_ms + loaded.warmup_ms).max()?;
        #[expect(clippy::cast_precision_loss, reason = "a time to load")]
        let seconds = millis as f64 / 1000.0;
        Some(([("model", *model), ("version", number)], seconds))
    });
    let help = "Model load time in seconds";
    out.family((Gauge, "nv_model_load_duration_secs", help), samples)
}

fn is_down(model: &Model) -> bool {
    let fails = |version: &Version| {
        version.state == ServingState::Unavailable.name() && version.reason != UNLOADED
    };
    model.enabled && (!model.problem.is_empty() || model.versions.iter().any(fails))
}

fn states(out: &mut Out<'_, '_>, rows: &[Row<'_>]) -> fmt::Result {
    let samples = rows.iter().map(|row| (row.and("state", &row.instance.state), 1_u64));
    let help = "What each instance does: unloaded, reserving, starting, ready, draining, stopping, \
                resting, backoff, quarantined.";
    out.family((Gauge, "bulkhead_worker_state", help), samples)?;
    let quarantined = |row: &Row<'_>| u64::from(row.instance.state == "quarantined");
    let samples = rows.iter().map(|row| (row.labels(), quarantined(row)));
    let help = "Whether the instance ended so often that it rests until somebody loads it again.";
    out.family((Gauge, "bulkhead_worker_quarantined", help), samples)
}

/// What ended for itself, and what was ended because nobody wanted it, are not told apart by number:
/// `kind` says which (`clean`, `retired`); each other end is one that a restart follows, as long as the
/// budget lasts.
fn exits(out: &mut Out<'_, '_>, rows: &[Row<'_>]) -> fmt::Result {
    let counts: Vec<_> = rows.iter().map(|row| (row, by_label(&row.instance.exits))).collect();
    let samples = counts.iter().flat_map(|(row, counts)| {
        counts.iter().map(|(kind, count)| (row.and("kind", kind), *count))
    });
    let help = "Ends of workers, by kind; clean and retired are the ones that were wanted.";
    out.family((Counter, "bulkhead_worker_exits", help), samples)?;
    let unwanted = |counts: &BTreeMap<&str, u64>| {
        let wanted = [ExitKind::Clean, ExitKind::Retired].map(ExitKind::label);
        counts
            .iter()
            .filter(|(kind, _)| !wanted.contains(kind))
            .map(|(_, count)| count)
            .sum::<u64>()
    };
    let samples = counts.iter().map(|(row, counts)| (row.labels(), unwanted(counts)));
    // From zero on, so that the first of them count in a rate.
    let help = "Ends of workers that nobody wanted, of any kind.";
    out.family((Counter, "bulkhead_worker_unwanted_exits", help), samples)?;
    let violation = ExitKind::Violation.label();
    let samples = counts
        .iter()
        .map(|(row, counts)| (row.labels(), counts.get(violation).copied().unwrap_or_default()));
    let help = "Workers that were ended because they did what no honest worker does with the ring.";
    out.family((Counter, "bulkhead_ring_violations", help), samples)
}

/// A hostile worker can end with any code: those are one kind. Signals are few.
fn by_label(exits: &BTreeMap<String, u64>) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for (kind, count) in exits {
        let label = match kind.parse() {
            Ok(ExitPattern::Kind(ExitKind::Signal(signal))) => {
                signal_name(signal).unwrap_or(ExitKind::Signal(signal).label())
            }
            Ok(ExitPattern::Kind(kind)) => kind.label(),
            Ok(ExitPattern::AnySignal) => "signal",
            Ok(ExitPattern::AnyCode) => "code",
            Err(_) => ExitKind::Unknown.label(),
        };
        *counts.entry(label).or_default() += count;
    }
    counts
}

fn processes(out: &mut Out<'_, '_>, rows: &[Row<'_>]) -> fmt::Result {
    let mut family = |name: &str, help: &str, of: fn(&Worker) -> Option<u64>| {
        let samples = rows.iter().filter_map(|row| Some((row.labels(), of(row.worker()?)?)));
        out.family((Gauge, name, help), samples)
    };
    let help = "The number of the worker that is there, among those of its instance.";
    family("bulkhead_worker_generation", help, |w| Some(w.generation))?;
    let help = "Memory that would come free if the worker ended; looked at every few seconds.";
    family("bulkhead_worker_private_memory_bytes", help, |w| w.private_memory)?;
    let help = "What the worker may have of memory.";
    family("bulkhead_worker_memory_limit_bytes", help, |w| w.memory_limit)?;
    let help = "What that limit is held against, where the kernel does not hold it itself.";
    family("bulkhead_worker_memory_used_bytes", help, |w| w.memory_used)?;
    let help = "Measures of its confinement that could not be had.";
    family("bulkhead_worker_confinement_missing", help, |w| {
        u64::try_from(w.confinement.iter().filter(|measure| !measure.holds).count()).ok()
    })?;
    let started = rows.iter().filter_map(|row| {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970")]
        let seconds = row.worker()?.started_at as f64 / 1000.0;
        Some((row.labels(), seconds))
    });
    let help = "When the worker was started, since 1970.";
    out.family((Gauge, "bulkhead_worker_start_time_seconds", help), started)?;
    let samples = rows.iter().flat_map(|row| {
        let limits = row.worker().into_iter().flat_map(|worker| &worker.limits);
        limits.map(|(limit, by)| {
            let [model, version, index] = row.labels();
            ([model, version, index, ("limit", limit.as_str()), ("held_by", by)], 1_u64)
        })
    });
    let help = "What holds each of the worker's limits.";
    out.family((Gauge, "bulkhead_worker_limit", help), samples)
}

fn on_devices(out: &mut Out<'_, '_>, rows: &[Row<'_>]) -> fmt::Result {
    let mut family = |kind: Kind, name: &str, help: &str, of: fn(&OnDevice) -> Option<u64>| {
        let samples = rows.iter().filter_map(|row| Some((row.labels(), of(row.on_device()?)?)));
        out.family((kind, name, help), samples)
    };
    let help =
        "Device memory of the worker, on the fullest of its devices; missing if it is not known.";
    family(Gauge, "bulkhead_worker_device_memory_bytes", help, |d| d.used)?;
    let help = "Device memory that the worker was granted on each of its devices.";
    family(Gauge, "bulkhead_worker_device_quota_bytes", help, |d| Some(d.quota))?;
    let help = "Looks at the worker's device memory since it loaded that showed nothing certain.";
    family(Gauge, "bulkhead_worker_device_blind_looks", help, |d| Some(d.blind))?;
    let samples = rows
        .iter()
        .filter_map(|row| Some((row.and("enforcement", &row.on_device()?.enforcement), 1_u64)));
    let help = "What keeps the worker within its device memory: hard, allocator, watchdog, none.";
    out.family((Gauge, "bulkhead_worker_device_enforcement", help), samples)?;
    let samples = rows.iter().flat_map(|row| {
        let devices = row.on_device().into_iter().flat_map(|on| &on.devices);
        devices.map(|id| (row.and("gpu_uuid", id), 1_u64))
    });
    out.family((Gauge, "bulkhead_worker_device", "Which devices the worker is on."), samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_a_kind_are_counted_together_whatever_their_number() {
        let exits = [("SIGSEGV", 2), ("SIGKILL", 1), ("code 3", 4), ("code 0", 1), ("hang", 5)];
        let exits = exits.map(|(kind, count)| (kind.to_owned(), count)).into();
        let expected = BTreeMap::from([("SIGSEGV", 2), ("SIGKILL", 1), ("code", 5), ("hang", 5)]);
        assert_eq!(by_label(&exits), expected);
    }
}
