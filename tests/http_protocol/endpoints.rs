//! Health, metadata, the repository, and what a path or a verb that is none of them gets.

use serde_json::json;
use tests::{Echo, Infer, Supervisor};

use crate::{INFER, assert_error, post};

#[test]
fn health_and_metadata_are_served() {
    let server = Supervisor::with_echo("echo").start();
    let mut client = server.client();
    for path in ["/v2/health/live", "/v2/health/ready", "/v2/models/echo/ready?x=1"] {
        assert!(client.get(path).assert_status(200).body.is_empty(), "{path}");
    }
    for path in ["/v2", "/v2/"] {
        let about = client.get(path).assert_status(200).json();
        assert_eq!(about["name"], "bulkhead");
        assert!(about["version"].is_string() && about["extensions"].is_array(), "{about}");
    }
    for path in ["/v2/models/echo", "/v2/models/echo/versions/1", "/v2/models/%65cho"] {
        let expected = json!({
            "name": "echo", "versions": ["1"], "platform": "echo",
            "inputs": [
                { "name": "INPUT0", "datatype": "FP32", "shape": [-1] },
                { "name": "COMMAND", "datatype": "BYTES", "shape": [1] },
            ],
            "outputs": [{ "name": "OUTPUT0", "datatype": "FP32", "shape": [-1] }],
        });
        assert_eq!(client.get(path).assert_status(200).json(), expected, "{path}");
    }
    client.get("/v2/models/echo/versions/1/ready").assert_status(200);
}

#[test]
fn other_paths_and_verbs_are_named_as_such() {
    let server = Supervisor::new().start();
    let mut client = server.client();
    for path in ["/", "/v3", "/v2/models", "/v2/models/a/b", "/v2/models/a/versions/x", "/metrics"]
    {
        assert_error(&client.get(path), 404, "Not Found");
    }
    let wrong = [
        ("POST", "/v2/health/live"),
        ("POST", "/v2/models/a"),
        ("GET", "/v2/models/a/infer"),
        ("GET", "/v2/repository/index"),
        ("DELETE", "/v2/repository/models/a/load"),
    ];
    for (method, path) in wrong {
        let answer = client.request(method, path, &[], b"").unwrap();
        assert_error(&answer, 405, "Method Not Allowed");
    }
}

/// Metadata, readiness and inference of models in every state but ready.
#[test]
fn every_kind_of_absence_has_its_status() {
    let slow = Echo::default().parameter("load_delay_ms", "3600000");
    let server = Supervisor::with_echo("echo")
        .echo("unloaded", &Echo::default())
        .echo("loading", &slow)
        .set("worker.load_timeout", "2h")
        .start_unready();
    for model in ["echo", "unloaded"] {
        server.wait_until_ready(model);
    }
    let mut client = server.client();
    client.unload("unloaded").assert_status(200);
    server.wait_for_state("loading", "LOADING");
    // model and version, status of metadata and inference, of readiness, message
    let table = [
        ("ghost", 404, 404, "Request for unknown model: 'ghost' is not found"),
        ("echo/versions/9", 404, 400, "unknown model: 'echo' version 9 is not found"),
        ("unloaded", 404, 400, "unknown model: 'unloaded' has no available versions"),
        ("loading", 503, 400, "unknown model: 'loading' version 1 is not at ready state"),
        ("loading/versions/1", 503, 400, "'loading' version 1 is not at ready state"),
    ];
    for (model, status, readiness, message) in table {
        let path = format!("/v2/models/{model}");
        let (_, body) = Infer::echo("any").binary();
        for answer in [client.get(&path), post(&mut client, &format!("{path}/infer"), &[], &body)] {
            assert_error(&answer, status, message);
            assert_eq!(answer.header("retry-after").is_some(), status == 503, "{path}");
        }
        client.get(&format!("{path}/ready")).assert_status(readiness);
    }
    client.get("/v2/health/live").assert_status(200);
    assert_error(&client.get("/v2/health/ready"), 400, "not ready");
}

#[test]
fn models_are_listed_loaded_and_unloaded() {
    let server = Supervisor::with_echo("echo").echo("other", &Echo::default()).start();
    let mut client = server.client();
    // As the Python client asks for it.
    let dependents = r#"{"parameters":{"unload_dependents":false}}"#;
    let unload = "/v2/repository/models/other/unload";
    assert!(client.post(unload, dependents).assert_status(200).body.is_empty());
    let line = |name: &str, state: &str, reason: &str| match reason {
        "" => json!({ "name": name, "version": "1", "state": state }),
        reason => json!({ "name": name, "version": "1", "state": state, "reason": reason }),
    };
    let index = client.post("/v2/repository/index", "").assert_status(200).json();
    let all = json!([line("echo", "READY", ""), line("other", "UNAVAILABLE", "unloaded")]);
    assert_eq!(index, all);
    let ready = client.post("/v2/repository/index", r#"{"ready":true}"#).json();
    assert_eq!(ready, json!([line("echo", "READY", "")]));
    assert!(client.load("other").assert_status(200).body.is_empty());
    let echo = Infer::echo("other");
    assert!(echo.is_echoed_by(&server.infer(&echo)));
}

#[test]
fn what_the_repository_does_not_do_is_an_error() {
    let server = Supervisor::with_echo("echo").config("bad", "backend: [").start_unready();
    server.wait_until_ready("echo");
    let mut client = server.client();
    assert_error(&client.load("ghost"), 404, "'ghost'");
    assert_error(&client.unload("ghost"), 404, "unknown model: 'ghost'");
    assert_error(&client.load("bad"), 400, "failed to load 'bad'");
    assert_error(&client.load("%2e%2e%2fecho"), 400, "a model name may hold");
    let load = "/v2/repository/models/echo/load";
    assert_error(&client.post(load, r#"{"parameters":{"config":"{}"}}"#), 501, "'config'");
    assert_error(&client.post(load, "{"), 400, "parse");
    assert_error(&client.post(load, r#"{"parameters":3}"#), 400, "parse");
    assert_error(&client.post("/v2/repository/index", "[[["), 400, "parse");
    assert_error(&client.post("/v2/repository/mine/index", ""), 501, "repository_name");
    assert_error(&client.post("/v2/repository/mine/models/echo/load", ""), 501, "repository_name");
    crate::assert_unharmed(&server, "requests to the repository");
}

#[test]
fn the_configuration_can_forbid_control_of_the_repository() {
    let server = Supervisor::with_echo("echo").set("http.repository_control", "false").start();
    let mut client = server.client();
    assert_error(&client.load("echo"), 403, "not allowed");
    assert_error(&client.unload("echo"), 403, "not allowed");
    client.post("/v2/repository/index", "").assert_status(200);
    let (_, body) = Infer::echo("echo").binary();
    assert_error(&post(&mut client, INFER, &[], &body), 400, "");
    crate::assert_unharmed(&server, "what is forbidden");
}
