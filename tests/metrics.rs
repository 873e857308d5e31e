//! Metrics, held against what a client counts itself; and what is made of them.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{Client, Echo, Infer, Scrape, Supervisor, folder_or_skip, load::Load, skipped, wait};

fn failures(scrape: &Scrape, model: &str) -> [f64; 4] {
    ["REJECTED", "CANCELED", "BACKEND", "OTHER"].map(|reason| {
        scrape.sum("nv_inference_request_failure", &[("model", model), ("reason", reason)])
    })
}

fn successes(scrape: &Scrape, model: &str) -> f64 {
    scrape.sum("nv_inference_request_success", &[("model", model)])
}

fn of(model: &str) -> [(&str, &str); 1] {
    [("model", model)]
}

#[test]
fn every_request_is_counted_once_with_its_reason() {
    let server = Supervisor::with_echo("m")
        .echo("batch", &Echo::default().with("max_batch_size: 8"))
        .set("restart.max_restarts", "1000")
        .set("restart.backoff.initial", "10ms")
        .set("restart.backoff.max", "10ms")
        .set("worker.poison_after", "2")
        .start();
    let address = server.metrics_address();
    for _ in 0..7 {
        server.infer(&Infer::echo("m")).assert_status(200);
    }
    assert_eq!(successes(&Scrape::of(address), "m"), 7.0);

    // The request itself: before a slot, and by the model's own word.
    server.infer(&Infer::new("m").tensor("X", "FP32", &[1], &[0; 4])).assert_status(400);
    server.client().post("/v2/models/m/infer", "{").assert_status(400);
    server.infer(&Infer::command("m", "invalid no")).assert_status(400);
    server.infer(&Infer::command("m", "fail no")).assert_status(500);
    server.infer(&Infer::command("m", "oom")).assert_status(507);
    assert_eq!(failures(&Scrape::of(address), "m"), [0.0, 0.0, 3.0, 2.0]);

    // Its worker: once and not again, answered by the second one, and refused after it ended two.
    server.infer(&Infer::command("m", "crash segv").once()).assert_status(500);
    server.wait_for_generation("m", 2);
    server.infer(&Infer::command("m", "crash abort")).assert_status(422);
    server.infer(&Infer::command("m", "crash abort")).assert_status(422);
    server.wait_for_generation("m", 4);
    let scrape = Scrape::of(address);
    assert_eq!(failures(&scrape, "m"), [0.0, 0.0, 4.0, 4.0]);
    // Two of them were to see which generation serves.
    assert_eq!(successes(&scrape, "m"), 9.0);
    assert_eq!(scrape.sum("bulkhead_poisoned_requests_refused_total", &of("m")), 2.0);
    for (kind, ends) in [("SIGSEGV", 1.0), ("SIGABRT", 2.0)] {
        let of_kind = [("model", "m"), ("kind", kind)];
        assert_eq!(scrape.sum("bulkhead_worker_exits_total", &of_kind), ends);
    }
    assert_eq!(scrape.sum("bulkhead_worker_unwanted_exits_total", &of("m")), 3.0);
    assert_eq!(scrape.sum("bulkhead_worker_unwanted_exits_total", &of("batch")), 0.0);

    // Inferences are rows, executions are runs, and what was not run is in neither.
    let floats = vec![0_u8; 4 * 6];
    server
        .infer(&Infer::new("batch").tensor("INPUT0", "FP32", &[3, 2], &floats))
        .assert_status(200);
    server
        .infer(&Infer::new("batch").tensor("INPUT0", "FP32", &[9, 2], &[0; 72]))
        .assert_status(400);
    let scrape = Scrape::of(address);
    assert_eq!(scrape.sum("nv_inference_count", &of("batch")), 3.0);
    assert_eq!(scrape.sum("nv_inference_exec_count", &of("batch")), 1.0);
    assert_eq!(scrape.sum("nv_inference_exec_count", &of("m")), 9.0);

    // Nobody serves it, and it still has callers.
    server.client().unload("batch").assert_status(200);
    let unloaded = Infer::new("batch").tensor("INPUT0", "FP32", &[1, 2], &[0; 8]);
    server.infer(&unloaded).assert_status(404);
    assert_eq!(failures(&Scrape::of(address), "batch"), [1.0, 0.0, 0.0, 1.0]);

    // No model got these.
    server.infer(&Infer::echo("ghost")).assert_status(404);
    let unrouted = [("what", "unknown_model")];
    assert_eq!(Scrape::of(address).sum("bulkhead_unrouted_requests_total", &unrouted), 1.0);
}

