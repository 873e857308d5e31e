//! The configuration read again while the server runs: what is applied, to whom, and what is not.

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{Echo, Infer, Repository, Supervisor};

const MODELS: &str = "repository.paths = [\"MODELS\"]\n";

/// A server with these models, and a file that says nothing but where they are.
fn with(models: &[&str]) -> tests::supervisor::Builder {
    let builder = Supervisor::new().file(MODELS);
    models.iter().fold(builder, |builder, model| builder.echo(model, &Echo::default()))
}

/// What a reload logged of one model: in a word, and why.
fn outcome(events: &[Value], model: &str) -> Option<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let about = |event: &&Value| event["model"] == model && event.get("outcome").is_some();
    events.iter().find(about).map(|event| (text(&event["outcome"]), text(&event["reason"])))
}

fn word(events: &[Value], model: &str) -> String {
    outcome(events, model).map(|(word, _)| word).unwrap_or_default()
}

/// The keys that a reload said to have changed.
fn changed(events: &[Value]) -> Vec<String> {
    let changes = events.iter().filter(|event| event["message"] == "configuration changed");
    changes.map(|event| event["key"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Why a reload was refused.
fn refused(events: &[Value]) -> Option<String> {
    let refused = |event: &&Value| event["message"] == "not reloaded; nothing has changed";
    Some(events.iter().find(refused)?["reason"].as_str()?.to_owned())
}

#[test]
fn an_unchanged_file_touches_nothing() {
    let server = with(&["m"]).set("worker.queue", "3").start();
    let (worker, load) = (server.worker("m"), server.load_on("m"));
    let events = server.reload();
    assert!(changed(&events).is_empty() && outcome(&events, "m").is_none(), "{events:#?}");
    // What the command line says wins, now as at the start.
    let events = server.reload_with(&format!("{MODELS}[worker]\nqueue = 7"));
    assert!(changed(&events).is_empty(), "{events:#?}");
    load.wait_for_more(10);
    assert_eq!(server.worker("m"), worker);
    load.assert_no_errors();
}

#[test]
fn a_bad_file_changes_nothing_and_says_why() {
    let server = with(&["m"]).start();
    let (worker, load) = (server.worker("m"), server.load_on("m"));
    let table: [(&str, &[&str]); 6] = [
        ("[worker\n", &["not valid TOML", "line"]),
        ("[worker]\nslots = 0", &["worker.slots = 0", "1 to 256"]),
        ("[models.m]\nslot = 2", &["models.m.slot", "did you mean models.m.slots"]),
        ("[restart.backoff]\ninitial = \"1m\"", &["restart.backoff.initial", "longer than"]),
        (
            "[log]\nfilter = \"a=b=c\"\n[http]\nidle_timeout = 3",
            &["log.filter", "http.idle_timeout"],
        ),
        ("log = 3", &["log = 3", "a section"]),
    ];
    for (text, parts) in table {
        // The good part of it would disable the model.
        let events = server.reload_with(&format!("{text}\n[models.other]\nenabled = false"));
        let reason = refused(&events).unwrap_or_else(|| panic!("{text}: {events:#?}"));
        assert!(parts.iter().all(|part| reason.contains(part)), "{text}: {reason}");
    }
    std::fs::remove_file(server.config_file()).unwrap();
    assert!(refused(&server.reload()).unwrap().contains("cannot be read"));
    std::fs::write(server.config_file(), vec![b'#'; (4 << 20) + 1]).unwrap();
    assert!(refused(&server.reload()).unwrap().contains("more than"));
    load.wait_for_more(10);
    assert_eq!(server.worker("m"), worker);
    load.assert_no_errors();
}

#[test]
fn a_changed_model_is_replaced_under_load_and_the_others_keep_their_workers() {
    let server = with(&["changed", "same"]).start();
    let (changed_load, same_load) = (server.load_on("changed"), server.load_on("same"));
    let same = server.worker("same");
    for slots in [3, 5, 7] {
        let old = server.worker("changed");
        changed_load.wait_for_more(10);
        let text = format!("{MODELS}[models.changed]\nslots = {slots}");
        let events = server.reload_with(&text);
        assert_eq!(word(&events, "changed"), "replaced");
        assert_eq!(changed(&events), ["models.changed.slots"]);
        assert!(outcome(&events, "same").is_none(), "{events:#?}");
        tests::wait::until_true("the end of the old worker", || !old.is_alive());
    }
    changed_load.wait_for_more(10);
    same_load.wait_for_more(10);
    assert_eq!(server.worker("same"), same);
    changed_load.assert_no_errors();
    same_load.assert_no_errors();
}

#[test]
fn settings_that_take_no_new_workers_hold_at_once() {
    let server = with(&["m", "other"]).start();
    let (worker, other) = (server.worker("m"), server.worker("other"));
    let live = "infer_timeout = \"300ms\"\nqueue = 0\nrestart = { max_restarts = 0 }";
    let events = server.reload_with(&format!("{MODELS}[models.m]\n{live}"));
    assert_eq!(word(&events, "m"), "adjusted");
    assert_eq!(server.worker("m"), worker);
    // Too late for the new timeout, judged by it, and given up by the new budget.
    let answer = server.infer(&Infer::command("m", "hang sleep").once());
    answer.assert_status(504);
    assert!(server.wait_for_state("m", "UNAVAILABLE").contains("0 restarts"));
    assert_eq!(server.worker("other"), other);
}

#[test]
fn new_settings_that_fail_leave_what_serves_until_they_can_hold() {
    let size = "slot_size = \"1MiB\"\nslots = 8";
    let file = |arena: &str, threads: u32| {
        let limits = format!("[limits]\narena_memory = \"{arena}\"");
        format!("{MODELS}{limits}\n[models.m]\n{size}\nthreads = {threads}")
    };
    let server = with(&["m"]).file(&file("24MiB", 1)).start();
    let (worker, load) = (server.worker("m"), server.load_on("m"));
    let events = server.reload_with(&file("24MiB", 2));
    let (word_, reason) = outcome(&events, "m").expect("it is told");
    assert!(word_ == "not_replaced" && reason.contains("arena_memory"), "{word_} {reason}");
    assert!(reason.contains("still serves"), "{reason}");
    assert_eq!(server.worker("m"), worker);
    // Its section is the same as in the file before, and not what its workers have.
    for asked in [&["config", "diff"][..], &["status"]] {
        let told = server.told(asked);
        assert!(told.contains("m: its workers run with older settings"), "{told}");
    }
    let events = server.reload_with(&file("64MiB", 2));
    assert_eq!(word(&events, "m"), "replaced");
    assert_eq!(changed(&events), ["limits.arena_memory"]);
    assert_eq!(server.told(&["config", "diff"]), "No difference.\n");
    load.wait_for_more(10);
    load.assert_no_errors();
}

#[test]
fn what_needs_a_restart_is_named_each_time_and_the_rest_holds() {
    let server = with(&["m"]).start();
    let worker = server.worker("m");
    let text = format!(
        "scratch = \"elsewhere\"\n{MODELS}[devices]\nnvml = \"off\"\n[http]\nrepository_control = \
         false\n"
    );
    for changes in [vec!["http.repository_control"], vec![]] {
        let events = server.reload_with(&text);
        assert_eq!(changed(&events), changes);
        let restart = events.iter().find_map(|event| event["keys"].as_str());
        let restart = restart.unwrap_or_else(|| panic!("{events:#?}"));
        assert!(restart.contains("scratch (") && restart.contains("devices.nvml ("), "{restart}");
        assert!(restart.contains("\"auto\" -> \"off\""), "{restart}");
    }
    server.client().load("m").assert_status(403);
    assert_eq!(server.worker("m"), worker);
}

#[test]
fn two_hangups_at_once_end_in_the_last_file() {
    let server = with(&["m", "same"]).start();
    let (load, same) = (server.load_on("m"), server.worker("same"));
    for slots in 2..12 {
        server.configure(&format!("{MODELS}[models.m]\nslots = {slots}"));
        server.signal(Signal::SIGHUP);
        server.signal(Signal::SIGHUP);
    }
    server.logs().wait_for("the last file", |event| {
        event["key"] == "models.m.slots" && event["new"] == "11"
    });
    let events = server.reload();
    assert!(refused(&events).is_none() && changed(&events).is_empty(), "{events:#?}");
    load.wait_for_more(10);
    tests::wait::until_true("one worker", || server.workers_of("m").len() == 1);
    assert_eq!(server.worker("same"), same);
    load.assert_no_errors();
}

#[test]
fn models_are_disabled_and_enabled() {
    let server = with(&["m", "same"]).start();
    let same = server.worker("same");
    let off = format!("{MODELS}[models.m]\nenabled = false");
    assert_eq!(word(&server.reload_with(&off), "m"), "disabled");
    assert!(server.workers_of("m").is_empty());
    assert!(server.wait_for_state("m", "UNAVAILABLE").contains("disabled"));
    assert!(server.client().load("m").assert_status(400).error().contains("disabled"));
    assert_eq!(server.client().get("/v2/health/ready").status, 200);
    assert!(outcome(&server.reload(), "m").is_none());
    assert_eq!(word(&server.reload_with(MODELS), "m"), "loaded");
    server.infer(&Infer::echo("m")).assert_status(200);
    assert_eq!(server.worker("same"), same);
}

#[test]
fn repositories_come_and_go() {
    let (server, more) = (with(&["m"]).start(), Repository::default());
    more.echo("new", &Echo::default());
    more.config("broken", "backend: {");
    let both = format!("repository.paths = [\"MODELS\", {:?}]\n", more.path());
    let (worker, load) = (server.worker("m"), server.load_on("m"));
    let events = server.reload_with(&both);
    assert_eq!((word(&events, "new"), word(&events, "broken")), ("loaded".into(), "failed".into()));
    server.infer(&Infer::echo("new")).assert_status(200);
    assert!(server.wait_for_state("broken", "UNAVAILABLE").contains("config.pbtxt"));
    // A repository that cannot be read is not an empty one.
    let unreadable = "repository.paths = [\"MODELS\", \"/nowhere/at/all\"]\n";
    let events = server.reload_with(unreadable);
    assert!(outcome(&events, "new").is_none(), "{events:#?}");
    server.infer(&Infer::echo("new")).assert_status(200);
    let events = server.reload_with(MODELS);
    assert_eq!((word(&events, "new"), word(&events, "broken")), ("gone".into(), "gone".into()));
    assert!(server.workers_of("new").is_empty() && server.client().index("new").is_empty());
    server.infer(&Infer::echo("new")).assert_status(404);
    assert_eq!(word(&server.reload_with(&both), "new"), "loaded");
    assert_eq!(server.worker("m"), worker);
    load.assert_no_errors();
}

#[test]
fn a_model_that_moved_to_another_repository_is_loaded_from_there() {
    let (server, more) = (with(&["m"]).start(), Repository::default());
    let (load, worker) = (server.load_on("m"), server.worker("m"));
    more.echo("m", &Echo::default().versions(&[7]));
    let events = server.reload_with(&format!("repository.paths = [{:?}]\n", more.path()));
    assert_eq!(word(&events, "m"), "replaced");
    assert_eq!(server.infer(&Infer::echo("m")).json()["model_version"], "7");
    tests::wait::until_true("the end of the old worker", || !worker.is_alive());
    load.assert_no_errors();
}

#[test]
fn a_model_that_is_new_does_not_make_the_server_unready() {
    let server = with(&["m"]).start();
    let slow = Echo::default().parameter("load_delay_ms", "300");
    server.repository().echo("slow", &slow);
    server.repository().echo("bad", &Echo::default().parameter("load_fail", "no such luck"));
    server.signal(Signal::SIGHUP);
    tests::wait::until_true("a model that is ready", || {
        assert_eq!(server.client().get("/v2/health/ready").status, 200);
        server.client().is_ready("slow")
    });
    let failed = |event: &Value| event["model"] == "bad" && event["outcome"] == "failed";
    let event = server.logs().wait_for("a model that fails", failed);
    assert!(event["reason"].as_str().unwrap().contains("no such luck"), "{event}");
    assert_eq!(server.client().get("/v2/health/ready").status, 200);
}

#[test]
fn a_correction_waits_for_no_model_of_the_reload_before() {
    let server = with(&["m", "same"]).start();
    let (same, load) = (server.worker("same"), server.load_on("m"));
    // It would take longer than any test.
    server.repository().echo("slow", &Echo::default().parameter("load_delay_ms", "50000"));
    server.configure(&format!("{MODELS}[models.m]\nslots = 2"));
    server.signal(Signal::SIGHUP);
    server.logs().wait_for("the first file", |event| event["new"] == "2");
    tests::wait::until_true("a model that loads", || server.workers_of("slow").len() == 1);
    let off = format!("{MODELS}[models.m]\nslots = 3\n[models.slow]\nenabled = false");
    server.configure(&off);
    server.signal(Signal::SIGHUP);
    let gone = |event: &Value| event["model"] == "slow" && event["outcome"] == "disabled";
    server.logs().wait_for("a model that was not to be", gone);
    server.logs().wait_for("the last file", |event| event["new"] == "3");
    let overtaken = |event: &Value| event["model"] == "slow" && event["outcome"] == "overtaken";
    server.logs().wait_for("the first to be overtaken", overtaken);
    tests::wait::until_true("the last workers alone", || server.workers().len() == 2);
    assert_eq!(server.worker("same"), same);
    load.wait_for_more(10);
    load.assert_no_errors();
}

/// A model whose next load takes longer than any test.
fn endless() -> Echo {
    Echo::default().parameter("load_delay_ms", "50000")
}

#[test]
fn a_correction_has_the_room_of_what_it_corrects() {
    let limited = format!("{MODELS}limits.max_workers = 2\n");
    let server = with(&["m"]).file(&limited).start();
    let (old, load) = (server.worker("m"), server.load_on("m"));
    server.repository().echo("m", &endless());
    server.configure(&format!("{limited}[models.m]\nslots = 2"));
    server.signal(Signal::SIGHUP);
    tests::wait::until_true("a worker beside the old one", || server.workers_of("m").len() == 2);
    server.repository().echo("m", &Echo::default());
    let events = server.reload_with(&format!("{limited}[models.m]\nslots = 3"));
    assert_eq!(word(&events, "m"), "overtaken", "{events:#?}");
    server.logs().wait_for("the correction", |event| event["outcome"] == "replaced");
    tests::wait::until_true("the last worker alone", || server.workers_of("m").len() == 1);
    assert_ne!(server.worker("m"), old);
    load.wait_for_more(10);
    load.assert_no_errors();
}

#[test]
fn the_first_load_of_a_model_can_be_corrected() {
    let server = with(&["m"]).file(&format!("{MODELS}limits.max_workers = 2\n")).start();
    server.repository().echo("new", &endless());
    server.signal(Signal::SIGHUP);
    tests::wait::until_true("a worker", || server.workers_of("new").len() == 1);
    server.repository().echo("new", &Echo::default());
    server.configure(&format!("{MODELS}limits.max_workers = 2\n[models.new]\nslots = 3"));
    server.signal(Signal::SIGHUP);
    let loaded = |event: &Value| event["model"] == "new" && event["outcome"] == "loaded";
    server.logs().wait_for("the correction", loaded);
    server.infer(&Infer::echo("new")).assert_status(200);
}

#[test]
fn settings_that_take_no_new_workers_wait_for_those_that_are_coming() {
    let server = with(&["m"]).start();
    let load = server.load_on("m");
    let failing = Echo::default().parameter("load_delay_ms", "500");
    server.repository().echo("m", &failing.parameter("load_fail", "no such luck"));
    server.configure(&format!("{MODELS}[models.m]\nslots = 2"));
    server.signal(Signal::SIGHUP);
    tests::wait::until_true("a worker beside the old one", || server.workers_of("m").len() == 2);
    server.configure(&format!("{MODELS}[models.m]\nslots = 2\nqueue = 9"));
    server.signal(Signal::SIGHUP);
    let failed = |event: &Value| event["outcome"] == "not_replaced";
    tests::wait::until_true("both to hear of it", || {
        server.logs().events().iter().filter(|event| failed(event)).count() == 2
    });
    load.wait_for_more(10);
    load.assert_no_errors();
}

#[test]
fn nothing_is_left_of_settings_that_were_taken_back() {
    let server = with(&["m"]).start();
    server.repository().echo("m", &Echo::default().parameter("load_fail", "no such luck"));
    let events = server.reload_with(&format!("{MODELS}[models.m]\nslots = 2"));
    assert_eq!(word(&events, "m"), "not_replaced");
    let told = server.told(&["config", "diff"]);
    assert!(told.contains("older settings") && told.contains("no such luck"), "{told}");
    server.reload_with(MODELS);
    assert_eq!(server.told(&["config", "diff"]), "No difference.\n");
    // Nor of a load, once somebody has unloaded it.
    server.client().load("m").assert_status(400);
    assert!(server.told(&["status"]).contains("no such luck"));
    server.client().unload("m").assert_status(200);
    assert!(!server.told(&["status"]).contains("no such luck"));
}

#[test]
fn a_model_that_had_no_room_is_tried_again() {
    let builder = with(&["a", "b"]).file(&format!("{MODELS}limits.max_workers = 1\n"));
    let server = builder.start_unready();
    let denied = server.logs().wait_for("a denial", |event| event["message"] == "worker denied");
    let model = denied["model"].as_str().unwrap().to_owned();
    assert_eq!(word(&server.reload(), &model), "failed");
    assert_eq!(
        word(&server.reload_with(&format!("{MODELS}limits.max_workers = 2\n")), &model),
        "loaded"
    );
    server.infer(&Infer::echo(&model)).assert_status(200);
}

#[test]
fn a_model_that_was_unloaded_is_not_missed_while_it_loads_again() {
    let server = with(&["m", "other"]).start();
    server.client().unload("m").assert_status(200);
    server.repository().echo("m", &Echo::default().parameter("load_delay_ms", "300"));
    let loads = server.load_aside("m");
    tests::wait::until_true("a model that is ready", || {
        assert_eq!(server.client().get("/v2/health/ready").status, 200);
        server.client().is_ready("m")
    });
    loads.answer().assert_status(200);
}

#[test]
fn what_the_start_loads_can_grow() {
    let none = format!("{MODELS}repository.startup = \"none\"\n");
    let server = with(&["a", "b"]).file(&none).start();
    let events = server.reload_with(&format!("{MODELS}repository.startup = [\"a\"]"));
    assert_eq!((word(&events, "a"), word(&events, "b")), ("loaded".into(), String::new()));
    server.infer(&Infer::echo("a")).assert_status(200);
    server.client().unload("a").assert_status(200);
    // What somebody has unloaded is not missed, and keeps its settings for later.
    let text = format!("{MODELS}repository.startup = [\"a\"]\n[models.a]\nslots = 2");
    assert_eq!(word(&server.reload_with(&text), "a"), "kept");
    assert!(server.workers().is_empty());
    assert_eq!(word(&server.reload_with(MODELS), "b"), "loaded");
}

#[test]
fn limits_and_the_listener_follow() {
    let narrow = "[limits]\nmax_workers = 1\nmax_body = \"1KiB\"\n";
    let wide = "[limits]\nmax_workers = 2\n";
    let startup = "repository.startup = [\"a\"]\n";
    let server = with(&["a", "b"]).file(&format!("{MODELS}{startup}{narrow}")).start();
    let worker = server.worker("a");
    let answer = server.client().load("b");
    assert!(answer.assert_status(400).error().contains("limits.max_workers"), "{}", answer.text());
    let large = Infer::new("a").tensor("INPUT0", "FP32", &[1024], &[0; 4096]);
    let mut client = server.client();
    client.infer(&large).assert_status(400);
    let events = server.reload_with(&format!("{MODELS}{startup}{wide}"));
    assert_eq!(changed(&events), ["limits.max_body", "limits.max_workers"]);
    client.infer(&large).assert_status(200);
    server.client().load("b").assert_status(200);
    assert_eq!(server.worker("a"), worker);
}

#[test]
fn the_log_follows_its_filter() {
    let server = with(&["m"]).start();
    let debug = |events: &[Value]| events.iter().filter(|e| e["level"] == "DEBUG").count();
    assert_eq!(debug(&server.logs().events()), 0);
    server.reload_with(&format!("{MODELS}[log]\nfilter = \"info,supervisor=debug\""));
    server.client().load("m").assert_status(200);
    assert!(debug(&server.logs().events()) > 0);
    server.reload_with(MODELS);
    let before = debug(&server.logs().events());
    server.client().load("m").assert_status(200);
    assert_eq!(debug(&server.logs().events()), before);
}

#[test]
fn a_server_that_drains_reloads_nothing() {
    let mut server = with(&["m"]).start();
    let hanging = server.hang("m");
    server.signal(Signal::SIGTERM);
    server.logs().wait_for("the drain", |event| {
        event["message"].as_str().is_some_and(|message| message.starts_with("draining"))
    });
    let events = server.reload_with("[worker]\nslots = 1");
    assert!(refused(&events).unwrap().contains("shutting down"));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(4));
    drop(hanging);
}
