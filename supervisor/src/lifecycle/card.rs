//! What operators are shown of an instance; pure.

use std::collections::BTreeMap;

use proto::admin::reply::InstanceExits;
use proto::admin::status as shown;
use proto::control::Taken;
use shared::id::InstanceId;

use super::history::{History, PastExit};
use super::instance::{DeviceView, InstanceView, WorkerView};
use crate::health::DeviceUse;

pub(super) fn shown(index: u16, view: &InstanceView) -> shown::Instance {
    let loaded = view.loaded.as_ref().map(|loaded| shown::Loaded {
        load_ms: loaded.load_nanos / 1_000_000,
        warmup_ms: loaded.warmup_nanos / 1_000_000,
        build: loaded.build.clone(),
    });
    let counts = view.history.counts().iter();
    shown::Instance {
        index,
        state: view.state.to_owned(),
        reason: view.status.reason.clone(),
        worker: view.worker.as_ref().map(|worker| shown_worker(worker, view)),
        loaded,
        exits: counts.map(|(kind, &count)| (kind.to_string(), count)).collect(),
        last_exit: view.history.recent().next_back().map(exit),
    }
}

fn shown_worker(worker: &WorkerView, view: &InstanceView) -> shown::Worker {
    let limits = &worker.limits;
    let mut held = BTreeMap::from([
        ("processes".to_owned(), limits.processes.rung.to_string()),
        ("tree".to_owned(), limits.tree_kill.to_string()),
    ]);
    let rungs = [
        ("memory", limits.memory.as_ref().map(|limit| limit.rung.to_string())),
        ("cpu", limits.cpu.as_ref().map(|limit| limit.rung.to_string())),
        ("scratch", limits.scratch_limit.map(|_| "watchdog".to_owned())),
    ];
    let rungs = rungs.into_iter();
    held.extend(rungs.filter_map(|(name, rung)| Some((name.to_owned(), rung?))));
    let measures = view.confinement.as_deref().into_iter().flatten();
    let measures = measures.map(|measure| {
        let (holds, detail) = match &measure.outcome {
            Taken::Holds(how) => (true, how),
            Taken::Missing(why) => (false, why),
        };
        shown::Measure { name: measure.name.clone(), holds, detail: detail.clone() }
    });
    shown::Worker {
        pid: worker.pid,
        generation: worker.generation.0,
        started_at: worker.started_at,
        private_memory: worker.private_memory,
        memory_limit: limits.memory.as_ref().map(|limit| limit.limit),
        memory_used: worker.used_memory,
        limits: held,
        confinement: measures.collect(),
        device: worker.device.as_ref().map(on_device),
    }
}

fn on_device(view: &DeviceView) -> shown::OnDevice {
    let devices = view.place.devices.iter().map(|device| device.id.to_string());
    shown::OnDevice {
        devices: devices.collect(),
        quota: view.place.bytes,
        used: match view.used {
            DeviceUse::Nothing => Some(0),
            DeviceUse::Bytes(bytes) => Some(bytes),
            DeviceUse::Blind(_) | DeviceUse::Lost(_) => None,
        },
        enforcement: view.enforcement.to_string(),
        not_hard: view.not_hard.clone(),
        blind: view.blind,
    }
}

/// All that is known of how the workers of an instance ended.
#[must_use]
pub fn exits(instance: &InstanceId, history: &History) -> InstanceExits {
    InstanceExits {
        version: instance.version.get(),
        instance: instance.index,
        counts: history.counts().iter().map(|(kind, &count)| (kind.to_string(), count)).collect(),
        exits: history.recent().map(exit).collect(),
    }
}

/// One end, with the last words of the worker.
pub(super) fn exit(past: &PastExit) -> shown::Exit {
    let words = &past.last_words;
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    shown::Exit {
        at: past.at.wall_ms,
        generation: past.generation.0,
        kind: past.kind.to_string(),
        summary: past.summary.clone(),
        during: past.during.to_owned(),
        alive_ms: millis(words.alive_for),
        healthy_ms: millis(past.healthy_for),
        in_flight: words.in_flight,
        fingerprints: words.fingerprints.iter().map(ToString::to_string).collect(),
        lines: words.lines.clone(),
    }
}
