//! Traces of requests, sent to a collector: what is told of whom, and what a bad collector costs.

mod collector;

use std::net::TcpListener;

use collector::{Collector, Manner, Span};
use nix::sys::signal::Signal;
use tests::supervisor::Builder;
use tests::workers::private_memory;
use tests::{Echo, Infer, Response, Supervisor};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
const WAY: [&str; 6] = ["admission", "queue", "receive", "ring", "compute", "encode"];

/// A server that sends there, and samples this part of the requests that nobody has decided on.
fn traced(endpoint: &str, sample: &str) -> Builder {
    Supervisor::with_echo("m").set("traces.endpoint", endpoint).set("traces.sample", sample)
}

/// A request that is a part of the caller's trace.
fn send(server: &Supervisor, infer: &Infer, headers: &[(&str, &str)]) -> Response {
    let (length, body) = infer.binary();
    let length = length.to_string();
    let own = [("Inference-Header-Content-Length", length.as_str())];
    let headers = [&own, headers].concat();
    server.client().request("POST", &infer.path(), &headers, &body).expect("the server answers")
}

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{CALLER}-{flags}")
}

fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

fn is_of(model: &str) -> impl Fn(&Span) -> bool {
    move |span| span.attribute("model") == Some(model)
}

#[test]
fn a_request_is_a_tree_of_spans_in_its_callers_trace() {
    let (collector, slow) =
        (Collector::start(Manner::Takes), Echo::default().parameter("delay_us", "30000"));
    let server = traced(&collector.endpoint(), "0").echo("slow", &slow).start();
    let headers = [("traceparent", &*parent("01")), ("tracestate", "vendor=1")];
    send(&server, &Infer::echo("slow"), &headers).assert_status(200);
    let spans = collector.wait_for("its spans", is_of("slow"));
    let (root, parts) = spans.split_first().unwrap();
    assert_eq!(names(parts), WAY);
    assert_eq!((&*root.trace, &*root.parent), (TRACE, CALLER));
    for (name, value) in [("model", "slow"), ("version", "1"), ("http.response.status_code", "200")]
    {
        assert_eq!(root.attribute(name), Some(value));
    }
    let mut from = root.from;
    for part in parts {
        assert_eq!((&*part.trace, &*part.parent, &*part.state), (TRACE, &*root.id, "vendor=1"));
        assert!(part.from == from && part.to >= part.from && part.error.is_none(), "{part:?}");
        from = part.to;
    }
    assert_eq!(from, root.to);
    // The worker's own clock, and the engine has slept.
    let compute = &parts[4];
    assert!(compute.to - compute.from >= 30_000_000, "{compute:?}");
    assert_eq!(collector.resource("service.name").as_deref(), Some("bulkhead"));
    assert!(collector.resource("host.name").is_some_and(|name| !name.is_empty()));
    assert_eq!(collector.resource("service.instance.id").map_or(0, |id| id.len()), 32);
}

#[test]
fn who_sent_it_has_decided_whether_it_is_sampled() {
    let collector = Collector::start(Manner::Takes);
    let server = traced(&collector.endpoint(), "1").echo("last", &Echo::default()).start();
    for _ in 0..5 {
        send(&server, &Infer::echo("m"), &[("traceparent", &parent("00"))]).assert_status(200);
    }
    // No parent at all, and none that could be read.
    send(&server, &Infer::echo("last"), &[]).assert_status(200);
    send(&server, &Infer::echo("last"), &[("traceparent", "00-1-2-01")]).assert_status(200);
    tests::wait::until_true("two traces", || {
        collector.spans().iter().filter(|span| span.name == "infer").count() == 2
    });
    let spans = collector.spans();
    assert_eq!(spans.len(), 2 * (1 + WAY.len()), "{:?}", names(&spans));
    let roots: Vec<&Span> = spans.iter().filter(|span| span.name == "infer").collect();
    assert!(roots.iter().all(|root| is_of("last")(root) && root.parent.is_empty()));
    assert_ne!(roots[0].trace, roots[1].trace);
}

