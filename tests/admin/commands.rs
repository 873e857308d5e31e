//! Each command against a running server, at a prompt and on the socket.

use serde_json::{Value, json};
use tests::{Echo, Infer, Supervisor, wait};

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_server_says_how_it_does() {
    let server = Supervisor::with_echo("m").config("broken", "backend: {").start_unready();
    server.wait_until_ready("m");
    let table = server.told(&["status"]);
    let row = table.lines().find(|line| line.starts_with("m ")).unwrap().to_owned();
    assert!(row.contains("READY") && row.contains("1/1"), "{table}");
    assert!(
        table.lines().any(|l| l.starts_with("broken ") && l.contains("UNAVAILABLE")),
        "{table}"
    );
    let status = parsed(&server.told(&["status", "--json"]));
    let about = &status["server"];
    assert_eq!(about["pid"], server.pid());
    assert_eq!(about["listens"]["http"], server.address().to_string());
    assert!(about["memory"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{about}");
    assert_eq!(about["zygotes"][0]["program"], "bulkhead-worker");
    assert_eq!(status["models"][1]["versions"][0]["instances"][0]["state"], "ready");
    let one = parsed(&server.told(&["status", "m", "--json"]));
    assert_eq!(one["models"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        one["models"][0]["versions"][0]["instances"][0]["worker"]["pid"],
        server.worker("m").pid
    );
    assert!(server.told(&["status", "m"]).contains("is held by"));
}

#[test]
fn a_server_says_what_it_waits_for() {
    let slow = Echo::default().parameter("load_delay_ms", "60000");
    let server = Supervisor::with_echo("m").echo("slow", &slow).start_unready();
    server.wait_until_ready("m");
    let about = server.operator().ask(json!({"command": "status"}))["ok"]["server"].clone();
    assert_eq!((&about["state"], &about["waits_for"]), (&json!("starting"), &json!(["slow"])));
    server.told(&["unload", "slow"]);
    let state =
        || server.operator().ask(json!({"command": "status"}))["ok"]["server"]["state"].clone();
    assert_eq!(state(), "ready");
}

#[test]
fn models_are_loaded_and_unloaded() {
    let server = Supervisor::with_echo("m").start();
    assert_eq!(server.told(&["unload", "m"]), "m: unloaded\n");
    assert!(server.workers().is_empty());
    assert_eq!(server.told(&["load", "m"]), "m: loaded\n");
    server.infer(&Infer::echo("m")).assert_status(200);
    for (command, did) in [("restart", "restarted"), ("unload", "unloaded"), ("load", "loaded")] {
        assert_eq!(parsed(&server.told(&[command, "m", "--json"])), json!({"did": did}));
    }
    let hanging = server.hang("m");
    assert_eq!(server.told(&["unload", "m", "--no-wait"]), "m: unloading\n");
    server.worker("m").kill(nix::sys::signal::Signal::SIGKILL);
    drop(hanging);
    for command in ["load", "unload", "restart", "reset", "exits", "logs", "status", "reload"] {
        server.told_otherwise(&[command, "nobody"], 7);
        server.told_otherwise(&[command, "../etc"], 2);
    }
    server.repository().echo("bad", &Echo::default().parameter("load_fail", "no such luck"));
    let error = server.told_otherwise(&["load", "bad"], 8);
    assert!(error.contains("no such luck"), "{error}");
    // What still serves in its place does not hide it.
    server.repository().echo("m", &Echo::default());
    server.told(&["load", "m"]);
    server.repository().echo("m", &Echo::default().parameter("load_fail", "no such luck"));
    server.told_otherwise(&["load", "m"], 8);
    server.infer(&Infer::echo("m")).assert_status(200);
    let failed = "m: the last load has failed: version 1: ";
    assert!(server.told(&["status"]).contains(failed), "{}", server.told(&["status"]));
    server.repository().echo("m", &Echo::default());
    server.told(&["load", "m"]);
    assert!(!server.told(&["status"]).contains(failed));
}

#[test]
fn a_quarantined_model_is_reset() {
    let server = Supervisor::with_echo("m").set("restart.max_restarts", "0").start();
    server.infer(&Infer::command("m", "crash segv").once());
    server.wait_for_state("m", "UNAVAILABLE");
    let told = server.told(&["exits", "m"]);
    assert!(told.contains("SIGSEGV") && told.contains("1 in flight"), "{told}");
    assert_eq!(server.told(&["reset", "m"]), "m: reset\n");
    server.infer(&Infer::echo("m")).assert_status(200);
    let exits = parsed(&server.told(&["exits", "m", "--json"]));
    assert_eq!(exits["instances"][0]["counts"], json!({"SIGSEGV": 1}));
    let status = server.told(&["status"]);
    assert!(status.contains("SIGSEGV"), "{status}");
    server.told(&["unload", "m"]);
    let error = server.told_otherwise(&["reset", "m"], 8);
    assert!(error.contains("not loaded"), "{error}");
}

#[test]
fn a_restart_under_load_fails_no_request() {
    let server = Supervisor::with_echo("m").set("worker.instances", "2").start();
    server.wait_for_instances("m", 2);
    let load = server.load_on("m");
    for _ in 0..4 {
        let before = server.workers_of("m");
        load.wait_for_more(10);
        server.told(&["restart", "m"]);
        load.wait_for_more(10);
        wait::until_true("the end of the old workers", || !before.iter().any(|w| w.is_alive()));
    }
    load.assert_no_errors();
}

#[test]
fn a_restart_without_room_goes_worker_by_worker_and_fails_no_request() {
    let server = Supervisor::with_echo("m")
        .set("worker.instances", "2")
        .set("limits.max_workers", "2")
        .start();
    server.wait_for_instances("m", 2);
    let load = server.load_on("m");
    for generation in 2..5 {
        load.wait_for_more(10);
        server.told(&["restart", "m"]);
        assert_eq!(server.worker_generations("m"), [generation; 2]);
    }
    load.assert_no_errors();
    let exits = parsed(&server.told(&["exits", "m", "--json"]));
    assert_eq!(exits["instances"][0]["counts"], json!({"retired": 3}));
}

#[test]
fn a_restart_takes_the_files_that_are_loaded_and_a_load_the_new_ones() {
    let server = Supervisor::with_echo("m").start();
    server.repository().version("m", 2);
    server.told(&["restart", "m"]);
    wait::until_true("one worker", || server.workers().len() == 1);
    assert_eq!(server.worker("m").version, 1);
    server.told(&["load", "m"]);
    wait::until_true("version 2 alone", || server.workers().iter().all(|w| w.version == 2));
}

#[test]
fn what_is_held_and_what_is_configured_is_shown() {
    let server = Supervisor::with_echo("m").start();
    let quota = parsed(&server.told(&["quota", "--json"]));
    assert_eq!(quota["workers"], json!({"used": 1, "capacity": 256}));
    assert!(quota["arenas"]["used"].as_u64().is_some_and(|bytes| bytes > 0), "{quota}");
    assert!(server.told(&["quota"]).contains("workers"));
    let devices = server.operator().ask(json!({"command": "devices"}));
    assert!(devices["ok"]["driver"].is_string(), "{devices}");
    assert_eq!(parsed(&server.told(&["devices", "--server", "--json"])), devices["ok"]);
    assert!(server.told(&["devices", "--server"]).starts_with("The server has no GPU"));
    let shown = server.told(&["config", "show"]);
    assert!(shown.contains("limits.threads = 2\n"), "{shown}");
    assert_eq!(server.told(&["config", "diff"]), "No difference.\n");
    std::fs::write(server.folder().join("config.toml"), "[worker]\nslots = 7\n").unwrap();
    let diff = parsed(&server.told(&["config", "diff", "--json"]));
    let change = json!({"key": "worker.slots", "old": "16", "new": "7", "takes": "workers"});
    assert_eq!(diff["changes"], json!([change]));
    std::fs::write(server.folder().join("config.toml"), "[worker]\nslots = 0\n").unwrap();
    let error = server.told_otherwise(&["config", "diff"], 8);
    assert!(error.contains("worker.slots"), "{error}");
}

#[test]
fn an_operator_has_the_configuration_read_again() {
    const MODELS: &str = "repository.paths = [\"MODELS\"]\n";
    let server = Supervisor::with_echo("m").file(MODELS).start();
    let configure = |text: &str| server.configure(&format!("{MODELS}{text}"));
    let reloaded = |arguments: &[&str]| {
        let told = parsed(&server.told(arguments));
        (told["changes"].as_array().map_or(0, Vec::len), told["notes"].clone())
    };
    configure("[models.m]\nslots = 7");
    let took_over = json!(["m: new workers took over"]);
    assert_eq!(reloaded(&["config", "reload", "--json"]), (1, took_over.clone()));
    assert_eq!(reloaded(&["config", "reload", "--json"]), (0, json!([])));
    assert!(server.told(&["config", "show"]).contains("models.m.slots = 7\n"));
    configure("[models.m]\nslots = 8\n[log]\nformat = \"json\"\n[worker]\nqueue = 9");
    // Two keys of the model; the log is none of its.
    assert_eq!(reloaded(&["reload", "m", "--json"]), (2, took_over));
    // Whoever does not wait hears what differs.
    configure("[models.m]\nslots = 9\n[log]\nformat = \"json\"\n[worker]\nqueue = 9");
    assert_eq!(reloaded(&["config", "reload", "--no-wait", "--json"]).0, 2);
    server
        .logs()
        .wait_for("new workers", |event| event["outcome"] == "replaced" && event["model"] == "m");
    configure("[models.m]\nslots = 0");
    let no_wait = &["config", "reload", "--no-wait"];
    for command in [&["reload"][..], &["reload", "m"], &["config", "reload"], no_wait] {
        let error = server.told_otherwise(command, 8);
        assert!(error.contains("models.m.slots"), "{error}");
    }
    server.infer(&Infer::echo("m")).assert_status(200);
    // One model does not come, and the rest holds: both are said.
    server.repository().echo("bad", &Echo::default().parameter("load_fail", "no such luck"));
    server.repository().echo("new", &Echo::default());
    configure("[worker]\nqueue = 5");
    let output = server.bulkhead(&["config", "reload", "--json"]);
    let told = parsed(std::str::from_utf8(&output.stdout).unwrap());
    assert_eq!((output.status.code(), &told["complete"]), (Some(8), &json!(false)));
    assert!(
        told["notes"].to_string().contains("bad: failed")
            && told.to_string().contains("worker.queue")
    );
    assert!(server.told(&["config", "show"]).contains("worker.queue = 5\n"));
}

#[test]
fn a_model_that_is_new_can_be_reloaded_alone() {
    let server = Supervisor::with_echo("m").file("repository.paths = [\"MODELS\"]\n").start();
    server.repository().echo("new", &Echo::default());
    assert_eq!(server.told(&["reload", "new"]), "new: loaded\n");
    server.infer(&Infer::echo("new")).assert_status(200);
}

/// As at a prompt in the server's folder, where no socket is named.
#[test]
fn a_server_is_found_whatever_has_become_of_its_file() {
    let server = Supervisor::with_echo("m").file("repository.paths = [\"MODELS\"]\n").start();
    let file = server.config_file();
    let arguments = ["status", "--config", file.to_str().unwrap()];
    let status = || tests::supervisor::command(server.folder(), &arguments).output().unwrap();
    for text in ["[worker]\nslots = 0", "[[[", "[admin]\nsocket = \".run/admin.sock\"\n="] {
        server.configure(text);
        let output = status();
        let (told, said) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
        assert!(output.status.success(), "{said}");
        assert!(String::from_utf8_lossy(&told).contains("READY"));
        assert!(said.contains("Asking the server at"), "{said}");
    }
    server.configure("[admin]\nsocket = \"off\"\n[worker]\nslots = 0");
    assert_eq!(status().status.code(), Some(2));
}

#[test]
fn an_operator_drains_the_server() {
    let slow = Echo::default().parameter("delay_us", "300000");
    let mut server = Supervisor::new().echo("slow", &slow).start();
    let answer = server.infer_aside(Infer::command("slow", "print the request has come"));
    server.logs().wait_for("a request", |event| event["message"] == "the request has come");
    assert_eq!(server.told(&["drain", "--wait"]), "draining\n");
    // It is over: nothing is left to wait for.
    assert!(!server.runtime_file().exists());
    answer.answer().assert_status(200);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    assert!(!server.admin_socket().exists());
    server.told_otherwise(&["status"], 5);
}

#[test]
fn changes_are_written_down_with_who_made_them() {
    let server = Supervisor::with_echo("m").set("admin.audit_log", "audit.jsonl").start();
    let text = r#"no\n{\"uid\":0,\"command\":\"drain\"}\u001b[2K"#;
    server.repository().echo("bad", &Echo::default().parameter("load_fail", text));
    server.told(&["restart", "m"]);
    server.told_otherwise(&["load", "bad"], 8);
    server.operator().ask(json!({"command": "unload", "model": "m"}));
    server.told(&["status"]);
    let written = || std::fs::read_to_string(server.folder().join("audit.jsonl")).unwrap();
    wait::until_true("two lines for each", || written().lines().count() == 6);
    let written = written();
    assert!(written.chars().all(|c| c == '\n' || !c.is_control()), "{written:?}");
    let lines: Vec<Value> = written.lines().map(parsed).collect();
    let (begun, lines): (Vec<Value>, Vec<Value>) =
        lines.into_iter().partition(|line| line["outcome"] == "begun");
    assert_eq!(begun.len(), 3);
    let what =
        |line: &Value| [&line["command"], &line["model"], &line["outcome"]].map(Value::clone);
    assert_eq!(what(&lines[0]), ["restart", "m", "ok"].map(Value::from));
    assert_eq!(what(&lines[1]), ["load", "bad", "failed"].map(Value::from));
    assert_eq!(what(&lines[2]), ["unload", "m", "ok"].map(Value::from));
    assert_eq!(lines[2]["uid"], nix::unistd::geteuid().as_raw());
    assert_eq!(lines[2]["pid"], std::process::id());
    let events = server.logs().events();
    let logged: Vec<&Value> = events.iter().filter(|event| event["target"] == "audit").collect();
    assert_eq!(logged.len(), 6);
    assert_eq!(logged[5]["pid"], std::process::id());
}

#[test]
fn what_needs_no_server_needs_none() {
    let folder = tempfile::tempdir().unwrap();
    let output =
        |arguments: &[&str]| tests::supervisor::command(folder.path(), arguments).output().unwrap();
    let manual = output(&["man", "restart"]);
    assert!(manual.status.success() && manual.stdout.starts_with(b".ie"), "{manual:?}");
    assert!(output(&["completions", "bash"]).status.success());
    assert_eq!(output(&["man", "sail"]).status.code(), Some(2));
    let nowhere = output(&["status", "--set", "admin.socket=nowhere.sock"]);
    assert_eq!(nowhere.status.code(), Some(5), "{nowhere:?}");
    let off = output(&["status", "--set", "admin.socket=off"]);
    assert_eq!(off.status.code(), Some(2), "{off:?}");
}
