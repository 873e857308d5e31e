//! The whole picture of the server, put together from everybody who knows a part of it.
//!
//! Whoever shows it (the status page, metrics, the admin socket) asks here, and so they all say the same.
//! Everything in it is known already: no file is read and nobody is waited for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use proto::admin::status::{
    Device, Devices as ShownDevices, Model, Server, ServerState, Status, Zygote,
};
use shared::id::{ModelName, ModelVersion};
use tokio::sync::watch;

use crate::device::{Driver, Processes, Reading, Slice, Snapshot, State};
use crate::process::Spawner;
use crate::quota::{DeviceBalance, Quotas};
use crate::route::Routes;
use crate::status::Board;
use crate::system::Host;
use crate::telemetry::traces::Traces;

/// A cheap handle.
#[derive(Clone, Debug)]
pub struct Overview(Arc<Parts>);

/// Who knows what.
#[derive(Debug)]
pub struct Parts {
    pub board: Board,
    pub routes: Routes,
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    pub quotas: Quotas,
    pub spawner: Spawner,
    pub traces: Traces,
    pub host: watch::Receiver<Host>,
    /// Where it listens, by what is spoken there.
    pub listens: BTreeMap<String, String>,
    pub started: SystemTime,
}

impl Overview {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    #[must_use]
    pub fn status(&self) -> Status {
        Status { server: self.server(), models: self.models(), devices: self.devices() }
    }

    /// The same with one model alone; `None` if there is no such model.
    #[must_use]
    pub fn status_of(&self, model: &ModelName) -> Option<Status> {
        let mut model = self.0.board.model(model)?;
        self.add_traffic(&mut model);
        Some(Status { server: self.server(), models: vec![model], devices: self.devices() })
    }

    /// Whether anything is known of a model of this name.
    #[must_use]
    pub fn knows(&self, model: &ModelName) -> bool {
        self.0.board.model(model).is_some()
    }

    /// Hears of changes from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.board.changes()
    }

    /// All models, by name, with what is asked of them.
    #[must_use]
    pub fn models(&self) -> Vec<Model> {
        let mut models = self.0.board.models();
        models.iter_mut().for_each(|model| self.add_traffic(model));
        models
    }

    /// Completes what the board says of a model.
    pub fn add_traffic(&self, model: &mut Model) {
        let Model { name, versions, .. } = model;
        for version in versions {
            let number = ModelVersion::new(version.version);
            version.traffic = number.and_then(|number| self.0.routes.stats().traffic(name, number));
        }
    }

    #[must_use]
    pub fn server(&self) -> Server {
        let routes = &self.0.routes;
        let zygotes = self.0.spawner.zygotes().into_iter();
        Server {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: self.started_at(),
            state: self.state(),
            waits_for: routes.waits_for().iter().map(ToString::to_string).collect(),
            listens: self.0.listens.clone(),
            memory: self.host().own_memory,
            zygotes: zygotes
                .map(|(program, state)| Zygote { program, state: state.to_owned() })
                .collect(),
        }
    }

    #[must_use]
    pub fn devices(&self) -> ShownDevices {
        let snapshot = self.snapshot();
        let balances = self.0.quotas.report().devices;
        let driver = match &snapshot.driver {
            Driver::Absent(why) => why.clone(),
            Driver::Answers(version) => version.clone(),
            Driver::Silent => "silent".to_owned(),
        };
        let shown = |reading: &Reading| {
            let balance = balances.iter().find(|balance| balance.device.id == reading.device.id);
            device(reading, balance)
        };
        ShownDevices { driver, devices: snapshot.readings.iter().map(shown).collect() }
    }

    /// What the driver said last.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.snapshots.borrow())
    }

    /// Requests whose traces were lost.
    #[must_use]
    pub fn lost_traces(&self) -> u64 {
        self.0.traces.dropped()
    }

    #[must_use]
    pub fn host(&self) -> Host {
        *self.0.host.borrow()
    }

    #[must_use]
    pub fn routes(&self) -> &Routes {
        &self.0.routes
    }

    #[must_use]
    pub fn board(&self) -> &Board {
        &self.0.board
    }

    /// Milliseconds since 1970, UTC.
    #[must_use]
    pub fn started_at(&self) -> u64 {
        let since = self.0.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn state(&self) -> ServerState {
        let routes = &self.0.routes;
        match (routes.draining(), routes.server_ready(), routes.was_ready()) {
            (true, _, _) => ServerState::Draining,
            (false, true, _) => ServerState::Ready,
            (false, false, true) => ServerState::NotReady,
            (false, false, false) => ServerState::Starting,
        }
    }
}

fn device(reading: &Reading, balance: Option<&DeviceBalance>) -> Device {
    let Reading { device, state, memory, busy, processes } = reading;
    Device {
        id: device.id.to_string(),
        index: device.index,
        name: device.name.clone(),
        slice_of: match &device.slice {
            Slice::Whole => None,
            Slice::Of(whole) => Some(whole.to_string()),
        },
        lost: match state {
            State::Usable => None,
            State::Lost(why) => Some(why.clone()),
        },
        total: memory.map(|memory| memory.total),
        used: memory.map(|memory| memory.used),
        granted: balance.map_or(0, |balance| balance.balance.used),
        grantable: balance.map_or(0, |balance| balance.balance.capacity),
        suspect: balance.is_some_and(|balance| balance.suspect),
        busy_percent: *busy,
        blind: match processes {
            Processes::Seen(_) => None,
            Processes::Blind(why) => Some(why.clone()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Device as Found, DeviceId, Memory};
    use crate::quota::Balance;

    #[test]
    fn what_is_not_known_of_a_device_is_not_zero() {
        let id = DeviceId::new("GPU-1").unwrap();
        let found = Found { id, index: 0, name: "H".to_owned(), slice: Slice::Whole };
        let reading = Reading {
            device: found,
            state: State::Usable,
            memory: None,
            busy: None,
            processes: Processes::Blind("no rights".to_owned()),
        };
        let balance = DeviceBalance {
            device: reading.device.clone(),
            balance: Balance { used: 1, capacity: 2 },
            suspect: true,
            held: Vec::new(),
        };
        let shown = device(&reading, Some(&balance));
        assert_eq!((shown.total, shown.used, shown.busy_percent), (None, None, None));
        assert_eq!((shown.granted, shown.grantable, shown.suspect), (1, 2, true));
        assert_eq!(shown.blind.as_deref(), Some("no rights"));
        let seen = Reading { memory: Some(Memory { total: 9, used: 3 }), ..reading };
        let shown = device(&seen, None);
        assert_eq!((shown.used, shown.granted, shown.grantable), (Some(3), 0, 0));
    }
}