#[test]
fn what_is_not_sampled_sends_nothing_until_a_reload_says_otherwise() {
    let collector = Collector::start(Manner::Takes);
    let file = |sample: u32| format!("repository.paths = [\"MODELS\"]\ntraces.sample = {sample}");
    let server = Supervisor::with_echo("m")
        .set("traces.endpoint", &collector.endpoint())
        .file(&file(0))
        .start();
    for _ in 0..20 {
        server.infer(&Infer::echo("m")).assert_status(200);
    }
    server.reload_with(&file(1));
    server.infer(&Infer::echo("m").version(1)).assert_status(200);
    collector.wait_for("a trace", is_of("m"));
    assert_eq!(collector.spans().len(), 1 + WAY.len());
}

#[test]
fn batches_and_errors_are_attributes() {
    let collector = Collector::start(Manner::Takes);
    let batched = Echo::default().with("max_batch_size: 8");
    let fails = Echo::default();
    let server = traced(&collector.endpoint(), "1")
        .echo("batched", &batched)
        .echo("fails", &fails)
        .set("models.fails.infer_timeout", "200ms")
        .start();
    let three = Infer::new("batched").tensor("INPUT0", "FP32", &[3, 2], &[0; 24]);
    server.infer(&three).assert_status(200);
    let spans = collector.wait_for("a batch", is_of("batched"));
    assert_eq!(spans[0].attribute("batch"), Some("3"));

    server.infer(&Infer::command("fails", "hang sleep")).assert_status(504);
    let spans = collector.wait_for("a failure", is_of("fails"));
    assert_eq!(names(&spans), ["infer", "admission", "queue", "receive", "ring"]);
    let error = spans[0].error.as_deref().unwrap();
    assert!(error.contains("did not answer") && spans[0].attribute("error") == Some(error));
    assert_eq!(spans[4].error.as_deref(), Some(error));

    server.infer(&Infer::echo("nobody")).assert_status(404);
    let spans = collector.wait_for("an unknown model", is_of("nobody"));
    assert_eq!(names(&spans), ["infer", "admission"]);
}

#[test]
fn a_second_worker_is_a_part_of_the_way() {
    let collector = Collector::start(Manner::Takes);
    let server = traced(&collector.endpoint(), "1")
        .set("worker.poison_after", "0")
        .set("worker.infer_timeout", "3s")
        .start();
    let worker = server.worker("m");
    let hanging = server.infer_aside(Infer::command("m", "hang"));
    worker.wait_until_busy();
    worker.kill(Signal::SIGKILL);
    hanging.answer().assert_status(504);
    let spans = collector.wait_for("the request", is_of("m"));
    assert_eq!(names(&spans)[1..], ["admission", "queue", "receive", "retry", "ring"]);
    assert_eq!(spans[0].attribute("attempts"), Some("2"));
}

/// Nobody listens there: the port was free a moment ago.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    format!("http://{}", listener.local_addr().expect("it is bound"))
}

#[test]
fn a_collector_that_is_down_hangs_or_refuses_costs_requests_nothing() {
    let (hangs, refuses) = (Collector::start(Manner::Hangs), Collector::start(Manner::Refuses));
    for endpoint in [nowhere(), hangs.endpoint(), refuses.endpoint()] {
        let mut server =
            traced(&endpoint, "1").set("traces.queue", "16").set("traces.timeout", "100ms").start();
        let load = server.load_on("m");
        load.wait_for_more(300);
        let before = private_memory(server.pid());
        load.wait_for_more(600);
        let after = private_memory(server.pid());
        // What a queue without a limit would hold of 600 requests is more.
        assert!(after < before + 2048, "{endpoint}: {before} kB, then {after} kB");
        load.assert_no_errors();
        server.logs().wait_for("the warning", |event| {
            event["message"] == "traces are not taken, and are dropped"
        });
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait_for_exit().code(), Some(0));
        let lost = server.logs().wait_for("what was lost", |event| {
            event["message"] == "requests whose traces were lost"
        });
        assert!(lost["requests"].as_u64().unwrap() >= 900, "{lost}");
    }
    assert!(hangs.requests() > 0 && refuses.requests() > 0);
}

#[test]
fn the_last_spans_are_sent_before_the_end() {
    let collector = Collector::start(Manner::Takes);
    let mut server = traced(&collector.endpoint(), "1").start();
    for _ in 0..10 {
        server.infer(&Infer::echo("m")).assert_status(200);
    }
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    let spans = collector.spans();
    assert_eq!(spans.iter().filter(|span| span.name == "infer").count(), 10);
}
