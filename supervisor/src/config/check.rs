//! Second pass: values within their ranges, and sections that agree with each other.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use shared::id::ModelName;
use shared::limits::MAX_TENSOR_BYTES;
use toml::Value;
use tracing_subscriber::EnvFilter;

use super::check_models;
use super::flat;
use super::raw::{
    Raw, RawAdmin, RawDevices, RawHttp, RawLimits, RawLog, RawMetrics, RawRepository, RawShutdown,
    RawTraces,
};
use super::reader::Reader;
use super::settings::{
    Admin, Cgroup, Config, Devices, Http, Limits, Log, LogFormat, Metrics, NvmlLibrary, Repository,
    RepositoryControl, Required, Shutdown, Startup, Symlinks, Traces,
};
use super::value::Size;

/// Every timeout: long enough to mean something, short enough to be a timeout.
pub(super) const TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(24 * 3600);
/// What somebody else may be kept waiting for, or not at all.
const GRACE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
const CONNECTIONS: RangeInclusive<u32> = 1..=65_535;
const BODY: RangeInclusive<Size> = Size(1 << 10)..=Size(MAX_TENSOR_BYTES);
const CHUNKS: RangeInclusive<u32> = 1..=1 << 24;
/// The JSON parser itself stops at 128.
const JSON_DEPTH: RangeInclusive<u16> = 4..=127;
const MODELS: RangeInclusive<u32> = 1..=10_000;
const WORKERS: RangeInclusive<u32> = 1..=10_000;
const ARENA_MEMORY: RangeInclusive<Size> = Size(1 << 20)..=Size(1 << 44);
const THREADS: RangeInclusive<u16> = 1..=256;
const OPERATORS: RangeInclusive<u32> = 1..=1024;
pub(super) const ADMIN_SOCKET: &str = ".run/admin.sock";
const RUNTIME_FILE: &str = ".run/bulkhead.json";
const SCRATCH: &str = ".run/scratch";
const MEASURED: &str = ".run/measured.json";
/// Shorter, and the questions take longer than the pauses.
const POLL_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(10);
const SAMPLE: RangeInclusive<f64> = 0.0..=1.0;
const TRACES_QUEUE: RangeInclusive<u32> = 16..=65_536;
const HEADROOM: RangeInclusive<Size> = Size(0)..=Size(1 << 40);

/// Reads everything; what was wrong is in the reader, and has its default in the result.
pub(super) fn check(reader: &mut Reader, raw: &Raw) -> Config {
    let defaults = check_models::defaults(reader, raw);
    let models = check_models::models(reader, raw, &defaults);
    let limits = limits(reader, &raw.limits);
    check_models::fit(reader, "worker", &defaults, limits.arena_memory);
    for (name, settings) in &models {
        check_models::fit(reader, &flat::section(name), settings, limits.arena_memory);
    }
    Config {
        runtime_file: reader.path("runtime_file", raw.runtime_file.as_ref(), RUNTIME_FILE),
        scratch: reader.path("scratch", raw.scratch.as_ref(), SCRATCH),
        log: log(reader, &raw.log),
        traces: traces(reader, &raw.traces),
        http: http(reader, &raw.http),
        metrics: metrics(reader, &raw.metrics),
        admin: admin(reader, &raw.admin),
        limits,
        devices: devices(reader, &raw.devices),
        repository: repository(reader, &raw.repository),
        shutdown: shutdown(reader, &raw.shutdown),
        defaults,
        models,
    }
}

fn log(reader: &mut Reader, raw: &RawLog) -> Log {
    let default = Log::default();
    let format = reader.parsed(
        "log.format",
        raw.format.as_ref(),
        "\"auto\", \"human\" or \"json\"",
        |value| match value.as_str()? {
            "auto" => Some(LogFormat::Auto),
            "human" => Some(LogFormat::Human),
            "json" => Some(LogFormat::Json),
            _ => None,
        },
    );
    let filter = reader.parsed(
        "log.filter",
        raw.filter.as_ref(),
        "a level (off, error, warn, info, debug, trace) or directives as \
         \"info,supervisor::lane=debug\"",
        |value| value.as_str().filter(|text| is_filter(text)).map(str::to_owned),
    );
    Log { format: format.unwrap_or(default.format), filter: filter.unwrap_or(default.filter) }
}

