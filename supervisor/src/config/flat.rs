//! A configuration as a list of keys and values, each with what a change of it takes.

use std::path::{Path, PathBuf};

use shared::id::ModelName;

use super::schema;
use super::settings::{
    Cgroup, Config, Confinement, Enabled, LogFormat, Metrics, ModelSettings, NvmlLibrary, OnOom,
    RepositoryControl, Required, Segments, SlotSize, Start, Startup, Symlinks,
};
use super::value::{show_duration, show_names, show_size};

/// One key and its value, both as they would stand in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: String,
    pub effect: Effect,
}

/// What it takes for a changed value to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Nothing: it holds for what comes next (requests, connections, restarts, the next wait).
    Live,
    /// New workers for the models that it touches, which take the place of the old ones.
    Workers,
    /// A restart of the server.
    Server,
}

impl Config {
    /// Every key with its value; for models, the sections that the configuration has.
    pub fn entries(&self) -> Vec<Entry> {
        let mut list = List::default();
        list.add("runtime_file", path(&self.runtime_file), Effect::Server);
        list.add("scratch", path(&self.scratch), Effect::Server);
        self.add_log_and_http(&mut list);
        self.add_traces(&mut list);
        self.add_metrics(&mut list);
        self.add_admin(&mut list);
        self.add_limits(&mut list);
        self.add_devices(&mut list);
        self.add_repository(&mut list);
        list.add_model("worker", "restart", &self.defaults);
        let time = |time| quote(&show_duration(time));
        list.add("shutdown.grace", time(self.shutdown.grace), Effect::Live);
        list.add("shutdown.drain_timeout", time(self.shutdown.drain_timeout), Effect::Live);
        for (name, settings) in &self.models {
            let at = section(name);
            list.add_model(&at, &format!("{at}.restart"), settings);
            let enabled = settings.enabled == Enabled::Yes;
            list.add(&format!("{at}.enabled"), enabled.to_string(), Effect::Workers);
        }
        list.0
    }

    fn add_log_and_http(&self, list: &mut List) {
        let format = match self.log.format {
            LogFormat::Auto => "auto",
            LogFormat::Human => "human",
            LogFormat::Json => "json",
        };
        list.add("log.format", quote(format), Effect::Server);
        list.add("log.filter", quote(&self.log.filter), Effect::Live);
        let http = &self.http;
        let control = match http.repository_control {
            RepositoryControl::Loopback => quote("loopback"),
            RepositoryControl::Allowed => "true".to_owned(),
            RepositoryControl::Denied => "false".to_owned(),
        };
        list.add("http.listen", quote(&http.listen.to_string()), Effect::Server);
        list.add("http.max_connections", http.max_connections.to_string(), Effect::Live);
        for (key, value) in [
            ("http.header_timeout", http.header_timeout),
            ("http.body_timeout", http.body_timeout),
            ("http.stall_timeout", http.stall_timeout),
            ("http.idle_timeout", http.idle_timeout),
        ] {
            list.add(key, quote(&show_duration(value)), Effect::Live);
        }
        let wait = quote(&show_duration(http.activation_wait));
        list.add("http.activation_wait", wait, Effect::Server);
        list.add("http.repository_control", control, Effect::Live);
    }

    fn add_traces(&self, list: &mut List) {
        let traces = &self.traces;
        let endpoint = traces.endpoint.as_deref().unwrap_or("off");
        for (key, value, effect) in [
            ("endpoint", quote(endpoint), Effect::Server),
            ("sample", traces.sample.to_string(), Effect::Live),
            ("timeout", quote(&show_duration(traces.timeout)), Effect::Server),
            ("queue", traces.queue.to_string(), Effect::Server),
        ] {
            list.add(&format!("traces.{key}"), value, effect);
        }
    }

    fn add_metrics(&self, list: &mut List) {
        let Metrics { listen, max_connections } = &self.metrics;
        let listen = listen.map_or_else(|| "off".to_owned(), |address| address.to_string());
        list.add("metrics.listen", quote(&listen), Effect::Server);
        list.add("metrics.max_connections", max_connections.to_string(), Effect::Server);
    }

    fn add_admin(&self, list: &mut List) {
        let admin = &self.admin;
        let or = |file: Option<&PathBuf>| file.map_or_else(|| quote("off"), |file| path(file));
        let group = admin.group.as_deref().unwrap_or("none");
        for (key, value) in [
            ("socket", or(admin.socket.as_ref())),
            ("group", quote(group)),
            ("audit_log", or(admin.audit_log.as_ref())),
            ("max_connections", admin.max_connections.to_string()),
        ] {
            list.add(&format!("admin.{key}"), value, Effect::Server);
        }
    }