#[test]
fn what_is_given_up_is_told_and_its_callers_are_counted() {
    let server = Supervisor::with_echo("m")
        .echo("hostile", &Echo::default())
        .set("restart.max_restarts", "0")
        .start();
    let look = || Scrape::of(server.metrics_address());
    let told = |model: &str| {
        let scrape = look();
        ["worker_quarantined", "model_problem", "worker_unwanted_exits_total"]
            .map(|name| scrape.sum(&format!("bulkhead_{name}"), &of(model)))
    };
    let slots = [("model", "m"), ("version", "1")];
    assert_eq!(look().sum("bulkhead_slots", &slots), 16.0);
    assert_eq!(look().sum("bulkhead_queue_places", &slots), 256.0);
    assert_eq!(look().sum("bulkhead_zygote_state", &[("state", "ready")]), 1.0);
    assert_eq!((told("m"), told("hostile")), ([0.0; 3], [0.0; 3]));
    server.infer(&Infer::command("m", "crash segv").once()).assert_status(500);
    server.wait_for_state("m", "UNAVAILABLE");
    server.infer(&Infer::echo("m")).assert_status(404);
    assert_eq!(told("m"), [1.0; 3]);
    // The one that it ended, and the one that it did not take.
    assert_eq!(failures(&look(), "m"), [1.0, 0.0, 1.0, 0.0]);
    server.infer(&Infer::echo("hostile")).assert_status(200);
    server.infer(&Infer::command("hostile", "replay").once());
    server.wait_for_state("hostile", "UNAVAILABLE");
    assert_eq!(look().sum("bulkhead_ring_violations_total", &of("hostile")), 1.0);
    // Loaded again, and what there was has not gone back.
    server.client().load("m").assert_status(200);
    assert_eq!(told("m"), [0.0, 0.0, 1.0]);
    assert_eq!(failures(&look(), "m"), [1.0, 0.0, 1.0, 0.0]);
    // A version that is not there any more has no figures.
    let folder = server.repository().path().join("m/1");
    std::fs::rename(&folder, folder.with_file_name("2")).expect("the folder is ours");
    server.client().load("m").assert_status(200);
    wait::until_true("the new version alone", || {
        server.client().load("m").assert_status(200);
        look().sum("nv_inference_request_failure", &of("m")) == 0.0
    });
}

#[test]
fn clients_that_leave_are_counted_where_they_were() {
    let server = Supervisor::with_echo("m").set("worker.slots", "1").start();
    let address = server.metrics_address();
    let mut leaver = server.client();
    // Longer than all that is looked at takes on any machine.
    let slow = Infer::command("m", "delay 8s");
    let (length, body) = slow.binary();
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nInference-Header-Content-Length: {length}\r\n\
         Content-Length: {}\r\n\r\n",
        slow.path(),
        body.len()
    );
    let whole = [head.as_bytes(), &body].concat();
    let there = |waiting: f64, in_flight: f64| {
        wait::until_true("requests where they should be", || {
            let scrape = Scrape::of(address);
            scrape.sum("bulkhead_requests_waiting", &of("m")) == waiting
                && scrape.sum("bulkhead_requests_in_flight", &of("m")) == in_flight
        });
    };
    // One that its worker has, one that waits for a slot, and one whose body never comes.
    leaver.send(&whole).expect("it listens");
    there(0.0, 1.0);
    let mut waiter = server.client();
    waiter.send(&whole).expect("it listens");
    there(1.0, 1.0);
    let pending = Scrape::of(address).sum("nv_inference_pending_request_count", &of("m"));
    assert_eq!(pending, 1.0, "one waits, the other is being executed");
    let mut half = server.client();
    half.send(&whole[..whole.len() - 1]).expect("it listens");
    waiter.hang_up();
    leaver.hang_up();
    half.hang_up();
    wait::until_true("three clients that have left", || {
        failures(&Scrape::of(address), "m") == [0.0, 3.0, 0.0, 0.0]
    });
    there(0.0, 0.0);
    server.infer(&Infer::echo("m")).assert_status(200);
    let scrape = Scrape::of(address);
    assert_eq!((successes(&scrape, "m"), failures(&scrape, "m")), (1.0, [0.0, 3.0, 0.0, 0.0]));
}

