//! The supervisor.
#![forbid(unsafe_code)]
pub mod admission;
pub mod lane;
pub mod request;
pub mod route;
