//! `scripts/gpu-check run` from end to end, in its rehearsal without a GPU: every section is run, every
//! row is there, and what needs no GPU holds.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tests::supervisor::binaries;
use tests::torch_or_skip;

const CORRECTNESS: [&str; 4] =
    ["W2-like, batch 1", "W2-like, batch 32", "ResNet-50, batch 1", "ResNet-50, batch 32"];
const THROUGHPUT: [&str; 2] = ["echo, no device, batch 1", "echo, no device, batch 32"];
const TRANSFERS: [&str; 6] = [
    "pinned, 1 image",
    "pinned, 32 images",
    "pinned, 64 MiB",
    "pageable, 1 image",
    "pageable, 32 images",
    "pageable, 64 MiB",
];
const FAULTS: [&str; 3] = ["one is crashed (SIGSEGV)", "one is driven into OOM", "one is hung"];
/// Rows that only a GPU can fill.
const NEED_A_GPU: [(&str, &str); 3] = [
    ("unload", "memory back"),
    ("faults", "one is poisoned by a device assert"),
    ("zygote", "fork after libtorch_cuda"),
];

#[test]
fn a_rehearsal_fills_every_row_and_misses_no_aim() {
    let test = "a_rehearsal_fills_every_row_and_misses_no_aim";
    let Some(python) = torch_or_skip("BULKHEAD_TORCH_PYTHON", test) else { return };
    let folder = tempfile::tempdir().expect("there is a folder for temporary files");
    let file = folder.path().join("report.json");
    let output = rehearse(&python, &file);
    let said = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}\n{said}");
    assert!(!said.contains("had to be ended"), "a process was left: {said}");

    let report = std::fs::read_to_string(&file).expect("the report was written");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    for row in CORRECTNESS.into_iter().chain(THROUGHPUT) {
        assert_eq!(find(&report, "throughput", row)["why"], Value::Null, "{printed}");
    }
    for row in CORRECTNESS {
        assert_eq!(find(&report, "correctness", row)["why"], Value::Null, "{printed}");
    }
    for row in FAULTS {
        let row = find(&report, "faults", row);
        assert_eq!(
            (&row["why"], &row["figures"]["errors"]),
            (&Value::Null, &0.into()),
            "{printed}"
        );
        assert!(row["figures"]["back_s"].is_number(), "its worker is back: {printed}");
    }
    let transfers = TRANSFERS.map(|row| ("transfers", row));
    for (section, row) in transfers.into_iter().chain(NEED_A_GPU) {
        assert_eq!(find(&report, section, row)["why"], "no GPU", "{printed}");
    }
    for aim in report["aims"].as_array().expect("a list") {
        assert_ne!(aim["verdict"], "missed", "{aim}");
    }
}

fn rehearse(python: &Path, report: &Path) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/gpu-check");
    let mut command = Command::new(script);
    command.args(["run", "--device", "cpu", "--bin"]).arg(binaries());
    command.arg("--json").arg(report).env("PYTHON", python);
    // Stand-ins for CUDA's libraries, where setup has fetched none: beside python/bin/python.
    if let Some(deps) = python.ancestors().nth(3) {
        command.env("LD_LIBRARY_PATH", deps.join("stubs"));
    }
    command.output().expect("the script can be started")
}

#[track_caller]
fn find<'a>(report: &'a Value, section: &str, name: &str) -> &'a Value {
    let rows = report["rows"].as_array().expect("a list");
    let found = rows.iter().find(|row| row["section"] == section && row["name"] == name);
    found.unwrap_or_else(|| panic!("{section}: there is no row {name:?}"))
}
