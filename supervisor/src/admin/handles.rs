//! Whom commands are carried out by.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use proto::admin::reply::ConfigChanges;
use shared::id::ModelName;
use tokio::sync::{mpsc, watch};

use crate::config::{Config, Origin};
use crate::lifecycle::archive::Archive;
use crate::overview::Overview;
use crate::process::Journals;
use crate::quota::Quotas;
use crate::route::Routes;

#[derive(Clone)]
pub struct Handles {
    pub overview: Overview,
    pub routes: Routes,
    pub quotas: Quotas,
    pub archive: Archive,
    pub journals: Journals,
    /// What runs.
    pub config: watch::Receiver<Arc<Config>>,
    /// Where it came from.
    pub origin: Origin,
    /// Asks the server to end as SIGTERM does.
    pub drain: mpsc::Sender<()>,
    /// `None` if this server cannot.
    pub reload: Option<Arc<dyn Reload>>,
}

/// Applies the configuration on disk.
pub trait Reload: Send + Sync {
    /// What has changed, or why nothing has.
    fn reload(&self, scope: Scope) -> BoxFuture<'static, Result<ConfigChanges, String>>;
}

/// Of what the configuration is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    All,
    Model(ModelName),
}

impl fmt::Debug for Handles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handles").field("origin", &self.origin).finish_non_exhaustive()
    }
}
