//! What a test says that cannot run here: its name and what is missing, never silence.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::supervisor::binaries;

/// The folder that this environment variable names, or `None` after saying that `test` is skipped.
pub fn folder_or_skip(variable: &str, test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.exists());
    if folder.is_none() {
        skipped(test, &format!("{variable} names nothing that is there; use scripts/test"));
    }
    folder
}

/// Whether `test` may start a server as another user, in a folder for temporary files that this user
/// can reach; if not, it says what is skipped.
pub fn another_user_or_skip(test: &str) -> bool {
    let why = match (nix::unistd::geteuid().is_root(), std::env::temp_dir().canonicalize()) {
        (true, Ok(path)) if open_to_others(&path) => return true,
        (true, _) => "the folder for temporary files is closed to others",
        (false, _) => "this user is not root and cannot become one",
    };
    skipped(test, &format!("as another user: {why}"));
    false
}

/// As [`another_user_or_skip`], with libtorch where this user can read it: setup often leaves it in a
/// home that is closed.
pub fn another_user_with_torch_or_skip(test: &str) -> bool {
    let libtorch = std::env::var_os("LIBTORCH").map(PathBuf::from);
    if libtorch.and_then(|path| path.canonicalize().ok()).is_some_and(|path| open_to_others(&path))
    {
        return another_user_or_skip(test);
    }
    skipped(test, "as another user: LIBTORCH names no folder that is open to others");
    false
}

/// Whether anybody may go through all folders down to this one.
fn open_to_others(path: &Path) -> bool {
    path.ancestors().all(|folder| {
        std::fs::metadata(folder).is_ok_and(|found| found.permissions().mode() & 0o001 != 0)
    })
}

/// Where the test models are if libtorch's worker is there too, or `None` after saying that `test` is
/// skipped.
pub fn torch_or_skip(variable: &str, test: &str) -> Option<PathBuf> {
    let folder = folder_or_skip(variable, test)?;
    if binaries().join("bulkhead-worker-torch").is_file() {
        return Some(folder);
    }
    skipped(test, "bulkhead-worker-torch is not built; use scripts/test");
    None
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
