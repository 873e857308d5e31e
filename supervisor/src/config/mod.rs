//! The configuration: what an operator may choose, read in passes.
//!
//! A file and `--set` overrides become one TOML table (`load`), in which each unknown key is
//! found (`schema`); the table becomes `Raw` (`raw`: right keys, any values), and that becomes a
//! [`Config`] (`check`: cannot hold a bad value). All errors of a configuration are reported
//! together. A [`Diff`] says what a second configuration would change in a running server, and
//! [`Config::reloaded`] what holds there once it was applied.
//!
//! Nothing here binds, spawns or allocates. Invariant: every key has a default and a range, and
//! both stand in `config.toml` at the root of the repository (a test compares them).

mod check;
mod check_models;
mod defaults;
mod diff;
mod error;
mod flat;
mod load;
mod overrides;
mod raw;
mod reader;
mod reload;
mod schema;
mod settings;
#[cfg(test)]
mod tests;
mod value;

pub use diff::{Change, Diff};
pub use error::{ConfigError, ConfigErrors};
pub use flat::{Effect, Entry};
pub use load::{DEFAULT_FILE, Origin};
pub use settings::{
    Admin, Backoff, Cgroup, Config, Confinement, Devices, Enabled, GpuLimits, HostLimits, Http,
    Limits, Log, LogFormat, Metrics, ModelSettings, NvmlLibrary, OnOom, PoisonSettings, Repository,
    RepositoryControl, Required, RestartSettings, Segments, Shutdown, SlotSize, Start, Startup,
    Symlinks, Traces, WorkerSettings,
};
