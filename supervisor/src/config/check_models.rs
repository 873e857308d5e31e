//! `[worker]`, `[restart]` and `[models.NAME]`: the same keys, in the second over the first.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use shared::id::ModelName;
use shared::limits::{MAX_SLOT_BYTES, MIN_SLOT_BYTES};
use toml::Value;

use super::check::TIMEOUT;
use super::raw::{Raw, RawBackoff, RawModel, RawRestart, RawWorker};
use super::reader::Reader;
use super::schema;
use super::settings::{
    Backoff, Confinement, Enabled, GpuLimits, HostLimits, ModelSettings, OnOom, PoisonSettings,
    RestartSettings, Segments, SlotSize, Start, WorkerSettings,
};
use super::value::{Size, show_duration, show_size};
use crate::exit_kind::{self, ExitPattern};

const INSTANCES: RangeInclusive<u16> = 1..=64;
const THREADS: RangeInclusive<u16> = 1..=256;
/// To `shared::limits::MAX_SLOTS`.
const SLOTS: RangeInclusive<u16> = 1..=256;
const SLOT_SIZE: RangeInclusive<Size> = Size(MIN_SLOT_BYTES)..=Size(MAX_SLOT_BYTES);
const QUEUE: RangeInclusive<u32> = 0..=65_536;
const MEMORY_LIMIT: RangeInclusive<Size> = Size(16 << 20)..=Size(16 << 40);
const SCRATCH_LIMIT: RangeInclusive<Size> = Size(1 << 20)..=Size(16 << 40);
const CPU_LIMIT: RangeInclusive<f64> = 0.01..=1024.0;
const CPU_WEIGHT: RangeInclusive<u16> = 1..=10_000;
const MAX_PROCESSES: RangeInclusive<u32> = 8..=65_536;
const MAX_DESCRIPTORS: RangeInclusive<u32> = 64..=1_048_576;
const GPU_MEMORY_LIMIT: RangeInclusive<Size> = Size(64 << 20)..=Size(16 << 40);
const GPU_SOFT_LIMIT: RangeInclusive<f64> = 0.1..=1.0;
const GPU_SPREAD: RangeInclusive<u16> = 0..=64;
const GPU_SEGMENTS: [(&str, Segments); 2] =
    [("fixed", Segments::Fixed), ("expandable", Segments::Expandable)];
const POISON_AFTER: RangeInclusive<u32> = 0..=100;
const STARTS: [(&str, Start); 2] = [("zygote", Start::Zygote), ("exec", Start::Exec)];
const CONFINEMENTS: [(&str, Confinement); 3] = [
    ("none", Confinement::None),
    ("standard", Confinement::Standard),
    ("strict", Confinement::Strict),
];
const ON_OOM: [(&str, OnOom); 3] = [
    ("restart", OnOom::Restart),
    ("restart_with_smaller_batch", OnOom::RestartWithSmallerBatch),
    ("stop", OnOom::Stop),
];
const LOG_LINES_PER_SECOND: RangeInclusive<u32> = 1..=100_000;
const LOG_LINE_BYTES: RangeInclusive<Size> = Size(64)..=Size(64 << 10);
const LOG_TAIL_LINES: RangeInclusive<u16> = 0..=1000;
const MAX_RESTARTS: RangeInclusive<u32> = 0..=1000;
const FACTOR: RangeInclusive<f64> = 1.0..=10.0;
const JITTER: RangeInclusive<f64> = 0.0..=1.0;

/// What `[worker]` and `[restart]` say.
pub(super) fn defaults(reader: &mut Reader, raw: &Raw) -> ModelSettings {
    let base = ModelSettings::default();
    ModelSettings {
        enabled: base.enabled,
        worker: worker(reader, "worker", &raw.worker, &base.worker),
        restart: restart(reader, "restart", &raw.restart, &base.restart),
    }
}

