//! What the server says of itself: logs, and traces of requests.

mod logs;
pub mod traces;

pub use logs::{InvalidFilter, LogFilter, start_logs};
