//! What the log says of an instance: one structured line for each thing that happens to it.

use std::time::Duration;

use proto::control::Loaded;
use shared::id::{Generation, InstanceId};
use tracing::{error, info, warn};

use super::effect::ExitRecord;
use super::history::LastWords;
use super::instance::DeviceView;
use crate::enclosure::LimitsReport;

/// With what holds it in, because machines differ in that.
pub(super) fn started(
    instance: &InstanceId,
    generation: Generation,
    pid: i32,
    limits: &LimitsReport,
) {
    info!(
        model = instance.model.as_str(),
        version = instance.version.get(),
        instance = instance.index,
        generation = generation.0,
        pid,
        %limits,
        "worker started"
    );
}

pub(super) fn ready(instance: &InstanceId, generation: Generation, loaded: &Loaded) {
    info!(
        model = instance.model.as_str(),
        version = instance.version.get(),
        instance = instance.index,
        generation = generation.0,
        load_ms = loaded.load_nanos / 1_000_000,
        warmup_ms = loaded.warmup_nanos / 1_000_000,
        peak_rss_mb = loaded.peak_rss >> 20,
        "worker ready"
    );
}

/// How much of its memory is its own, which is what comes free when it ends: most of what a copy has is
/// its zygote's too.
pub(super) fn memory(instance: &InstanceId, generation: Generation, private: u64) {
    info!(
        model = instance.model.as_str(),
        version = instance.version.get(),
        instance = instance.index,
        generation = generation.0,
        private_kb = private >> 10,
        "worker memory"
    );
}

/// Where it runs, and what keeps it within its share.
pub(super) fn on_devices(instance: &InstanceId, generation: Generation, view: &DeviceView) {
    let devices = view.place.devices.iter().map(|device| device.id.as_str());
    info!(
        model = instance.model.as_str(),
        version = instance.version.get(),
        instance = instance.index,
        generation = generation.0,
        devices = devices.collect::<Vec<_>>().join(","),
        quota = view.place.bytes,
        enforcement = %view.enforcement,
        not_hard = view.not_hard,
        "worker on devices"
    );
}

/// It keeps more of its device than the soft limit, so that its batches are smaller for a while.
pub(super) fn squeezed(instance: &InstanceId, largest: Option<u32>) {
    warn!(
        model = instance.model.as_str(),
        version = instance.version.get(),
        instance = instance.index,
        largest,
        "device memory is short"
    );
}

pub(super) fn relaxed(instance: &InstanceId) {
    info!(
        model = instance.model.as_str(),
        version = instance.version.get(),
        instance = instance.index,
        "device memory is no longer short"
    );
}

/// A route was published or withdrawn.
pub(super) fn route(instance: &InstanceId, generation: Generation, what: &'static str) {
    info!(
        model = instance.model.as_str(),
        version = instance.version.get(),
        instance = instance.index,
        generation = generation.0,
        "{what}"
    );
}

pub(super) fn denied(instance: &InstanceId, reason: &str) {
    warn!(
        model = instance.model.as_str(),
        version = instance.version.get(),
        instance = instance.index,
        reason,
        "worker denied"
    );
}

/// Batches are smaller from now on, because memory ran out.
pub(super) fn batch_reduced(instance: &InstanceId, largest: Option<u32>) {
    warn!(
        model = instance.model.as_str(),
        version = instance.version.get(),
        instance = instance.index,
        largest,
        "largest batch reduced"
    );
}

/// One line for each end: an error, unless the worker was meant to end.
pub(super) fn exited(instance: &InstanceId, exit: &ExitRecord, words: &LastWords) {
    let fingerprints: Vec<String> = words.fingerprints.iter().map(ToString::to_string).collect();
    let fingerprints = fingerprints.join(" ");
    macro_rules! say {
        ($level:ident) => {
            $level!(
                model = instance.model.as_str(),
                version = instance.version.get(),
                instance = instance.index,
                generation = exit.generation.0,
                kind = %exit.kind,
                how = %exit.exit,
                why = exit.summary(),
                during = exit.during,
                lived_ms = milliseconds(words.alive_for),
                healthy_ms = milliseconds(exit.healthy_for),
                in_flight = words.in_flight,
                fingerprints,
                last_lines = words.lines.join(" | "),
                "worker exited"
            )
        };
    }
    if exit.kind.is_intended() { say!(info) } else { say!(error) }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