fn traces(reader: &mut Reader, raw: &RawTraces) -> Traces {
    let default = Traces::default();
    let endpoint = reader.parsed(
        "traces.endpoint",
        raw.endpoint.as_ref(),
        "\"off\", or where a collector takes OTLP over HTTP, as \"http://127.0.0.1:4318\"",
        |value| match value.as_str()? {
            "off" => Some(None),
            text => is_endpoint(text).then(|| Some(text.to_owned())),
        },
    );
    let (sample, timeout) = (raw.sample.as_ref(), raw.timeout.as_ref());
    Traces {
        endpoint: endpoint.unwrap_or(default.endpoint),
        sample: reader.quantity("traces.sample", sample, &SAMPLE, default.sample),
        timeout: reader.quantity("traces.timeout", timeout, &TIMEOUT, default.timeout),
        queue: reader.quantity("traces.queue", raw.queue.as_ref(), &TRACES_QUEUE, default.queue),
    }
}

/// A host, perhaps a port, perhaps a path, and nothing else: no user, no query.
fn is_endpoint(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("http://") else { return false };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        // The last colon of an IPv6 address without a port is inside its brackets.
        Some((host, port)) if !port.ends_with(']') => {
            if port.parse::<u16>().is_err() {
                return false;
            }
            host
        }
        Some(_) | None => authority,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~[]:/".contains(c);
    !host.is_empty() && rest.chars().all(plain)
}

fn is_filter(text: &str) -> bool {
    !text.trim().is_empty() && EnvFilter::builder().parse(text).is_ok()
}

fn http(reader: &mut Reader, raw: &RawHttp) -> Http {
    let default = Http::default();
    let listen = reader.parsed(
        "http.listen",
        raw.listen.as_ref(),
        "an IP address and a port from 0 (any free one) to 65535, as \"127.0.0.1:8000\" or \
         \"[::1]:0\"",
        |value| value.as_str()?.parse::<SocketAddr>().ok(),
    );
    let control = reader.parsed(
        "http.repository_control",
        raw.repository_control.as_ref(),
        "true, false or \"loopback\"",
        repository_control,
    );
    let mut timeout = |key: &str, raw: &Option<Value>, default: Duration| {
        reader.quantity(&format!("http.{key}"), raw.as_ref(), &TIMEOUT, default)
    };
    Http {
        listen: listen.unwrap_or(default.listen),
        header_timeout: timeout("header_timeout", &raw.header_timeout, default.header_timeout),
        body_timeout: timeout("body_timeout", &raw.body_timeout, default.body_timeout),
        stall_timeout: timeout("stall_timeout", &raw.stall_timeout, default.stall_timeout),
        idle_timeout: timeout("idle_timeout", &raw.idle_timeout, default.idle_timeout),
        max_connections: reader.quantity(
            "http.max_connections",
            raw.max_connections.as_ref(),
            &CONNECTIONS,
            default.max_connections,
        ),
        activation_wait: reader.quantity(
            "http.activation_wait",
            raw.activation_wait.as_ref(),
            &GRACE,
            default.activation_wait,
        ),
        repository_control: control.unwrap_or(default.repository_control),
    }
}

fn repository_control(value: &Value) -> Option<RepositoryControl> {
    match (value.as_bool(), value.as_str()) {
        (Some(true), _) => Some(RepositoryControl::Allowed),
        (Some(false), _) => Some(RepositoryControl::Denied),
        (None, Some("loopback")) => Some(RepositoryControl::Loopback),
        (None, _) => None,
    }
}

