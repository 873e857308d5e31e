//! Setting up: what is missing is said before anything is fetched.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use tests::machine::checkout;

/// What `scripts/setup` says on a machine whose cargo is this shell script. It must fail at it: the
/// rest of setup would be run on the checkout that the tests are of.
fn refused(cargo: &str) -> String {
    let folder = tempfile::tempdir().expect("there is a folder for temporary files");
    let program = folder.path().join("cargo");
    fs::write(&program, format!("#!/bin/sh\n{cargo}\n")).expect("the folder is ours");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("the file is ours");
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let deps = folder.path().join("deps");
    let output = Command::new(checkout().join("scripts/setup"))
        .args(["--quiet"])
        .env("PATH", path)
        .env("BULKHEAD_DEPS", &deps)
        .output()
        .expect("there is a bash");
    assert_eq!(output.status.code(), Some(1));
    assert!(!deps.exists(), "something was made before the machine was looked at");
    String::from_utf8(output.stderr).expect("it is text")
}

#[test]
fn a_rustup_without_a_toolchain_is_said_in_one_line() {
    let said = refused("echo 'error: no toolchain is chosen' >&2; echo 'help: more' >&2; exit 1");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "setup: cargo does not run: error: no toolchain is chosen");
    assert!(lines.len() == 2 && lines[1].contains("https://rustup.rs"), "{said}");
}

#[test]
fn a_rust_that_is_too_old_is_said() {
    let wanted = env!("CARGO_PKG_RUST_VERSION");
    for found in ["1.9.0", "1.89.0", "1.89.1-nightly"] {
        let said = refused(&format!("echo 'cargo {found} (0123456789 2025-08-04)'"));
        let number = found.split('-').next().expect("there is one");
        let expected = format!("setup: this is Rust {number}, and {wanted} or later is needed");
        assert!(said.starts_with(&expected), "{said}");
    }
}