/// Scrapes ten times a second until it is told to stop; no counter may ever fall.
fn scrape_along(
    address: std::net::SocketAddr,
) -> (std::sync::mpsc::Sender<()>, std::thread::JoinHandle<usize>) {
    let (stop, stopped) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let (mut client, mut last, mut scrapes) = (Client::new(address), Scrape::default(), 0);
        let pause = Duration::from_millis(100);
        while stopped.recv_timeout(pause) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let scrape = Scrape::with(&mut client);
            assert_eq!(scrape.fallen_since(&last), Vec::<String>::new());
            (last, scrapes) = (scrape, scrapes + 1);
        }
        scrapes
    });
    (stop, thread)
}

#[test]
fn counters_agree_with_clients_over_crashes_loads_and_scrapes() {
    let server = Supervisor::with_echo("m")
        .echo("other", &Echo::default())
        .set("restart.max_restarts", "1000")
        .set("restart.backoff.initial", "10ms")
        .set("restart.backoff.max", "10ms")
        .start();
    let address = server.metrics_address();
    let (stop, scraper) = scrape_along(address);
    let (load, other) = (Load::start(server.address(), "m", 4), server.load_on("other"));
    for round in 0..5 {
        load.wait_for_more(100);
        server.worker("m").kill(Signal::SIGKILL);
        load.wait_for_more(20);
        if round == 2 {
            server.client().load("m").assert_status(200);
        }
    }
    let (counted, other) = (load.finish(), other.finish());
    drop(stop);
    let scrapes = scraper.join().expect("no counter has fallen");
    assert!(scrapes > 3, "{scrapes}");
    let scrape = Scrape::of(address);
    let failed: f64 = failures(&scrape, "m").iter().sum();
    let errors = f64::from(u32::try_from(counted.errors.len()).expect("few"));
    let answers =
        |counted: &tests::load::Counted| f64::from(u32::try_from(counted.answers).expect("few"));
    assert_eq!(failed, errors, "{:?}", counted.errors);
    assert_eq!(successes(&scrape, "m"), answers(&counted) - errors);
    assert_eq!(successes(&scrape, "other"), answers(&other));
    assert_eq!(scrape.sum("nv_inference_count", &of("other")), answers(&other));
    let exits = scrape.sum("bulkhead_worker_exits_total", &[("model", "m"), ("kind", "SIGKILL")]);
    assert_eq!(exits, 5.0);
    let in_buckets = [("model", "m"), ("le", "+Inf")];
    let count = scrape.sum("bulkhead_request_duration_seconds_bucket", &in_buckets);
    assert_eq!(count, successes(&scrape, "m"));
}

#[test]
fn durations_are_of_what_they_say() {
    let server = Supervisor::with_echo("m").set("worker.slots", "1").start();
    let waiting = |count: f64| {
        wait::until_true("a request that waits", || {
            let scrape = Scrape::of(server.metrics_address());
            scrape.sum("bulkhead_requests_waiting", &of("m")) == count
        });
    };
    let first = server.infer_aside(Infer::command("m", "delay 4s"));
    wait::until_true("a request that is in flight", || {
        let scrape = Scrape::of(server.metrics_address());
        scrape.sum("bulkhead_requests_in_flight", &of("m")) == 1.0
    });
    let second = server.infer_aside(Infer::command("m", "delay 50ms"));
    waiting(1.0);
    for aside in [first, second] {
        aside.answer().assert_status(200);
    }
    let scrape = Scrape::of(server.metrics_address());
    let us = |part: &str| scrape.sum(&format!("nv_inference_{part}_duration_us"), &of("m"));
    let parts = ["queue", "compute_input", "compute_infer", "compute_output"].map(us);
    let request = us("request");
    assert!(us("compute_infer") >= 4_050_000.0, "{parts:?}");
    // It began to wait when the first had begun, and was seen to.
    assert!(us("queue") >= 100_000.0, "{parts:?}");
    // Nothing is left out and nothing counted twice, but for parts of microseconds.
    let sum: f64 = parts.iter().sum();
    assert!(sum <= request && request - sum < 20.0, "{parts:?} of {request}");
    let seconds = scrape.sum("bulkhead_request_duration_seconds_sum", &of("m"));
    assert!((seconds * 1e6 - request).abs() < 1.0);
}

/// Where the public tools for Prometheus look for what they are given.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

