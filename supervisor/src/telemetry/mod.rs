//! What the server says of itself. Logs now; metrics and traces have their room here.

mod logs;

pub use logs::{InvalidFilter, LogFilter, start_logs};
