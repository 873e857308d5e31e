//! What holds where a configuration says nothing; `config.toml` says the same.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::settings::{
    Admin, Backoff, Cgroup, Confinement, Devices, GpuLimits, HostLimits, Http, Limits, Log,
    LogFormat, Metrics, NvmlLibrary, OnOom, PoisonSettings, Repository, RepositoryControl,
    Required, RestartSettings, Segments, Shutdown, SlotSize, Start, Startup, Symlinks, Traces,
    WorkerSettings,
};

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Auto, filter: "info".to_owned() }
    }
}

impl Default for Traces {
    fn default() -> Self {
        Self { endpoint: None, sample: 0.1, timeout: Duration::from_secs(5), queue: 1024 }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8000)),
            max_connections: 1024,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(120),
            stall_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            activation_wait: Duration::from_secs(10),
            repository_control: RepositoryControl::Loopback,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 8002))), max_connections: 64 }
    }
}

/// Without `socket`, which is a path that starts at the configuration's folder.
impl Default for Admin {
    fn default() -> Self {
        Self { socket: None, group: None, audit_log: None, max_connections: 32 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body: 64 << 20,
            max_decompressed: 64 << 20,
            max_reply: 256 << 20,
            buffer_memory: 1 << 30,
            max_chunks: 65_536,
            max_json_depth: 100,
            max_models: 256,
            max_workers: 256,
            arena_memory: 4 << 30,
            threads: None,
            cgroup: Cgroup::Auto,
        }
    }
}

/// Without `measured`, which is a path that starts at the configuration's folder.
impl Default for Devices {
    fn default() -> Self {
        Self {
            nvml: NvmlLibrary::Auto,
            poll_interval: Duration::from_millis(200),
            answer_timeout: Duration::from_secs(5),
            headroom: 512 << 20,
            release_timeout: Duration::from_secs(10),
            measured: PathBuf::new(),
        }
    }
}

impl Default for GpuLimits {
    fn default() -> Self {
        Self { memory: 4 << 30, soft: 0.95, segments: Segments::Fixed, spread: 0 }
    }
}

impl Default for Repository {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            startup: Startup::All,
            required: Required::Startup,
            required_timeout: Some(Duration::from_secs(300)),
            symlinks: Symlinks::Inside,
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { grace: Duration::from_secs(1), drain_timeout: Duration::from_secs(25) }
    }
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            instances: None,
            threads: 1,
            slots: 16,
            slot_size: SlotSize::Auto,
            queue: 256,
            load_timeout: Duration::from_secs(60),
            infer_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: None,
            start: Start::Zygote,
            confinement: Confinement::Standard,
            host: HostLimits::default(),
            gpu: GpuLimits::default(),
            poison: PoisonSettings::default(),
            log_lines_per_second: 100,
            log_line_bytes: 4096,
            log_tail_lines: 20,
        }
    }
}

impl Default for HostLimits {
    fn default() -> Self {
        Self {
            memory: None,
            cpu: None,
            cpu_weight: 100,
            max_processes: 256,
            max_descriptors: 1024,
            scratch: Some(1 << 30),
        }
    }
}

impl Default for PoisonSettings {
    fn default() -> Self {
        Self { after: 2, ttl: Duration::from_secs(600) }
    }
}

impl Default for RestartSettings {
    fn default() -> Self {
        Self {
            max_restarts: 5,
            window: Duration::from_secs(60),
            backoff: Backoff::default(),
            reset_after: Duration::from_secs(60),
            no_retry_on: Vec::new(),
            on_oom: OnOom::Restart,
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(100),
            factor: 2.0,
            max: Duration::from_secs(30),
            jitter: 0.2,
        }
    }
}