/// What each `[models.NAME]` says, completed from `base`.
pub(super) fn models(
    reader: &mut Reader,
    raw: &Raw,
    base: &ModelSettings,
) -> BTreeMap<ModelName, ModelSettings> {
    let mut models = BTreeMap::new();
    for (name, section) in &raw.models {
        let at = schema::join(&["models", name]);
        match ModelName::new(name) {
            Ok(name) => {
                models.insert(name, model(reader, &at, section, base));
            }
            Err(invalid) => reader.conflict("models", &Value::from(&**name), invalid.to_string()),
        }
    }
    models
}

/// A model whose slots alone are more than all workers may have could never be loaded.
pub(super) fn fit(reader: &mut Reader, at: &str, settings: &ModelSettings, arena_memory: usize) {
    let SlotSize::Bytes(bytes) = settings.worker.slot_size else { return };
    let slots = settings.worker.slots;
    let needed = bytes.saturating_mul(2).saturating_mul(slots.into());
    if needed > arena_memory {
        let reason = format!(
            "with {slots} slots in each direction that is {}, and limits.arena_memory is {}",
            show_size(needed),
            show_size(arena_memory)
        );
        reader.conflict(&format!("{at}.slot_size"), &Value::from(show_size(bytes)), reason);
    }
}

fn model(reader: &mut Reader, at: &str, raw: &RawModel, base: &ModelSettings) -> ModelSettings {
    let key = format!("{at}.enabled");
    let enabled = reader.parsed(&key, raw.enabled.as_ref(), "true or false", |value| {
        value.as_bool().map(|yes| if yes { Enabled::Yes } else { Enabled::No })
    });
    ModelSettings {
        enabled: enabled.unwrap_or(base.enabled),
        worker: worker(reader, at, &raw.worker, &base.worker),
        restart: restart(reader, &format!("{at}.restart"), &raw.restart, &base.restart),
    }
}

fn worker(reader: &mut Reader, at: &str, raw: &RawWorker, base: &WorkerSettings) -> WorkerSettings {
    let times = worker_times(reader, at, raw, base);
    let host = host_limits(reader, at, raw, &base.host);
    let gpu = gpu_limits(reader, at, raw, base.gpu);
    let poison = poison(reader, at, raw, base.poison);
    let key = |key: &str| format!("{at}.{key}");
    let line_bytes = reader.quantity(
        &key("log_line_bytes"),
        raw.log_line_bytes.as_ref(),
        &LOG_LINE_BYTES,
        Size(base.log_line_bytes),
    );
    let mut count = |name: &str, raw: &Option<Value>, range, default| {
        reader.quantity(&key(name), raw.as_ref(), range, default)
    };
    let threads = count("threads", &raw.threads, &THREADS, base.threads);
    let slots = count("slots", &raw.slots, &SLOTS, base.slots);
    let log_tail_lines =
        count("log_tail_lines", &raw.log_tail_lines, &LOG_TAIL_LINES, base.log_tail_lines);
    WorkerSettings {
        instances: reader.auto(
            &key("instances"),
            raw.instances.as_ref(),
            &INSTANCES,
            base.instances,
        ),
        threads,
        slots,
        host,
        gpu,
        poison,
        start: reader.word(&key("start"), raw.start.as_ref(), &STARTS, base.start),
        confinement: reader.word(
            &key("confinement"),
            raw.confinement.as_ref(),
            &CONFINEMENTS,
            base.confinement,
        ),
        slot_size: slot_size(reader, &key("slot_size"), raw.slot_size.as_ref(), base.slot_size),
        queue: reader.quantity(&key("queue"), raw.queue.as_ref(), &QUEUE, base.queue),
        log_lines_per_second: reader.quantity(
            &key("log_lines_per_second"),
            raw.log_lines_per_second.as_ref(),
            &LOG_LINES_PER_SECOND,
            base.log_lines_per_second,
        ),
        log_line_bytes: line_bytes.0,
        log_tail_lines,
        ..times
    }
}

