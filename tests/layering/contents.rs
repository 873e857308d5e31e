//! What some files hold, whoever they are: lists of modules hold no logic, packages depend one way.

use crate::source::Source;
use crate::violation::Violation;

/// A `mod.rs` or `lib.rs` is documentation, `mod` lines and `use` lines.
pub(crate) fn lists_of_modules(source: &Source) -> Vec<Violation> {
    const LOGIC: [&str; 10] = [
        "fn",
        "impl",
        "struct",
        "enum",
        "union",
        "trait",
        "const",
        "static",
        "type",
        "macro_rules",
    ];
    let name = source.path.rsplit('/').next().unwrap_or_default();
    if !source.path.contains("/src/") || !matches!(name, "mod.rs" | "lib.rs") {
        return Vec::new();
    }
    source
        .tokens
        .iter()
        .filter(|token| LOGIC.contains(&token.text.as_str()))
        .map(|token| {
            let message =
                format!("`{}` here: {name} holds docs, `mod` and `use`, no logic", token.text);
            Violation::new(source, token.line, message)
        })
        .collect()
}

/// The supervisor's crates forbid unsafe code themselves, so that the compiler watches too.
pub(crate) fn supervisor_forbids_unsafe(source: &Source) -> Vec<Violation> {
    let root = matches!(source.path.as_str(), "supervisor/src/lib.rs" | "supervisor/src/main.rs");
    let words: Vec<&str> = source.tokens.iter().map(|token| token.text.as_str()).collect();
    let forbids = words.windows(3).any(|w| w == ["forbid", "(", "unsafe_code"]);
    if root && !forbids {
        let message = "`#![forbid(unsafe_code)]` is missing".to_owned();
        return vec![Violation::new(source, 1, message)];
    }
    Vec::new()
}

/// What a package must not depend on, in any of its tables of dependencies.
const PACKAGES: &[(&str, &[&str])] = &[
    (
        "shared",
        &["proto", "supervisor", "bulkhead", "worker", "tokio", "hyper", "tch", "ipc-channel"],
    ),
    ("proto", &["supervisor", "bulkhead", "worker", "tokio", "hyper", "tch"]),
    ("supervisor", &["worker", "engine_torch", "tch", "torch-sys"]),
    ("worker", &["supervisor", "bulkhead", "tokio", "hyper", "tch", "torch-sys"]),
    ("worker/torch", &["supervisor", "bulkhead", "tokio", "hyper"]),
    // A driver knows nothing of us.
    ("tests/fake_nvml", &["shared", "proto", "supervisor", "bulkhead", "worker"]),
];

pub(crate) fn packages() -> impl Iterator<Item = &'static str> {
    PACKAGES.iter().map(|(package, _)| *package)
}

/// `manifest` is the text of the package's `Cargo.toml`.
pub(crate) fn dependencies(package: &str, manifest: &str) -> Vec<Violation> {
    let (_, forbidden) =
        PACKAGES.iter().find(|(name, _)| *name == package).expect("a package of the table");
    let path = format!("{package}/Cargo.toml");
    let manifest: toml::Table = manifest.parse().expect("cargo has read it");
    tables(&manifest)
        .filter(|dependency| {
            let plain = dependency.trim_start_matches("bulkhead-");
            forbidden.contains(&dependency.as_str()) || forbidden.contains(&plain)
        })
        .map(|dependency| {
            let message = format!("`{package}` must not depend on `{dependency}`");
            Violation::of_file(&path, message)
        })
        .collect()
}

/// The names of all dependencies, those of a target or for tests included.
fn tables(manifest: &toml::Table) -> impl Iterator<Item = String> {
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let of_targets = targets.into_iter().flat_map(toml::Table::values).filter_map(|v| v.as_table());
    std::iter::once(manifest).chain(of_targets).flat_map(|table| {
        ["dependencies", "dev-dependencies", "build-dependencies"]
            .into_iter()
            .filter_map(|kind| table.get(kind)?.as_table())
            .flat_map(|dependencies| dependencies.iter().map(name_of))
            .collect::<Vec<_>>()
    })
}

/// A dependency may be renamed; what counts is what it is.
fn name_of((name, value): (&String, &toml::Value)) -> String {
    let package = value.as_table().and_then(|table| table.get("package"));
    package.and_then(toml::Value::as_str).unwrap_or(name).to_owned()
}
