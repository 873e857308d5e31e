//! The supervisor.
#![forbid(unsafe_code)]
pub mod admission;
pub mod frontend;
pub mod health;
pub mod lane;
pub mod lifecycle;
pub mod quota;
pub mod request;
pub mod route;
pub mod schedule;
