//! The supervisor.
#![forbid(unsafe_code)]
pub mod health;
pub mod lifecycle;
pub mod quota;
pub mod schedule;
