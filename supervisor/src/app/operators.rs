//! The part of the server that hears operators, put together.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::StartError;
use crate::admin::{self, AdminSocket, Audit, Desk, Handles, Rights};
use crate::config::{Config, Origin};
use crate::lifecycle::instance::Kit;
use crate::overview::{Overview, Sources};
use crate::route::Routes;
use crate::status::Board;

/// What is bound and opened before anything runs.
#[derive(Debug)]
pub(super) struct Operators {
    /// `None` if nobody is to be heard.
    socket: Option<AdminSocket>,
    rights: Rights,
    audit: Audit,
    origin: Origin,
}

/// Operators who are heard.
#[derive(Debug)]
pub(super) struct Heard {
    drains: mpsc::Receiver<()>,
    /// Never sent anything: kept so that one who asks to drain is always taken.
    _drain: mpsc::Sender<()>,
    board: Board,
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
        let bind = |path| {
            AdminSocket::bind(path, rights).map_err(|e| StartError::Admin(path.to_owned(), e))
        };
        let socket = settings.socket.as_deref().map(bind).transpose()?;
        Ok(Self { socket, rights, audit, origin })
    }

    /// `listens` is where the server does, by what is spoken there.
    pub(super) fn hear(
        self,
        kit: &Kit,
        routes: &Routes,
        (config, mut listens): (&Config, BTreeMap<String, String>),
    ) -> Heard {
        let Self { socket, rights, audit, origin } = self;
        let board = kit.board.clone();
        if let Some(path) = &config.admin.socket {
            listens.insert("admin".to_owned(), path.display().to_string());
        }
        let overview = Overview::new(Sources {
            board: board.clone(),
            routes: routes.clone(),
            quotas: kit.quotas.clone(),
            spawner: kit.spawner.clone(),
            snapshots: kit.devices.snapshots(),
            listens,
        });
        let (drain, drains) = mpsc::channel(1);
        let (_running, running) = watch::channel(Arc::new(config.clone()));
        let handles = Handles {
            overview,
            routes: routes.clone(),
            quotas: kit.quotas.clone(),
            archive: kit.archive.clone(),
            journals: kit.journals.clone(),
            config: running,
            origin,
            drain: drain.clone(),
            reload: None,
        };
        let (stop, stopped) = oneshot::channel();
        let task = socket.map(|socket| {
            let desk = Desk::new(handles, audit);
            let stopped = async move { drop(stopped.await) };
            let parts = (desk, rights, config.admin.max_connections);
            tokio::spawn(admin::serve(socket, parts, stopped))
        });
        Heard { drains, _drain: drain, board, stop, task }
    }
}

impl Heard {
    /// Waits until an operator asks the server to end.
    pub(super) async fn drain(&mut self) {
        // A sender is kept here.
        let _asked = self.drains.recv().await;
    }

    /// The server has begun to end: whoever watches is shown that.
    pub(super) fn tell(&self) {
        self.board.changed();
    }

    pub(super) async fn dismiss(self) {
        drop(self.stop);
        if let Some(task) = self.task {
            let _ended = task.await;
        }
    }
}
