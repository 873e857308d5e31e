//! What has been asked of each version of a model, in numbers that never go back.
//!
//! Owns the counters of all versions, for the life of the server: neither the end of a worker nor a load
//! anew resets them. A request pays a few relaxed additions and takes no lock; what the last minute was
//! like is worked out by whoever asks, from a ring of short windows that [`Registry::turn`] fills.
//!
//! Each request for a version is counted once: as a success, or as a failure with its reason. A
//! [`Tally`] that is dropped belongs to a client that has left.

mod histogram;
mod minute;
mod registry;
mod tally;
mod version;

pub use histogram::Shape;
pub use minute::Minute;
pub use registry::{Registry, TURN};
pub use tally::{Failure, Spent, Tally};
pub use version::{Counted, Holding, VersionStats, Waiting, WaitsAgain};
