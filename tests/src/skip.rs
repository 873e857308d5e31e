//! What a test says that cannot run here: its name and what is missing, never silence.

use std::path::PathBuf;

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
