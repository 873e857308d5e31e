//! First pass: the right keys with any values.
//!
//! Values stay TOML here, so that a wrong type is reported in the same way, and together with, a
//! value out of range.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::{Table, Value};

/// A section whose keys can be listed, because the schema and the tests need their names.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($key:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct $name {
            $(pub(super) $key: Option<Value>,)+
        }

        impl $name {
            pub(super) const KEYS: &[&str] = &[$(stringify!($key)),+];
        }
    };
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) runtime_file: Option<Value>,
    pub(super) scratch: Option<Value>,
    pub(super) log: RawLog,
    pub(super) traces: RawTraces,
    pub(super) http: RawHttp,
    pub(super) metrics: RawMetrics,
    pub(super) admin: RawAdmin,
    pub(super) limits: RawLimits,
    pub(super) devices: RawDevices,
    pub(super) repository: RawRepository,
    pub(super) worker: RawWorker,
    pub(super) restart: RawRestart,
    pub(super) shutdown: RawShutdown,
    pub(super) models: BTreeMap<String, RawModel>,
}

impl Raw {
    pub(super) const KEYS: &[&str] = &[
        "runtime_file",
        "scratch",
        "log",
        "traces",
        "http",
        "metrics",
        "admin",
        "limits",
        "devices",
        "repository",
        "worker",
        "restart",
        "shutdown",
        "models",
    ];
}

section!(RawLog { format, filter });

section!(RawTraces { endpoint, sample, timeout, queue });

section!(RawHttp {
    listen,
    max_connections,
    header_timeout,
    body_timeout,
    stall_timeout,
    idle_timeout,
    activation_wait,
    repository_control,
});

section!(RawMetrics { listen, max_connections });
section!(RawAdmin { socket, group, audit_log, max_connections });

section!(RawLimits {
    max_body,
    max_decompressed,
    max_reply,
    buffer_memory,
    max_chunks,
    max_json_depth,
    max_models,
    max_workers,
    arena_memory,
    threads,
    cgroup,
});

section!(RawDevices { nvml, poll_interval, answer_timeout, headroom, release_timeout, measured });

section!(RawRepository { paths, startup, required, required_timeout, follow_symlinks });

section!(RawWorker {
    instances,
    threads,
    slots,
    slot_size,
    queue,
    load_timeout,
    infer_timeout,
    drain_timeout,
    stop_timeout,
    handshake_timeout,
    idle_timeout,
    start,
    confinement,
    memory_limit,
    cpu_limit,
    cpu_weight,
    max_processes,
    max_descriptors,
    scratch_limit,
    gpu_memory_limit,
    gpu_soft_limit,
    gpu_segments,
    gpu_spread,
    poison_after,
    poison_ttl,
    log_lines_per_second,
    log_line_bytes,
    log_tail_lines,
});

section!(RawShutdown { grace, drain_timeout });

section!(RawBackoff { initial, factor, max, jitter });

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawRestart {
    pub(super) max_restarts: Option<Value>,
    pub(super) window: Option<Value>,
    pub(super) backoff: RawBackoff,
    pub(super) reset_after: Option<Value>,
    pub(super) no_retry_on: Option<Value>,
    pub(super) on_oom: Option<Value>,
}

impl RawRestart {
    pub(super) const KEYS: &[&str] =
        &["max_restarts", "window", "backoff", "reset_after", "no_retry_on", "on_oom"];
}

/// `[models.NAME]`: the keys of `[worker]`, and two of its own.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "Table")]
pub(super) struct RawModel {
    pub(super) enabled: Option<Value>,
    pub(super) restart: RawRestart,
    pub(super) worker: RawWorker,
}

impl RawModel {
    /// Beside those of [`RawWorker`].
    pub(super) const KEYS: &[&str] = &["enabled", "restart"];
}

/// By hand, because serde's `flatten` does not go with `deny_unknown_fields`.
impl TryFrom<Table> for RawModel {
    type Error = toml::de::Error;

    fn try_from(mut table: Table) -> Result<Self, Self::Error> {
        let enabled = table.remove("enabled");
        let restart = table.remove("restart").map(Value::try_into).transpose()?;
        let worker = table.try_into()?;
        Ok(Self { enabled, restart: restart.unwrap_or_default(), worker })
    }
}
