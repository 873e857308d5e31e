//! The public Python client (`tritonclient[http]`) against the real server. What it does is in
//! `python/client.py`.

use std::path::Path;
use std::process::Command;

use tests::{Echo, Supervisor, folder_or_skip};

#[test]
fn the_public_python_client_is_served() {
    let test = "the_public_python_client_is_served";
    let Some(python) = folder_or_skip("BULKHEAD_CLIENT_PYTHON", test) else { return };
    let server = Supervisor::with_echo("echo")
        .echo("words", &Echo::default().datatype("TYPE_STRING"))
        .echo("halves", &Echo::default().datatype("TYPE_FP16"))
        .start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/client.py");
    let output = Command::new(python)
        .arg(script)
        .arg(server.address().to_string())
        .output()
        .expect("the interpreter can be started");
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}");
    assert_eq!(server.worker("echo").generation, 1, "it answered to the end");
}