/// The timeouts of `raw`; the rest as in `base`.
fn worker_times(
    reader: &mut Reader,
    at: &str,
    raw: &RawWorker,
    base: &WorkerSettings,
) -> WorkerSettings {
    let mut time = |key: &str, raw: &Option<Value>, default: Duration| {
        reader.quantity(&format!("{at}.{key}"), raw.as_ref(), &TIMEOUT, default)
    };
    WorkerSettings {
        load_timeout: time("load_timeout", &raw.load_timeout, base.load_timeout),
        infer_timeout: time("infer_timeout", &raw.infer_timeout, base.infer_timeout),
        drain_timeout: time("drain_timeout", &raw.drain_timeout, base.drain_timeout),
        stop_timeout: time("stop_timeout", &raw.stop_timeout, base.stop_timeout),
        handshake_timeout: time(
            "handshake_timeout",
            &raw.handshake_timeout,
            base.handshake_timeout,
        ),
        idle_timeout: reader.unless(
            "never",
            (&format!("{at}.idle_timeout"), raw.idle_timeout.as_ref()),
            &TIMEOUT,
            base.idle_timeout,
        ),
        ..base.clone()
    }
}

fn host_limits(reader: &mut Reader, at: &str, raw: &RawWorker, base: &HostLimits) -> HostLimits {
    let key = |key: &str| format!("{at}.{key}");
    let memory = (&*key("memory_limit"), raw.memory_limit.as_ref());
    let cpu = (&*key("cpu_limit"), raw.cpu_limit.as_ref());
    let scratch = (&*key("scratch_limit"), raw.scratch_limit.as_ref());
    let weight = raw.cpu_weight.as_ref();
    let mut count = |name: &str, raw: &Option<Value>, range, default| {
        reader.quantity(&key(name), raw.as_ref(), range, default)
    };
    let max_processes =
        count("max_processes", &raw.max_processes, &MAX_PROCESSES, base.max_processes);
    let max_descriptors =
        count("max_descriptors", &raw.max_descriptors, &MAX_DESCRIPTORS, base.max_descriptors);
    HostLimits {
        memory: reader
            .unless("none", memory, &MEMORY_LIMIT, base.memory.map(Size))
            .map(|Size(bytes)| bytes),
        cpu: reader.unless("none", cpu, &CPU_LIMIT, base.cpu),
        cpu_weight: reader.quantity(&key("cpu_weight"), weight, &CPU_WEIGHT, base.cpu_weight),
        max_processes,
        max_descriptors,
        scratch: reader
            .unless("none", scratch, &SCRATCH_LIMIT, base.scratch.map(Size))
            .map(|Size(bytes)| bytes),
    }
}

fn gpu_limits(reader: &mut Reader, at: &str, raw: &RawWorker, base: GpuLimits) -> GpuLimits {
    let key = |key: &str| format!("{at}.{key}");
    let (memory, soft) = (raw.gpu_memory_limit.as_ref(), raw.gpu_soft_limit.as_ref());
    let (segments, spread) = (raw.gpu_segments.as_ref(), raw.gpu_spread.as_ref());
    let limit = Size(base.memory);
    let memory = reader.quantity(&key("gpu_memory_limit"), memory, &GPU_MEMORY_LIMIT, limit);
    GpuLimits {
        memory: memory.0,
        soft: reader.quantity(&key("gpu_soft_limit"), soft, &GPU_SOFT_LIMIT, base.soft),
        segments: reader.word(&key("gpu_segments"), segments, &GPU_SEGMENTS, base.segments),
        spread: reader.quantity(&key("gpu_spread"), spread, &GPU_SPREAD, base.spread),
    }
}

