//! Whom commands are carried out by.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use crate::config::{Change, Config, Diff, Origin};
use crate::lifecycle::archive::Archive;
use crate::lifecycle::reload::{ReloadReport, Scope};
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
    /// Where the configuration came from.
    pub origin: Origin,
    /// Asks the server to end as SIGTERM does.
    pub drain: mpsc::Sender<()>,
    pub reload: Arc<dyn Reload>,
}

/// Applies the configuration on disk.
pub trait Reload: Send + Sync {
    /// What the server runs with.
    fn running(&self) -> Arc<Config>;

    /// What a reload of everything would change, or why there would be none.
    fn preview(&self) -> BoxFuture<'static, Result<Diff, String>>;

    /// What came of it, or why nothing has changed.
    fn reload(&self, scope: Scope) -> BoxFuture<'static, Result<ReloadReport, String>>;

    /// What differs, once it has been taken up and the models have been told.
    fn apply(&self) -> BoxFuture<'static, Result<Vec<Change>, String>>;
}

impl fmt::Debug for Handles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handles").field("origin", &self.origin).finish_non_exhaustive()
    }
}
