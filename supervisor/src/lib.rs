//! The supervisor.
#![forbid(unsafe_code)]
pub mod admission;
pub mod config;
pub mod health;
pub mod lane;
pub mod lifecycle;
pub mod process;
pub mod quota;
pub mod repository;
pub mod request;
pub mod route;
pub mod schedule;
pub mod schema;
