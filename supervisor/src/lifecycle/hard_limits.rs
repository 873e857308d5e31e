//! What the driver itself holds a worker to, through the worker's control group.

use std::path::Path;

use crate::device::{Devices, HardLimit};
use crate::quota::Place;

/// On all devices of a worker, or on none. To be cleared when it has ended, before its control group
/// goes: what is set on a group that is gone can stay with the driver.
#[derive(Debug)]
pub(super) struct HardLimits(Vec<HardLimit>);

/// Whether the driver itself refuses what is beyond the quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hard {
    Yes,
    /// Why not.
    No(String),
}

impl HardLimits {
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// For the processes of `group`, which is empty so far: what is taken before does not count.
    pub(super) async fn set(
        devices: &Devices,
        group: Option<&Path>,
        place: Option<&Place>,
    ) -> (Self, Hard) {
        let Some(place) = place else { return (Self::none(), no("it has no device")) };
        let Some(group) = group else {
            return (Self::none(), no("there is no control group of version 2 for it"));
        };
        let mut limits = Vec::new();
        for device in &place.devices {
            match devices.limit(device.id.clone(), group.to_owned(), whole(place.bytes)).await {
                Ok(limit) => limits.push(limit),
                Err(why) => {
                    Self(limits).clear().await;
                    return (Self::none(), Hard::No(why));
                }
            }
        }
        (Self(limits), Hard::Yes)
    }

    pub(super) async fn clear(self) {
        for limit in self.0 {
            limit.clear().await;
        }
    }
}

/// Drivers give memory out in pages of 2 MiB, and may take a limit for the next whole one.
fn whole(bytes: u64) -> u64 {
    const PAGE: u64 = 2 << 20;
    (bytes - bytes % PAGE).max(PAGE)
}

fn no(why: &str) -> Hard {
    Hard::No(why.to_owned())
}
