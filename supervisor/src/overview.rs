//! All that operators are shown of this server, put together when somebody looks.
//!
//! Owns nothing of it: models are on the board, the rest is asked of whoever has it. Whoever shows it
//! (admin socket, status page, metrics) asks here, so that all show the same.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::SystemTime;

use nix::unistd::{SysconfVar, sysconf};
use proto::admin::status::{self as shown, ServerState, Status};
use shared::id::ModelName;
use tokio::sync::watch;

use crate::device::{Device, Driver, Memory, Processes, Reading, Slice, Snapshot, State};
use crate::process::Spawner;
use crate::quota::{DeviceBalance, Quotas};
use crate::route::Routes;
use crate::status::Board;

/// Whom is asked.
#[derive(Clone, Debug)]
pub struct Sources {
    pub board: Board,
    pub routes: Routes,
    pub quotas: Quotas,
    pub spawner: Spawner,
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Where the server listens, by what is spoken there.
    pub listens: BTreeMap<String, String>,
}

/// A handle.
#[derive(Clone, Debug)]
pub struct Overview(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    sources: Sources,
    /// Milliseconds since 1970, UTC.
    started_at: u64,
}

impl Overview {
    /// Of a server that starts now.
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let millis = since_epoch.unwrap_or_default().as_millis();
        let started_at = u64::try_from(millis).unwrap_or(u64::MAX);
        Self(Arc::new(Shared { sources, started_at }))
    }

    /// Everything, as it is now.
    #[must_use]
    pub fn status(&self) -> Status {
        let models = self.0.sources.board.models();
        Status { server: self.server(), models, devices: self.devices() }
    }

    /// The same with one model alone; `None` if there is no such model.
    #[must_use]
    pub fn status_of(&self, model: &ModelName) -> Option<Status> {
        let models = vec![self.0.sources.board.model(model)?];
        Some(Status { server: self.server(), models, devices: self.devices() })
    }

    /// Whether anything is known of a model of this name.
    #[must_use]
    pub fn knows(&self, model: &ModelName) -> bool {
        self.0.sources.board.model(model).is_some()
    }

    /// Hears of changes from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.sources.board.changes()
    }

    fn server(&self) -> shown::Server {
        let Sources { routes, spawner, listens, .. } = &self.0.sources;
        let zygote =
            |(program, state): (String, &str)| shown::Zygote { program, state: state.to_owned() };
        shown::Server {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: self.0.started_at,
            state: state(routes),
            waits_for: routes.missing().iter().map(ModelName::to_string).collect(),
            listens: listens.clone(),
            memory: resident(),
            zygotes: spawner.zygotes().into_iter().map(zygote).collect(),
        }
    }

    #[must_use]
    pub fn devices(&self) -> shown::Devices {
        let Sources { quotas, snapshots, .. } = &self.0.sources;
        let snapshot = Arc::clone(&snapshots.borrow());
        let balances = quotas.report().devices;
        let device = |reading: &Reading| {
            let balance = balances.iter().find(|balance| balance.device.id == reading.device.id);
            device(reading, balance)
        };
        shown::Devices {
            driver: match &snapshot.driver {
                Driver::Answers(version) => version.clone(),
                Driver::Absent(why) => why.clone(),
                Driver::Silent => "it does not answer".to_owned(),
            },
            devices: snapshot.readings.iter().map(device).collect(),
        }
    }
}

fn state(routes: &Routes) -> ServerState {
    if routes.draining() {
        ServerState::Draining
    } else if routes.server_ready() {
        ServerState::Ready
    } else if routes.was_ready() {
        ServerState::NotReady
    } else {
        ServerState::Starting
    }
}

fn device(reading: &Reading, balance: Option<&DeviceBalance>) -> shown::Device {
    let Reading { device: Device { id, index, name, slice }, state, memory, busy, processes } =
        reading;
    let memory = |figure: fn(Memory) -> u64| memory.map(figure);
    shown::Device {
        id: id.to_string(),
        index: *index,
        name: name.clone(),
        slice_of: match slice {
            Slice::Whole => None,
            Slice::Of(whole) => Some(whole.to_string()),
        },
        lost: match state {
            State::Usable => None,
            State::Lost(why) => Some(why.clone()),
        },
        total: memory(|memory| memory.total),
        used: memory(|memory| memory.used),
        granted: balance.map_or(0, |balance| balance.balance.used),
        grantable: balance.map_or(0, |balance| balance.balance.capacity),
        busy_percent: *busy,
        blind: match processes {
            Processes::Seen(_) => None,
            Processes::Blind(why) => Some(why.clone()),
        },
    }
}

/// Bytes of memory of this process that are resident; `None` if that cannot be read.
fn resident() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten()?;
    pages.checked_mul(u64::try_from(page).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_this_process_is_known() {
        assert!(resident().is_some_and(|bytes| bytes > 1 << 16));
    }

    #[test]
    fn a_device_that_is_not_in_the_books_has_nothing_to_give() {
        let id = crate::device::DeviceId::new("GPU-a").unwrap();
        let reading = Reading {
            device: Device { id, index: 3, name: "Fake".into(), slice: Slice::Whole },
            state: State::Lost("Xid 79".into()),
            memory: None,
            busy: None,
            processes: Processes::Blind("lost".into()),
        };
        let shown = device(&reading, None);
        assert_eq!((shown.index, shown.granted, shown.grantable), (3, 0, 0));
        assert_eq!((shown.total, shown.lost.as_deref()), (None, Some("Xid 79")));
    }
}
