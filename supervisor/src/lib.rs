#![doc = include_str!("../ARCHITECTURE.md")]
#![forbid(unsafe_code)]

pub mod admin;
pub mod admission;
pub mod app;
pub mod cli;
pub mod config;
pub mod console;
pub mod device;
pub mod enclosure;
pub mod exit;
pub mod exit_kind;
pub mod frontend;
pub mod health;
mod heavy;
pub mod inventory;
pub mod lane;
pub mod lifecycle;
pub mod overview;
pub mod process;
pub mod quota;
pub mod repository;
pub mod request;
pub mod route;
pub mod schedule;
pub mod schema;
pub mod stats;
pub mod status;
pub mod system;
pub mod telemetry;
