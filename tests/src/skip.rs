//! What a test says that cannot run here: its name and what is missing, never silence.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use crate::supervisor::{Supervisor, binaries};

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
    let why = match (may_give_away(), std::env::temp_dir().canonicalize()) {
        (true, Ok(path)) if open_to_others(&path) => return true,
        (true, _) => "the folder for temporary files is closed to others",
        (false, _) => "this user is not root, or there is no other in its namespace",
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

/// Whether files can be made another user's: root of a namespace may know of no other.
fn may_give_away() -> bool {
    let nobody = Some(65534);
    let given = tempfile::tempdir().and_then(|folder| chown(folder.path(), nobody, nobody));
    given.is_ok()
}

/// Whether anybody may go through all folders down to this one.
fn open_to_others(path: &Path) -> bool {
    path.ancestors().all(|folder| {
        std::fs::metadata(folder).is_ok_and(|found| found.permissions().mode() & 0o001 != 0)
    })
}

/// Whether the newest worker of `model`, which is to be `strict`, is in namespaces of its own; if not,
/// it says why `test` is skipped. Some systems and containers have none for this user.
pub fn strict_or_skip(server: &Supervisor, model: &str, test: &str) -> bool {
    holds_or_skip(server, model, &["namespaces (", "proc"], test)
}

/// Whether all of these measures hold for the newest worker of `model`. Which of them are missing, and
/// why, is what the worker says, and why `test` is skipped.
pub fn holds_or_skip(server: &Supervisor, model: &str, measures: &[&str], test: &str) -> bool {
    let said = server.logs().wait_for_number(1, model, "worker confined").pop();
    let holds = said.and_then(|event| Some(event["holds"].as_str()?.to_owned()));
    let holds = holds.unwrap_or_default();
    let held = |measure: &&str| holds.split(", ").any(|held| held.starts_with(measure));
    if measures.iter().all(held) {
        return true;
    }
    let missing = server.logs().about(model, "confinement: a measure is missing");
    let why = missing.iter().map(|event| format!("{}: {}", event["measure"], event["why"]));
    skipped(test, &format!("not all of it can be had: {}", why.collect::<Vec<_>>().join("; ")));
    false
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

/// Names a file to which each skip is added, for whoever runs all tests to show in the end.
const LIST: &str = "BULKHEAD_SKIPS";

/// Says that a test did not run, and why: it counts as passed, and nothing else tells the two apart.
pub fn skipped(test: &str, why: &str) {
    let line = format!("{test}: {why}\n");
    // Not by a macro, whose output is kept from a person for as long as the test passes.
    let _closed = std::io::stderr().write_all(format!("SKIPPED {line}").as_bytes());
    if let Some(list) = std::env::var_os(LIST) {
        add(Path::new(&list), &line);
    }
}

fn add(list: &Path, line: &str) {
    let file = File::options().append(true).create(true).open(list);
    // In one call: many tests write at a time.
    let added = file.and_then(|mut file| file.write_all(line.as_bytes()));
    added.unwrap_or_else(|error| panic!("{LIST} names {}: {error}", list.display()));
}

/// A line for the person who reads the output of a test run.
#[expect(clippy::print_stderr, reason = "that is where the output of a test run goes")]
pub fn say(line: &str) {
    eprintln!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_grows_by_a_line_for_each() {
        let folder = tempfile::tempdir().expect("there is a folder for temporary files");
        let list = folder.path().join("list");
        ["a: none\n", "b: no\n"].into_iter().for_each(|line| add(&list, line));
        assert_eq!(std::fs::read_to_string(list).expect("it is there"), "a: none\nb: no\n");
    }
}
