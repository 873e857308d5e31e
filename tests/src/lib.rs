//! The harness of the end-to-end tests: it starts the real server with real workers.
//!
//! - [`supervisor`]: a server of the test's own, in a temporary folder, on a free port.
//! - [`models`]: its model repository.
//! - [`client`]: HTTP to it, down to single bytes.
//! - [`load`]: steady requests beside what a test does.
//! - [`workers`]: its worker processes, as `/proc` shows them.
//! - [`logs`]: what it says.
//! - [`wait`]: the only place where time passes: conditions with a watchdog.
//!
//! The tests are one file a topic beside this folder. A test that needs something that is not
//! there prints its name and what is missing, and passes ([`skipped`]).
//!
//! The harness panics with a reason where the server could not be started or observed; what is
//! under test it hands back.

pub mod client;
pub mod load;
pub mod logs;
pub mod models;
pub mod supervisor;
pub mod wait;
pub mod workers;

use std::path::PathBuf;

pub use client::{Aside, Client, Infer, Response};
pub use load::Load;
pub use models::{Echo, Repository};
pub use supervisor::Supervisor;

/// The folder that this environment variable names, or `None` after saying that `test` is skipped.
pub fn folder_or_skip(variable: &str, test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.exists());
    if folder.is_none() {
        skipped(test, &format!("{variable} names nothing that is there; use scripts/test"));
    }
    folder
}

/// Says that a test did not run, and why.
pub fn skipped(test: &str, why: &str) {
    say(&format!("SKIPPED {test}: {why}"));
}

/// A line for the person who reads the output of a test run.
#[expect(clippy::print_stderr, reason = "that is where the output of a test run goes")]
pub fn say(line: &str) {
    eprintln!("{line}");
}
