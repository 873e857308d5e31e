//! The configuration: what an operator may choose.

mod settings;

pub use settings::{
    Backoff, Config, Enabled, Http, Limits, Log, LogFormat, ModelSettings, Repository,
    RepositoryControl, Required, RestartSettings, Shutdown, SlotSize, Startup, Symlinks,
    WorkerSettings,
};
