//! The part of the server that hears operators, put together.

use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::StartError;
use super::reload::Reloader;
use crate::admin::{self, AdminSocket, Audit, Desk, Handles, Reload, Rights};
use crate::config::{Change, Config, Diff, Origin};
use crate::lifecycle::instance::Kit;
use crate::lifecycle::reload::{ReloadReport, Scope};
use crate::overview::Overview;
use crate::route::Routes;

/// What is bound and opened before anything runs.
#[derive(Debug)]
pub(super) struct Operators {
    /// `None` if nobody is to be heard.
    socket: Option<AdminSocket>,
    rights: Rights,
    audit: Audit,
    origin: Origin,
    max_connections: u32,
}

/// Operators who are heard.
#[derive(Debug)]
pub(super) struct Heard {
    drains: mpsc::Receiver<()>,
    /// Never sent anything: kept so that one who asks to drain is always taken.
    _drain: mpsc::Sender<()>,
    stop: oneshot::Sender<()>,
    /// `None` if there are none.
    task: Option<JoinHandle<()>>,
}

impl Operators {
    pub(super) fn expect(config: &Config, origin: Origin) -> Result<Self, StartError> {
        let settings = &config.admin;
        let group = settings.group.as_deref();
        let rights = Rights::with_group(group)
            .ok_or_else(|| StartError::Group(group.unwrap_or_default().to_owned()))?;
        let file = settings.audit_log.as_deref();
        let audit = Audit::new(file)
            .map_err(|e| StartError::Audit(file.map(Into::into).unwrap_or_default(), e))?;
        let bind = |path: &Path| {
            AdminSocket::bind(path, rights).map_err(|e| StartError::Admin(path.to_owned(), e))
        };
        let socket = settings.socket.as_deref().map(bind).transpose()?;
        let max_connections = settings.max_connections;
        Ok(Self { socket, rights, audit, origin, max_connections })
    }

    pub(super) fn hear(
        self,
        overview: Overview,
        (kit, routes): (&Kit, &Routes),
        reloader: &Reloader,
    ) -> Heard {
        let Self { socket, rights, audit, origin, max_connections } = self;
        let (drain, drains) = mpsc::channel(1);
        let handles = Handles {
            overview,
            routes: routes.clone(),
            quotas: kit.quotas.clone(),
            archive: kit.archive.clone(),
            journals: kit.journals.clone(),
            origin,
            drain: drain.clone(),
            reload: Arc::new(reloader.clone()),
        };
        let (stop, stopped) = oneshot::channel();
        let task = socket.map(|socket| {
            let desk = Desk::new(handles, audit);
            let stopped = async move { drop(stopped.await) };
            tokio::spawn(admin::serve(socket, (desk, rights, max_connections), stopped))
        });
        Heard { drains, _drain: drain, stop, task }
    }
}

impl Heard {
    /// Waits until an operator asks the server to end.
    pub(super) async fn drain(&mut self) {
        // A sender is kept here.
        let _asked = self.drains.recv().await;
    }

    pub(super) async fn dismiss(self) {
        drop(self.stop);
        if let Some(task) = self.task {
            let _ended = task.await;
        }
    }
}

impl Reload for Reloader {
    fn running(&self) -> Arc<Config> {
        self.config()
    }

    fn preview(&self) -> BoxFuture<'static, Result<Diff, String>> {
        let this = self.clone();
        Box::pin(async move { Self::preview(&this).await })
    }

    fn reload(&self, scope: Scope) -> BoxFuture<'static, Result<ReloadReport, String>> {
        let this = self.clone();
        Box::pin(async move { Self::reload(&this, scope).await })
    }

    fn apply(&self) -> BoxFuture<'static, Result<Vec<Change>, String>> {
        let this = self.clone();
        Box::pin(async move { Self::apply(&this).await })
    }
}