fn metrics(reader: &mut Reader, raw: &RawMetrics) -> Metrics {
    let default = Metrics::default();
    let expected = "\"off\", or an IP address and a port as in http.listen";
    let listen =
        reader.parsed("metrics.listen", raw.listen.as_ref(), expected, |value| {
            match value.as_str()? {
                "off" => Some(None),
                address => address.parse::<SocketAddr>().ok().map(Some),
            }
        });
    Metrics {
        listen: listen.unwrap_or(default.listen),
        max_connections: reader.quantity(
            "metrics.max_connections",
            raw.max_connections.as_ref(),
            &CONNECTIONS,
            default.max_connections,
        ),
    }
}

fn admin(reader: &mut Reader, raw: &RawAdmin) -> Admin {
    let default = Admin::default();
    let off = |raw: Option<&Value>| raw.and_then(Value::as_str) == Some("off");
    let mut path = |key: &str, raw: Option<&Value>, default: &str| match off(raw) {
        true => None,
        false => Some(reader.path(key, raw, default)),
    };
    let socket = path("admin.socket", raw.socket.as_ref(), ADMIN_SOCKET);
    let audit_log = raw.audit_log.as_ref().and_then(|raw| path("admin.audit_log", Some(raw), ""));
    let group = reader.parsed(
        "admin.group",
        raw.group.as_ref(),
        "\"none\" or the name of a group",
        |value| value.as_str().filter(|name| is_name(name)).map(str::to_owned),
    );
    Admin {
        socket,
        group: group.filter(|name| name != "none"),
        audit_log,
        max_connections: reader.quantity(
            "admin.max_connections",
            raw.max_connections.as_ref(),
            &OPERATORS,
            default.max_connections,
        ),
    }
}

/// Of a group, as far as it can be told without asking the system.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_control() || c.is_whitespace() || c == ':')
}

fn limits(reader: &mut Reader, raw: &RawLimits) -> Limits {
    let default = Limits::default();
    let mut size = |key: &str, raw: &Option<Value>, range, default| {
        reader.quantity(&format!("limits.{key}"), raw.as_ref(), range, Size(default)).0
    };
    let max_body = size("max_body", &raw.max_body, &BODY, default.max_body);
    let max_decompressed =
        size("max_decompressed", &raw.max_decompressed, &BODY, default.max_decompressed);
    let max_reply = size("max_reply", &raw.max_reply, &BODY, default.max_reply);
    let buffer_memory =
        size("buffer_memory", &raw.buffer_memory, &ARENA_MEMORY, default.buffer_memory);
    let arena_memory = size("arena_memory", &raw.arena_memory, &ARENA_MEMORY, default.arena_memory);
    let mut count = |key: &str, raw: &Option<Value>, range, default| {
        reader.quantity(&format!("limits.{key}"), raw.as_ref(), range, default)
    };
    Limits {
        max_body,
        max_decompressed,
        max_reply,
        buffer_memory,
        max_chunks: count("max_chunks", &raw.max_chunks, &CHUNKS, default.max_chunks),
        max_models: count("max_models", &raw.max_models, &MODELS, default.max_models),
        max_workers: count("max_workers", &raw.max_workers, &WORKERS, default.max_workers),
        max_json_depth: reader.quantity(
            "limits.max_json_depth",
            raw.max_json_depth.as_ref(),
            &JSON_DEPTH,
            default.max_json_depth,
        ),
        arena_memory,
        threads: reader.auto("limits.threads", raw.threads.as_ref(), &THREADS, default.threads),
        cgroup: cgroup(reader, raw.cgroup.as_ref()),
    }
}

fn devices(reader: &mut Reader, raw: &RawDevices) -> Devices {
    let default = Devices::default();
    let expected = "\"auto\", \"off\" or an absolute path";
    let nvml = reader.parsed("devices.nvml", raw.nvml.as_ref(), expected, |value| {
        match value.as_str()? {
            "auto" => Some(NvmlLibrary::Auto),
            "off" => Some(NvmlLibrary::Off),
            path => path.starts_with('/').then(|| NvmlLibrary::Path(path.into())),
        }
    });
    let headroom = raw.headroom.as_ref();
    let headroom = reader.quantity("devices.headroom", headroom, &HEADROOM, Size(default.headroom));
    let measured = reader.path("devices.measured", raw.measured.as_ref(), MEASURED);
    let mut time = |key: &str, raw: &Option<Value>, range, default| {
        reader.quantity(&format!("devices.{key}"), raw.as_ref(), range, default)
    };
    let poll = time("poll_interval", &raw.poll_interval, &POLL_INTERVAL, default.poll_interval);
    let answer = time("answer_timeout", &raw.answer_timeout, &TIMEOUT, default.answer_timeout);
    Devices {
        nvml: nvml.unwrap_or(default.nvml),
        poll_interval: poll,
        answer_timeout: answer,
        headroom: headroom.0,
        release_timeout: time(
            "release_timeout",
            &raw.release_timeout,
            &TIMEOUT,
            default.release_timeout,
        ),
        measured,
    }
}

