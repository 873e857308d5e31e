//! The supervisor.
#![forbid(unsafe_code)]
pub mod health;
pub mod lane;
pub mod lifecycle;
pub mod quota;
pub mod request;
pub mod schedule;