fn poison(reader: &mut Reader, at: &str, raw: &RawWorker, base: PoisonSettings) -> PoisonSettings {
    let after = raw.poison_after.as_ref();
    let ttl = raw.poison_ttl.as_ref();
    PoisonSettings {
        after: reader.quantity(&format!("{at}.poison_after"), after, &POISON_AFTER, base.after),
        ttl: reader.quantity(&format!("{at}.poison_ttl"), ttl, &TIMEOUT, base.ttl),
    }
}

fn slot_size(reader: &mut Reader, key: &str, raw: Option<&Value>, base: SlotSize) -> SlotSize {
    let default = match base {
        SlotSize::Auto => None,
        SlotSize::Bytes(bytes) => Some(Size(bytes)),
    };
    match reader.auto(key, raw, &SLOT_SIZE, default) {
        None => SlotSize::Auto,
        Some(Size(bytes)) => SlotSize::Bytes(bytes),
    }
}

fn restart(
    reader: &mut Reader,
    at: &str,
    raw: &RawRestart,
    base: &RestartSettings,
) -> RestartSettings {
    let mut time = |key: &str, raw: &Option<Value>, default: Duration| {
        reader.quantity(&format!("{at}.{key}"), raw.as_ref(), &TIMEOUT, default)
    };
    RestartSettings {
        window: time("window", &raw.window, base.window),
        reset_after: time("reset_after", &raw.reset_after, base.reset_after),
        max_restarts: reader.quantity(
            &format!("{at}.max_restarts"),
            raw.max_restarts.as_ref(),
            &MAX_RESTARTS,
            base.max_restarts,
        ),
        backoff: backoff(reader, &format!("{at}.backoff"), &raw.backoff, &base.backoff),
        no_retry_on: no_retry_on(reader, &format!("{at}.no_retry_on"), raw, &base.no_retry_on),
        on_oom: reader.word(&format!("{at}.on_oom"), raw.on_oom.as_ref(), &ON_OOM, base.on_oom),
    }
}

fn no_retry_on(
    reader: &mut Reader,
    key: &str,
    raw: &RawRestart,
    base: &[ExitPattern],
) -> Vec<ExitPattern> {
    let list = reader.parsed(key, raw.no_retry_on.as_ref(), "a list of kinds of exits", |value| {
        value.as_array().cloned()
    });
    let Some(list) = list else { return base.to_vec() };
    let mut patterns = Vec::with_capacity(list.len());
    for value in &list {
        let expected = exit_kind::EXPECTED;
        let pattern = reader.parsed(key, Some(value), expected, |value| {
            value.as_str()?.parse::<ExitPattern>().ok().filter(can_be_restarted)
        });
        patterns.extend(pattern);
    }
    patterns
}

/// What was meant to end is never restarted, so that to forbid it would say nothing.
fn can_be_restarted(pattern: &ExitPattern) -> bool {
    match pattern {
        ExitPattern::Kind(kind) => !kind.is_intended(),
        ExitPattern::AnySignal | ExitPattern::AnyCode => true,
    }
}

fn backoff(reader: &mut Reader, at: &str, raw: &RawBackoff, base: &Backoff) -> Backoff {
    let initial_key = format!("{at}.initial");
    let initial = reader.quantity(&initial_key, raw.initial.as_ref(), &TIMEOUT, base.initial);
    let max = reader.quantity(&format!("{at}.max"), raw.max.as_ref(), &TIMEOUT, base.max);
    if initial > max {
        let reason = format!("it is longer than {at}.max, which is {}", show_duration(max));
        reader.conflict(&initial_key, &Value::from(show_duration(initial)), reason);
    }
    let mut number = |key: &str, raw: &Option<Value>, range, default| {
        reader.quantity(&format!("{at}.{key}"), raw.as_ref(), range, default)
    };
    Backoff {
        initial,
        max,
        factor: number("factor", &raw.factor, &FACTOR, base.factor),
        jitter: number("jitter", &raw.jitter, &JITTER, base.jitter),
    }
}
