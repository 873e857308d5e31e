//! New workers for a model that serves, and another chance for what is quarantined of it.

use std::collections::VecDeque;
use std::sync::Arc;

use shared::id::ModelVersion;
use tracing::info;

use super::{Done, Keeper, Set, Waiter};
use crate::device::Device;
use crate::lifecycle::instance::{Gone, Instance};
use crate::lifecycle::{Availability, Event};
use crate::request::{RequestError, What};

/// What a set was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To serve what is in the repository now.
    Load,
    /// To take the place of the same versions.
    Restart,
}

/// A restart where there is no room for new workers beside the old ones.
#[derive(Debug, Default)]
pub(super) struct Renewal {
    left: VecDeque<Seat>,
    /// It has been asked for another worker.
    waits_for: Option<Seat>,
}

/// The version of an instance, and its place among those of the version.
type Seat = (ModelVersion, usize);

impl Keeper {
    pub(super) async fn ask_restart(&mut self, done: Done) {
        if self.is_loading() {
            // What is on its way up is new.
            return self.join(Waiter::Client(done));
        }
        let serving = self.current.as_ref().filter(|set| set.serves());
        let Some(folder) = serving.map(|set| Arc::clone(&set.folder)) else {
            return self.ask_load(done).await;
        };
        match self.set_of(&folder, Purpose::Restart) {
            Ok(set) => {
                info!(model = self.name.as_str(), "restarting");
                self.rejected = None;
                for version in set.versions.values() {
                    version.ask(&Event::Wanted).await;
                }
                self.loading.push(Waiter::Client(done));
                self.incoming = Some(set);
            }
            Err(reason) => {
                let _gone = done.send(Err(self.load_error(&reason)));
            }
        }
    }

    pub(super) async fn ask_reset(&mut self, done: Done) {
        let Some(set) = &self.current else {
            let message = format!("model '{}' is not loaded: there is nothing to reset", self.name);
            let _gone = done.send(Err(RequestError::new(What::NotReady, message)));
            return;
        };
        for version in set.versions.values() {
            version.ask(&Event::OperatorReset).await;
        }
        self.loading.retain(|waiting| !waiting.is_gone());
        self.loading.push(Waiter::Client(done));
    }

    /// Waits with those who wait for what is on its way up.
    pub(super) fn join(&mut self, waiter: Waiter) {
        let is_under_way = self.incoming.is_some() || !self.loading.is_empty();
        let others = if is_under_way { &mut self.loading } else { &mut self.again };
        others.retain(|waiting| !waiting.is_gone());
        others.push(waiter);
    }

    /// Whether the room that a worker of the current set gives up can be its successor's: a driver that does
    /// not answer, or a device that is suspect, has none for anybody.
    pub(super) fn would_find_room(&self) -> bool {
        let report = self.kit.quotas.report();
        let good = |device: &Device| {
            let balance = report.devices.iter().find(|balance| balance.device.id == device.id);
            self.kit.quotas.has_device() && balance.is_some_and(|balance| !balance.suspect)
        };
        let workers = self.current.iter().flat_map(|set| set.versions.values());
        let workers = workers.flat_map(|version| version.instances());
        let mut places =
            workers.filter_map(|instance| instance.view().worker?.device).map(|view| view.place);
        places.all(|place| place.devices.iter().all(good))
    }

    /// There was no room for another set.
    pub(super) async fn begin_renewal(&mut self) {
        info!(model = self.name.as_str(), "no room beside the old workers: one after the other");
        let left = self.current.as_ref().map(seats).unwrap_or_default();
        self.renewal = Some(Renewal { left, waits_for: None });
        self.renew_next().await;
    }

    /// Goes on to the next worker when the last one serves.
    pub(super) async fn renew_next(&mut self) {
        while let Some(renewal) = &mut self.renewal {
            if let Some(seat) = renewal.waits_for {
                let Some(instance) = self.current.as_ref().and_then(|set| at(set, seat)) else {
                    renewal.waits_for = None;
                    continue;
                };
                // It was not ready any more when it had heard that another worker is wanted.
                let view = instance.view();
                if view.gone == Gone::Yes {
                    self.renewal = None;
                    let error = self.load_error(&view.status.reason);
                    return self.answer_loads(Err(error));
                }
                if view.status.availability != Availability::Ready {
                    return;
                }
                renewal.waits_for = None;
            }
            let Some(seat) = renewal.left.pop_front() else {
                self.renewal = None;
                return self.answer_loads(Ok(()));
            };
            renewal.waits_for = Some(seat);
            if let Some(instance) = self.current.as_ref().and_then(|set| at(set, seat)) {
                let event = match instance.view().gone {
                    Gone::Yes => Event::OperatorReset,
                    Gone::No => Event::Renew,
                };
                instance.ask(event).await;
            }
        }
    }
}

fn seats(set: &Set) -> VecDeque<Seat> {
    let of = |(&number, version): (&ModelVersion, &super::Version)| {
        (0..version.instances().len()).map(move |place| (number, place))
    };
    set.versions.iter().flat_map(of).collect()
}

fn at(set: &Set, (version, place): Seat) -> Option<&Instance> {
    set.versions.get(&version)?.instances().get(place)
}
