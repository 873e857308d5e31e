//! Draining completions where a runtime thread is about to sleep.
//!
//! A worker rings the control socket only while the supervisor sleeps. Every thread that is about
//! to park drains the lanes that have something in flight, announces a new attempt to sleep to each
//! and looks once more; when the last parked thread wakes, the announcements are taken back.
//! In the prototype that preceded this code it rang about three times less than a task per worker
//! that waits for the socket; here it was not measured.

use std::sync::Arc;

use arc_swap::ArcSwap;
use shared::sync::{AtomicUsize, Ordering};

use super::transport::Lane;

/// All lanes of this supervisor. Its two hooks belong on the runtime's threads.
#[derive(Debug, Default)]
pub struct Bells {
    lanes: ArcSwap<Vec<Arc<Lane>>>,
    parked: AtomicUsize,
}

impl Bells {
    /// Adds a lane, until [`Bells::remove`].
    pub fn add(&self, lane: &Arc<Lane>) {
        self.lanes.rcu(|lanes| {
            let mut lanes = Vec::clone(lanes);
            lanes.push(Arc::clone(lane));
            lanes
        });
    }

    pub fn remove(&self, lane: &Arc<Lane>) {
        self.lanes.rcu(|lanes| {
            let others = lanes.iter().filter(|other| !Arc::ptr_eq(other, lane));
            others.cloned().collect::<Vec<_>>()
        });
    }

    /// A runtime thread is about to sleep.
    pub fn on_park(&self) {
        // Partner: the Acquire load in `anyone_parked`. A submitter that reads the old count runs
        // on a thread that has yet to park itself, and announces then.
        self.parked.fetch_add(1, Ordering::AcqRel);
        for lane in self.lanes.load().iter().filter(|lane| lane.is_active()) {
            lane.drain_and_announce();
        }
    }

    /// A runtime thread goes on.
    pub fn on_unpark(&self) {
        if self.parked.fetch_sub(1, Ordering::AcqRel) == 1 {
            for lane in self.lanes.load().iter().filter(|lane| lane.is_active()) {
                lane.take_back_announcement();
            }
        }
    }

    pub(super) fn anyone_parked(&self) -> bool {
        self.parked.load(Ordering::Acquire) > 0
    }
}