    fn add_limits(&self, list: &mut List) {
        let limits = &self.limits;
        let threads = limits.threads.map_or_else(|| quote("auto"), |n| n.to_string());
        list.add("limits.max_body", quote(&show_size(limits.max_body)), Effect::Live);
        list.add(
            "limits.max_decompressed",
            quote(&show_size(limits.max_decompressed)),
            Effect::Live,
        );
        list.add("limits.max_reply", quote(&show_size(limits.max_reply)), Effect::Live);
        list.add("limits.buffer_memory", quote(&show_size(limits.buffer_memory)), Effect::Live);
        list.add("limits.max_chunks", limits.max_chunks.to_string(), Effect::Live);
        list.add("limits.max_json_depth", limits.max_json_depth.to_string(), Effect::Live);
        list.add("limits.max_models", limits.max_models.to_string(), Effect::Live);
        list.add("limits.max_workers", limits.max_workers.to_string(), Effect::Live);
        list.add("limits.arena_memory", quote(&show_size(limits.arena_memory)), Effect::Live);
        list.add("limits.threads", threads, Effect::Server);
        let cgroup = match &limits.cgroup {
            Cgroup::Auto => quote("auto"),
            Cgroup::Off => quote("off"),
            Cgroup::Path(folder) => path(folder),
        };
        list.add("limits.cgroup", cgroup, Effect::Server);
    }

    fn add_devices(&self, list: &mut List) {
        let devices = &self.devices;
        let nvml = match &devices.nvml {
            NvmlLibrary::Auto => quote("auto"),
            NvmlLibrary::Off => quote("off"),
            NvmlLibrary::Path(file) => path(file),
        };
        let time = |time| quote(&show_duration(time));
        for (key, value, effect) in [
            ("nvml", nvml, Effect::Server),
            ("poll_interval", time(devices.poll_interval), Effect::Server),
            ("answer_timeout", time(devices.answer_timeout), Effect::Server),
            ("headroom", quote(&show_size(devices.headroom)), Effect::Live),
            ("release_timeout", time(devices.release_timeout), Effect::Live),
            ("measured", path(&devices.measured), Effect::Server),
        ] {
            list.add(&format!("devices.{key}"), value, effect);
        }
    }

    fn add_repository(&self, list: &mut List) {
        let repository = &self.repository;
        let paths: Vec<String> = repository.paths.iter().map(|p| path(p)).collect();
        let startup = match &repository.startup {
            Startup::All => quote("all"),
            Startup::None => quote("none"),
            Startup::Listed(names) => show_names(names.iter().map(ModelName::as_str)),
        };
        let required = match &repository.required {
            Required::Startup => quote("startup"),
            Required::Listed(names) => show_names(names.iter().map(ModelName::as_str)),
        };
        let follow = repository.symlinks == Symlinks::Follow;
        list.add("repository.paths", format!("[{}]", paths.join(", ")), Effect::Live);
        list.add("repository.startup", startup, Effect::Live);
        let patience = repository.required_timeout.map_or_else(|| "never".into(), show_duration);
        list.add("repository.required", required, Effect::Live);
        list.add("repository.required_timeout", quote(&patience), Effect::Server);
        list.add("repository.follow_symlinks", follow.to_string(), Effect::Live);
    }
}

/// The keys of one model, without a section before them, and without `enabled`.
pub(super) fn model_entries(settings: &ModelSettings) -> Vec<Entry> {
    let mut list = List::default();
    list.add_model("worker", "restart", settings);
    list.0
}

/// The section of one model.
pub(super) fn section(name: &ModelName) -> String {
    schema::join(&["models", name.as_str()])
}

#[derive(Default)]
struct List(Vec<Entry>);

impl List {
    fn add(&mut self, key: &str, value: String, effect: Effect) {
        self.0.push(Entry { key: key.to_owned(), value, effect });
    }