fn cgroup(reader: &mut Reader, raw: Option<&Value>) -> Cgroup {
    let key = "limits.cgroup";
    let expected = "\"auto\", \"off\" or an absolute path";
    let parsed = reader.parsed(key, raw, expected, |value| match value.as_str()? {
        "auto" => Some(Cgroup::Auto),
        "off" => Some(Cgroup::Off),
        path => path.starts_with('/').then(|| Cgroup::Path(path.into())),
    });
    parsed.unwrap_or(Cgroup::Auto)
}

fn repository(reader: &mut Reader, raw: &RawRepository) -> Repository {
    let startup = startup(reader, raw);
    let required = required(reader, raw, &startup);
    let follow = reader.parsed(
        "repository.follow_symlinks",
        raw.follow_symlinks.as_ref(),
        "true or false",
        Value::as_bool,
    );
    let default = Repository::default();
    let patience = ("repository.required_timeout", raw.required_timeout.as_ref());
    Repository {
        paths: reader.paths("repository.paths", raw.paths.as_ref()),
        startup,
        required,
        required_timeout: reader.unless("never", patience, &TIMEOUT, default.required_timeout),
        symlinks: if follow == Some(true) { Symlinks::Follow } else { Symlinks::Inside },
    }
}

fn startup(reader: &mut Reader, raw: &RawRepository) -> Startup {
    let key = "repository.startup";
    match raw.startup.as_ref() {
        None => Repository::default().startup,
        Some(Value::Array(list)) => Startup::Listed(reader.names(key, list)),
        Some(value) => match value.as_str() {
            Some("all") => Startup::All,
            Some("none") => Startup::None,
            Some(_) | None => {
                reader.refuse(key, value, "\"all\", \"none\" or a list of models".to_owned());
                Startup::All
            }
        },
    }
}

fn required(reader: &mut Reader, raw: &RawRepository, startup: &Startup) -> Required {
    let key = "repository.required";
    match raw.required.as_ref() {
        None => Repository::default().required,
        Some(value @ Value::Array(list)) => {
            let names = reader.names(key, list);
            for name in never_ready(&names, startup) {
                reader.conflict(key, value, format!("repository.startup does not load {name}"));
            }
            Required::Listed(names)
        }
        Some(value) if value.as_str() == Some("startup") => Required::Startup,
        Some(value) => {
            reader.refuse(key, value, "\"startup\" or a list of models".to_owned());
            Required::Startup
        }
    }
}

fn shutdown(reader: &mut Reader, raw: &RawShutdown) -> Shutdown {
    let Shutdown { grace, drain_timeout } = Shutdown::default();
    let drain = raw.drain_timeout.as_ref();
    Shutdown {
        grace: reader.quantity("shutdown.grace", raw.grace.as_ref(), &GRACE, grace),
        drain_timeout: reader.quantity("shutdown.drain_timeout", drain, &TIMEOUT, drain_timeout),
    }
}

/// With models that nothing loads at the start a server that was told to load its models itself
/// would never be ready. `"none"` is different: there somebody else loads them.
fn never_ready<'a>(names: &'a BTreeSet<ModelName>, startup: &'a Startup) -> Vec<&'a ModelName> {
    match startup {
        Startup::All | Startup::None => Vec::new(),
        Startup::Listed(listed) => names.difference(listed).collect(),
    }
}
