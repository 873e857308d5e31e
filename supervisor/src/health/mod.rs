//! Whether a worker is still worth its requests, and whether a request is worth a worker.
//!
//! Owns the judgement of workers ([`verdict`], [`vigil`] and [`device`], pure) and of requests ([`suspects`], pure, and
//! [`watchlist`], the one table of a version that everyone shares). It measures nothing and ends
//! nothing: whoever watches a worker hands in what it saw, the lifecycle decides what follows for
//! the worker, and admission what follows for the request.

pub mod device;
pub mod suspects;
pub mod verdict;
pub mod vigil;
pub mod watchlist;

pub use device::{Advice, DeviceUse, DeviceWatch};
pub use suspects::{
    Conviction, Evidence, Fingerprint, Incarnation, PoisonPolicy, Standing, Suspects,
};
pub use verdict::{DiskUse, HealthPolicy, Observation, Reason, Verdict};
pub use vigil::Vigil;
pub use watchlist::{Prints, Watchlist};
