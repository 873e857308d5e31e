//! Whether a worker is still worth its requests.
//!
//! Owns the judgement ([`verdict`], pure). It measures nothing and ends nothing: whoever watches a
//! worker hands in what it saw, and the lifecycle decides what follows.

pub mod verdict;

pub use verdict::{HealthPolicy, Observation, Reason, Verdict};