    fn add_model(&mut self, at: &str, restart_at: &str, settings: &ModelSettings) {
        let worker = &settings.worker;
        let instances = worker.instances.map_or_else(|| quote("auto"), |n| n.to_string());
        let slot_size = match worker.slot_size {
            SlotSize::Auto => quote("auto"),
            SlotSize::Bytes(bytes) => quote(&show_size(bytes)),
        };
        for (key, value, effect) in [
            ("instances", instances, Effect::Workers),
            ("threads", worker.threads.to_string(), Effect::Workers),
            ("slots", worker.slots.to_string(), Effect::Workers),
            ("slot_size", slot_size, Effect::Workers),
            ("queue", worker.queue.to_string(), Effect::Live),
            ("log_lines_per_second", worker.log_lines_per_second.to_string(), Effect::Workers),
            ("log_line_bytes", quote(&show_size(worker.log_line_bytes)), Effect::Workers),
            ("log_tail_lines", worker.log_tail_lines.to_string(), Effect::Workers),
        ] {
            self.add(&format!("{at}.{key}"), value, effect);
        }
        for (key, value) in [
            ("load_timeout", worker.load_timeout),
            ("infer_timeout", worker.infer_timeout),
            ("drain_timeout", worker.drain_timeout),
            ("stop_timeout", worker.stop_timeout),
            ("handshake_timeout", worker.handshake_timeout),
        ] {
            self.add(&format!("{at}.{key}"), quote(&show_duration(value)), Effect::Live);
        }
        self.add_isolation(at, settings);
        self.add_gpu(at, settings);
        self.add_restart(restart_at, settings);
    }

    fn add_isolation(&mut self, at: &str, settings: &ModelSettings) {
        let worker = &settings.worker;
        let (host, poison) = (&worker.host, &worker.poison);
        let start = match worker.start {
            Start::Zygote => "zygote",
            Start::Exec => "exec",
        };
        let confinement = match worker.confinement {
            Confinement::None => "none",
            Confinement::Standard => "standard",
            Confinement::Strict => "strict",
        };
        let idle = worker.idle_timeout.map_or_else(|| "never".to_owned(), show_duration);
        let memory = host.memory.map_or_else(|| "none".to_owned(), show_size);
        let scratch = host.scratch.map_or_else(|| "none".to_owned(), show_size);
        let cpu = host.cpu.map_or_else(|| quote("none"), |cores| cores.to_string());
        for (key, value, effect) in [
            ("idle_timeout", quote(&idle), Effect::Live),
            ("start", quote(start), Effect::Workers),
            ("confinement", quote(confinement), Effect::Workers),
            ("memory_limit", quote(&memory), Effect::Workers),
            ("cpu_limit", cpu, Effect::Workers),
            ("cpu_weight", host.cpu_weight.to_string(), Effect::Workers),
            ("max_processes", host.max_processes.to_string(), Effect::Workers),
            ("max_descriptors", host.max_descriptors.to_string(), Effect::Workers),
            ("scratch_limit", quote(&scratch), Effect::Workers),
            ("poison_after", poison.after.to_string(), Effect::Live),
            ("poison_ttl", quote(&show_duration(poison.ttl)), Effect::Live),
        ] {
            self.add(&format!("{at}.{key}"), value, effect);
        }
    }

    fn add_gpu(&mut self, at: &str, settings: &ModelSettings) {
        let gpu = &settings.worker.gpu;
        let segments = match gpu.segments {
            Segments::Fixed => "fixed",
            Segments::Expandable => "expandable",
        };
        for (key, value) in [
            ("gpu_memory_limit", quote(&show_size(gpu.memory))),
            ("gpu_soft_limit", gpu.soft.to_string()),
            ("gpu_segments", quote(segments)),
            ("gpu_spread", gpu.spread.to_string()),
        ] {
            self.add(&format!("{at}.{key}"), value, Effect::Workers);
        }
    }

    fn add_restart(&mut self, at: &str, settings: &ModelSettings) {
        let restart = &settings.restart;
        let backoff = &restart.backoff;
        let never: Vec<String> = restart.no_retry_on.iter().map(ToString::to_string).collect();
        let on_oom = match restart.on_oom {
            OnOom::Restart => "restart",
            OnOom::RestartWithSmallerBatch => "restart_with_smaller_batch",
            OnOom::Stop => "stop",
        };
        for (key, value) in [
            ("max_restarts", restart.max_restarts.to_string()),
            ("window", quote(&show_duration(restart.window))),
            ("backoff.initial", quote(&show_duration(backoff.initial))),
            ("backoff.factor", backoff.factor.to_string()),
            ("backoff.max", quote(&show_duration(backoff.max))),
            ("backoff.jitter", backoff.jitter.to_string()),
            ("reset_after", quote(&show_duration(restart.reset_after))),
            ("no_retry_on", show_names(never.iter().map(String::as_str))),
            ("on_oom", quote(on_oom)),
        ] {
            self.add(&format!("{at}.{key}"), value, Effect::Live);
        }
    }
}

fn quote(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}