#[test]
fn the_public_parser_reads_what_it_should() {
    let test = "the_public_parser_reads_what_it_should";
    let Some(python) = folder_or_skip("BULKHEAD_CLIENT_PYTHON", test) else { return };
    let server = Supervisor::with_echo("m").set("models.m.memory_limit", "64MiB").start();
    server.infer(&Infer::echo("m")).assert_status(200);
    let output = Command::new(python)
        .arg(repository("tests/python/metrics.py"))
        .arg(server.metrics_address().to_string())
        .output()
        .expect("the interpreter can be started");
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}");
}

/// Prometheus' own tool, or `None` after saying that `test` is skipped.
fn promtool(test: &str) -> Option<Command> {
    let found = Command::new("promtool").arg("--version").output().is_ok();
    if !found {
        skipped(test, "there is no promtool (Debian: prometheus)");
    }
    found.then(|| Command::new("promtool"))
}

#[track_caller]
fn succeeds(command: &mut Command, input: &str) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be started");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert!(output.status.success(), "{command:?}: {said:?}");
}

#[test]
fn the_alerts_fire_when_they_should() {
    let Some(mut promtool) = promtool("the_alerts_fire_when_they_should") else { return };
    succeeds(promtool.args(["check", "rules"]).arg(repository("scripts/alerts.yml")), "");
    let mut promtool = Command::new("promtool");
    succeeds(promtool.args(["test", "rules"]).arg(repository("tests/alerts_test.yml")), "");
}

/// Every expression of the dashboard.
fn expressions(dashboard: &Value, found: &mut Vec<String>) {
    match dashboard {
        Value::Object(object) => {
            found.extend(object.get("expr").and_then(Value::as_str).map(str::to_owned));
            object.values().for_each(|value| expressions(value, found));
        }
        Value::Array(array) => array.iter().for_each(|value| expressions(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The metrics that a text names.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    text.split(word).filter(|word| word.starts_with("nv_") || word.starts_with("bulkhead_"))
}

#[test]
fn dashboard_and_alerts_name_metrics_that_exist() {
    let dashboard = std::fs::read_to_string(repository("scripts/grafana-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).expect("it is JSON");
    let mut asked = Vec::new();
    expressions(&dashboard, &mut asked);
    assert!(asked.len() > 10, "{asked:?}");
    let alerts = std::fs::read_to_string(repository("scripts/alerts.yml")).unwrap();
    let server = Supervisor::with_echo("m").start();
    server.infer(&Infer::echo("m")).assert_status(200);
    let scrape = Scrape::of(server.metrics_address());
    let exists = |name: &str| {
        let ends = ["", "_bucket", "_sum", "_count"];
        ends.iter().any(|end| name.strip_suffix(end).is_some_and(|f| scrape.types.contains_key(f)))
    };
    let texts = asked.iter().chain([&alerts]);
    let unknown: Vec<&str> =
        texts.flat_map(|text| names(text)).filter(|name| !exists(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");

    let Some(mut promtool) = promtool("dashboard_and_alerts_name_metrics_that_exist") else {
        return;
    };
    succeeds(Command::new("promtool").args(["check", "metrics"]), &without_lint(&scrape.text));
    let rules: String = asked
        .iter()
        .map(|expr| expr.replace("$__rate_interval", "5m").replace("$model", ".*"))
        .map(|expr| format!("  - record: dashboard:x\n    expr: {}\n", Value::String(expr)))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yml");
    std::fs::write(&file, format!("groups:\n- name: dashboard\n  rules:\n{rules}")).unwrap();
    let output = promtool.args(["check", "rules", "--lint=none"]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Triton's names are as they are, whatever is good style.
fn without_lint(text: &str) -> String {
    text.lines().filter(|line| !line.contains("nv_")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_port_can_be_off_and_is_bounded() {
    let off = Supervisor::with_echo("m").set("metrics.listen", "off").start();
    let file = std::fs::read_to_string(off.runtime_file()).unwrap();
    assert!(!file.contains("metrics"), "{file}");
    off.infer(&Infer::echo("m")).assert_status(200);
    drop(off);

    let server = Supervisor::with_echo("m")
        .set("metrics.max_connections", "2")
        .set("http.header_timeout", "200ms")
        .start();
    let address = server.metrics_address();
    let stuck: Vec<Client> = (0..2)
        .map(|_| {
            let mut client = Client::new(address);
            client.send(b"GET /metr").expect("it listens");
            client
        })
        .collect();
    // They are thrown out for half a head, and then there is room.
    Scrape::of(address);
    drop(stuck);
    server.infer(&Infer::echo("m")).assert_status(200);
}
