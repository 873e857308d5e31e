//! The rules of `supervisor/ARCHITECTURE.md` on who may use what, held against the source.
//!
//! The files are read as text, so a rule also holds for code that this machine does not build.

mod absences;
mod contents;
mod levels;
mod source;
mod violation;

use std::path::{Path, PathBuf};

use source::Source;
use violation::Violation;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the checkout").to_owned()
}

fn sources() -> Vec<Source> {
    ["supervisor", "worker", "shared", "proto", "tests"]
        .into_iter()
        .flat_map(|folder| Source::tree(&root(), folder))
        .collect()
}

fn check(source: &Source) -> Vec<Violation> {
    let mut found = levels::check(source);
    found.extend(absences::check(source));
    found.extend(contents::lists_of_modules(source));
    found.extend(contents::supervisor_forbids_unsafe(source));
    found
}

fn assert_none(violations: &[Violation]) {
    let lines: Vec<String> = violations.iter().map(Violation::to_string).collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

#[test]
fn every_source_file_keeps_the_rules() {
    let sources = sources();
    assert!(sources.len() > 100, "only {} files were found", sources.len());
    assert_none(&sources.iter().flat_map(check).collect::<Vec<_>>());
}

#[test]
fn packages_depend_one_way() {
    for package in contents::packages() {
        let manifest = std::fs::read_to_string(root().join(package).join("Cargo.toml")).unwrap();
        assert_none(&contents::dependencies(package, &manifest));
    }
}

#[test]
fn no_rule_names_a_file_that_is_gone() {
    assert_none(&absences::stale(&sources()));
}

/// A file that breaks one rule, and what the rule says.
const BROKEN: &[(&str, &str, &str)] = &[
    ("supervisor/src/lane/a.rs", "use crate::route::Routes;", "`lane` (level 2) uses `route`"),
    ("supervisor/src/route.rs", "use super::admission::admit;", "uses `admission` (level 5)"),
    ("supervisor/src/lane/mod.rs", "use super::{request, schedule};", "uses `schedule`"),
    ("supervisor/src/request.rs", "fn a() { crate::lane::b() }", "uses `lane`"),
    ("supervisor/src/app.rs", "use crate::{config::{A, B}, main};", "uses `main`"),
    ("supervisor/src/attic/a.rs", "", "room `attic` has no level"),
    ("worker/src/engine/a.rs", "use crate::pump::Pump;", "`engine` (level 2) uses `pump`"),
    ("worker/torch/src/names.rs", "use crate::load::load;", "uses `load`"),
    ("shared/src/sys/a.rs", "use crate::memory::Mapping;", "uses `memory`"),
    ("proto/src/control.rs", "use crate::codec::encode;", "uses `codec`"),
    ("supervisor/src/frontend/a.rs", "use crate::lifecycle::Machine;", "they meet in `route`"),
    ("supervisor/src/schedule/a.rs", "use crate::process::Child;", "they meet in `route`"),
    ("supervisor/src/lifecycle/a.rs", "use crate::frontend::http;", "they meet in `route`"),
    ("supervisor/src/app.rs", "use hyper::Request;", "only `frontend` speaks"),
    ("supervisor/src/process/child.rs", "use ipc_channel::ipc;", "from session to session"),
    ("worker/src/control.rs", "use bincode::serde;", "`proto::codec` alone"),
    ("worker/src/pump/run.rs", "use tch::Tensor;", "has libtorch in its name"),
    ("worker/src/boot.rs", "fn a() { unsafe { b() } }", "unsafe code has an address"),
    ("supervisor/src/quota/a.rs", "use nvml_wrapper::Nvml;", "only `device` speaks to the GPU"),
    ("shared/src/tensor.rs", "use std::sync::atomic::AtomicBool;", "come from shared::sync"),
    ("worker/src/pump/a.rs", "async fn a() {}", "no async runtime"),
    ("tests/src/a.rs", "fn a() { std::thread::sleep(b) }", "a sleep is a guess"),
    ("supervisor/src/route.rs", "use anyhow::Result;", "anyhow is for main"),
    ("supervisor/src/lifecycle/machine.rs", "fn a() { Instant::now(); }", "this file is pure"),
    ("supervisor/src/quota/ledger.rs", "use std::sync::Mutex;", "this file is pure"),
    ("supervisor/src/repository/select.rs", "use std::fs;", "this file is pure"),
    ("supervisor/src/lifecycle/restart.rs", "use rand::random;", "this file is pure"),
    ("supervisor/src/health/mod.rs", "pub fn a() {}", "no logic"),
    ("supervisor/src/lib.rs", "pub mod app;", "`#![forbid(unsafe_code)]` is missing"),
];

#[test]
fn every_rule_catches_what_breaks_it() {
    for (path, text, message) in BROKEN {
        let found = check(&Source::parse(path, text));
        assert!(
            found.iter().any(|violation| violation.message.contains(message)),
            "{path} with `{text}` gives {found:?}"
        );
    }
}

#[test]
fn what_only_looks_like_a_violation_is_none() {
    let fine = [
        ("supervisor/src/lane/a.rs", "use super::table::Table; // crate::route"),
        ("supervisor/src/lane/b.rs", "use crate::request::What; const A: &str = \"crate::app\";"),
        ("supervisor/src/lifecycle/machine.rs", "#[cfg(test)] mod tests { use std::fs; }"),
        ("supervisor/src/health/mod.rs", "//! fn\npub mod verdict;\npub use verdict::Verdict;"),
        ("worker/src/boot.rs", "#![forbid(unsafe_code)] use crate::pump::Pump;"),
    ];
    for (path, text) in fine {
        assert_none(&check(&Source::parse(path, text)));
    }
}

#[test]
fn a_package_that_depends_on_the_wrong_one_is_caught() {
    let broken = [
        ("supervisor", "[dependencies]\nworker.workspace = true"),
        ("worker", "[dev-dependencies]\nother = { path = \"..\", package = \"bulkhead\" }"),
        ("shared", "[target.'cfg(loom)'.dependencies]\ntokio = \"1\""),
        ("proto", "[build-dependencies]\nbulkhead-worker = \"0\""),
    ];
    for (package, manifest) in broken {
        assert_eq!(contents::dependencies(package, manifest).len(), 1, "{package}");
    }
    let fine = "[dependencies]\nshared.workspace = true\nproto.workspace = true";
    assert_none(&contents::dependencies("supervisor", fine));
}
