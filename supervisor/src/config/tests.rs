//! The passes together: files, overrides, every message, and `config.toml` itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use shared::id::ModelName;

use super::*;

fn load_with(text: &str, overrides: &[&str]) -> Result<Config, ConfigErrors> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bulkhead.toml");
    fs::write(&file, text).unwrap();
    let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
    Config::load(Some(&file), &overrides)
}

fn load(text: &str) -> Config {
    load_with(text, &[]).unwrap()
}

fn errors(text: &str) -> Vec<String> {
    let errors = load_with(text, &[]).unwrap_err().errors;
    errors.iter().map(ToString::to_string).collect()
}

fn name(text: &str) -> ModelName {
    ModelName::new(text).unwrap()
}

/// The `config.toml` at the root of the repository.
fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config.toml")
}

fn values(config: &Config) -> BTreeSet<(String, String)> {
    config.entries().into_iter().map(|entry| (entry.key, entry.value)).collect()
}

#[test]
fn the_shipped_file_says_the_defaults_except_where_the_models_are() {
    let shipped_values = values(&Config::load(Some(&shipped()), &[]).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.toml");
    fs::write(&empty, "").unwrap();
    let defaults = values(&Config::load(Some(&empty), &[]).unwrap());
    let different: Vec<&str> =
        shipped_values.difference(&defaults).map(|(key, _)| key.as_str()).collect();
    // All but that of the models differ only in the folder of the configuration.
    assert_eq!(
        different,
        ["admin.socket", "devices.measured", "repository.paths", "runtime_file", "scratch"]
    );
}

#[test]
fn the_shipped_file_holds_every_key() {
    let table: toml::Table = fs::read_to_string(shipped()).unwrap().parse().unwrap();
    for key in schema::all_keys() {
        let mut value = Some(&toml::Value::Table(table.clone())).cloned();
        for part in key.split('.') {
            value = value.and_then(|value| value.get(part).cloned());
        }
        assert!(value.is_some(), "{key}");
    }
}

/// The smallest and the largest value of a key, as an error tells them.
fn range(key: &str) -> Option<String> {
    let error = load_with(&format!("{key} = \"?\""), &[]).err()?.errors.pop()?.to_string();
    let (_, range) = error.split_once(" from ")?;
    let bare = range.split(' ').count() == 3 && range.contains(" to ");
    bare.then(|| range.to_owned())
}

/// The comment above a key, and its value.
fn comment(text: &str, key: &str) -> (String, String) {
    let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
    let below = text.split_once(&format!("\n[{section}]\n")).map_or(text, |(_, below)| below);
    let (above, value) = below.split_once(&format!("\n{name} = ")).unwrap();
    let value = value.lines().next().unwrap().to_owned();
    let comment: Vec<&str> = above.lines().rev().take_while(|line| line.starts_with('#')).collect();
    (comment.into_iter().rev().map(|line| &line[1..]).collect(), value)
}

#[test]
fn the_shipped_file_says_the_range_and_the_default_of_every_key() {
    let text = fs::read_to_string(shipped()).unwrap();
    for key in schema::all_keys() {
        let (comment, value) = comment(&text, &key);
        let default = if key == "repository.paths" { "[]" } else { &value };
        assert!(comment.contains(&format!("Default: {default}.")), "{key}: {comment}");
        // That of timeouts is said once, for all.
        match range(&key).filter(|range| range != "1ms to 24h") {
            Some(range) => assert!(comment.contains(&range), "{key}: {range} in {comment}"),
            None => assert_ne!(comment, ""),
        }
    }
}

#[test]
fn every_key_of_the_schema_has_an_entry_and_no_other() {
    let listed: BTreeSet<String> = load("").entries().into_iter().map(|entry| entry.key).collect();
    assert_eq!(listed, schema::all_keys().into_iter().collect());
}

#[test]
fn entries_are_what_the_file_would_say() {
    let config = load("[models.\"a.b\"]\nslots = 3\nenabled = false\nslot_size = \"1MiB\"");
    let text: String =
        config.entries().iter().map(|e| format!("{} = {}\n", e.key, e.value)).collect();
    assert_eq!(load(&text), config);
}

#[test]
fn a_model_has_the_defaults_under_its_own_section() {
    let config = load(
        r#"
        [worker]
        slots = 8
        infer_timeout = "10s"
        [restart.backoff]
        max = "5s"
        [models.digits]
        infer_timeout = "2s"
        slot_size = "1MiB"
        instances = 2
        restart = { max_restarts = 1, backoff = { initial = "1s" } }
        [models.off]
        enabled = false
        "#,
    );
    let digits = config.model(&name("digits"));
    assert_eq!(digits.worker.infer_timeout, Duration::from_secs(2));
    assert_eq!((digits.worker.slots, digits.worker.instances), (8, Some(2)));
    assert_eq!(digits.worker.slot_size, SlotSize::Bytes(1 << 20));
    assert_eq!(digits.restart.max_restarts, 1);
    assert_eq!(digits.restart.backoff.initial, Duration::from_secs(1));
    assert_eq!(digits.restart.backoff.max, Duration::from_secs(5));
    assert_eq!(config.model(&name("off")).enabled, Enabled::No);
    let other = config.model(&name("other"));
    assert_eq!((other.worker.slots, other.enabled), (8, Enabled::Yes));
}

#[test]
fn a_model_can_go_back_to_auto() {
    let config = load("[worker]\nslot_size = \"1MiB\"\n[models.m]\nslot_size = \"auto\"");
    assert_eq!(config.model(&name("m")).worker.slot_size, SlotSize::Auto);
}

/// A configuration of one bad value, and what is said of it.
const BAD_VALUES: &[(&str, &str)] = &[
    ("worker.slots = 0", "worker.slots = 0: expected a whole number from 1 to 256"),
    ("worker.slots = 257", "worker.slots = 257: expected a whole number from 1 to 256"),
    ("worker.slots = \"4\"", "worker.slots = \"4\": expected a whole number from 1 to 256"),
    ("worker.slots = -1", "worker.slots = -1: expected a whole number from 1 to 256"),
    ("models.m.slots = 1.5", "models.m.slots = 1.5: expected a whole number from 1 to 256"),
    (
        "limits.max_body = \"64MB\"",
        "limits.max_body = \"64MB\": expected a size such as \"64MiB\", \"4GiB\" or a number \
             of bytes from 1KiB to 4GiB",
    ),
    (
        "limits.threads = \"all\"",
        "limits.threads = \"all\": expected \"auto\" or a whole number from 1 to 256",
    ),
    ("restart.backoff.jitter = 2", "restart.backoff.jitter = 2: expected a number from 0 to 1"),
    (
        "restart.backoff.factor = nan",
        "restart.backoff.factor = nan: expected a number from 1 to 10",
    ),
    (
        "restart.backoff.initial = \"1m\"",
        "restart.backoff.initial = \"1m\": it is longer than restart.backoff.max, which is 30s",
    ),
    (
        "http.listen = \"localhost:80\"",
        "http.listen = \"localhost:80\": expected an IP address and a port from 0 (any free \
             one) to 65535, as \"127.0.0.1:8000\" or \"[::1]:0\"",
    ),
    (
        "http.repository_control = \"yes\"",
        "http.repository_control = \"yes\": expected true, false or \"loopback\"",
    ),
    (
        "models.m.slot_size = \"1GiB\"",
        "models.m.slot_size = \"1GiB\": with 16 slots in each direction that is 32GiB, and \
         limits.arena_memory is 4GiB",
    ),
    ("log.format = 1", "log.format = 1: expected \"auto\", \"human\" or \"json\""),
    (
        "log.filter = \"a=b=c\"",
        "log.filter = \"a=b=c\": expected a level (off, error, warn, info, debug, trace) or \
             directives as \"info,supervisor::lane=debug\"",
    ),
    (
        "traces.endpoint = \"127.0.0.1:4318\"",
        "traces.endpoint = \"127.0.0.1:4318\": expected \"off\", or where a collector takes OTLP over \
         HTTP, as \"http://127.0.0.1:4318\"",
    ),
    ("traces.sample = 1.5", "traces.sample = 1.5: expected a number from 0 to 1"),
    ("traces.queue = 1", "traces.queue = 1: expected a whole number from 16 to 65536"),
    ("runtime_file = \"\"", "runtime_file = \"\": expected a path"),
    ("repository.paths = \"a\"", "repository.paths = \"a\": expected a list of paths"),
    (
        "repository.startup = \"some\"",
        "repository.startup = \"some\": expected \"all\", \"none\" or a list of models",
    ),
    (
        "repository.startup = [\"..\"]",
        "repository.startup = \"..\": a model name must not start with '.'",
    ),
    ("repository.startup = [\"a\", \"a\"]", "repository.startup = \"a\": it stands there twice"),
    ("repository.startup = [1]", "repository.startup = 1: expected the name of a model"),
    (
        "repository = { startup = [\"a\"], required = [\"a\", \"b\"] }",
        "repository.required = [\"a\", \"b\"]: repository.startup does not load b",
    ),
    (
        "repository.required = \"all\"",
        "repository.required = \"all\": expected \"startup\" or a list of models",
    ),
    (
        "models.\"a/b\".slots = 1",
        "models = \"a/b\": a model name may hold ASCII letters, digits and . _ - + @ ~ = only, \
             not '/'",
    ),
    ("models.m.enabled = 1", "models.m.enabled = 1: expected true or false"),
    (
        "restart.no_retry_on = \"hang\"",
        "restart.no_retry_on = \"hang\": expected a list of kinds of exits",
    ),
    (
        "restart.on_oom = \"retry\"",
        "restart.on_oom = \"retry\": expected \"restart\", or \"restart_with_smaller_batch\", or \
         \"stop\"",
    ),
];

#[test]
fn endpoints_of_collectors_are_plain() {
    let endpoint = |text: &str| load_with(&format!("traces.endpoint = {text:?}"), &[]);
    for good in ["http://a", "http://a:1/x/y", "http://[::1]:4318", "http://[::1]", "http://a-b.c/"]
    {
        assert_eq!(endpoint(good).unwrap().traces.endpoint.as_deref(), Some(good));
    }
    assert_eq!(endpoint("off").unwrap().traces.endpoint, None);
    for bad in [
        "",
        "http://",
        "http://:1",
        "http://a:b",
        "http://u@a",
        "http://a?b",
        "https://a",
        "http://a b",
    ] {
        assert!(endpoint(bad).is_err(), "{bad}");
    }
}

#[test]
fn kinds_of_exits_are_read_one_by_one() {
    let config = load(
        "[restart]\nno_retry_on = [\"load_error\", \"SIGSEGV\", \"code 3\"]\n\
         [models.m.restart]\nno_retry_on = []\non_oom = \"stop\"",
    );
    let shown = |model: &str| {
        let patterns = &config.model(&name(model)).restart.no_retry_on;
        patterns.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(shown("other"), ["load_error", "SIGSEGV", "code 3"]);
    assert_eq!(shown("m"), [""; 0]);
    assert_eq!(config.model(&name("m")).restart.on_oom, OnOom::Stop);
    let refused = errors("restart.no_retry_on = [\"hang\", \"retired\", \"oom\", 3]");
    let starts = ["\"retired\"", "\"oom\"", "3"];
    assert_eq!(refused.len(), 3);
    for (error, value) in refused.iter().zip(starts) {
        let start = format!("restart.no_retry_on = {value}: expected \"load_error\", ");
        assert!(error.starts_with(&start), "{error}");
    }
}

#[test]
fn each_bad_value_names_its_key_and_what_is_expected() {
    for (text, message) in BAD_VALUES {
        assert_eq!(errors(text), [*message], "{text}");
    }
    let timeout = "a duration such as \"2s\", \"150ms\" or \"5m\" from 1ms to 24h";
    for bad in ["2", "\"2\"", "\"0s\"", "\"25h\"", "\"-1s\"", "[]", "true"] {
        let text = format!("worker.infer_timeout = {bad}");
        assert_eq!(errors(&text), [format!("{text}: expected {timeout}")]);
    }
}

#[test]
fn all_errors_of_a_file_are_reported_together() {
    let text = "[http]\nlisen = 1\nlisten = 1\n[worker]\nslots = 0\nqueue = -1\n[metrix]\nx = 1";
    let shown = load_with(text, &["limits.max_chunks=0", "nonsense"]).unwrap_err().to_string();
    let named = [
        "--set nonsense: ",
        "http.lisen is not",
        "metrix is not",
        "http.listen = 1: ",
        "limits.max_chunks = 0: ",
        "worker.slots = 0: ",
        "worker.queue = -1: ",
    ];
    for start in named {
        assert!(shown.contains(&format!("\n  {start}")), "{start} in {shown}");
    }
    assert_eq!(shown.lines().count(), 8, "{shown}");
}

#[test]
fn syntax_errors_say_where() {
    let shown = load_with("[http]\nlisten = ", &[]).unwrap_err().to_string();
    assert!(shown.contains("bulkhead.toml") && shown.contains("line 2"), "{shown}");
}

#[test]
fn a_named_file_must_exist_and_a_huge_value_is_not_repeated() {
    let missing = Config::load(Some(Path::new("/nowhere/at/all.toml")), &[]).unwrap_err();
    assert!(missing.to_string().contains("the file cannot be read: No such file"));
    let long = format!("worker.slots = \"{}\"", "ä".repeat(5000));
    assert!(errors(&long)[0].len() < 400);
}

#[test]
fn paths_start_at_the_file_or_at_the_current_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    fs::write(&file, "repository.paths = [\"a\", \"/b\", \"./c\"]").unwrap();
    let config = Config::load(Some(&file), &["runtime_file=r.json".to_owned()]).unwrap();
    let at = |path: &str| folder.path().join(path);
    assert_eq!(config.repository.paths, [at("a"), PathBuf::from("/b"), at("c")]);
    assert_eq!(config.runtime_file, std::env::current_dir().unwrap().join("r.json"));
}

/// Tests run in the package's folder, which has no configuration of its own.
#[test]
fn without_any_file_the_defaults_hold() {
    let config = Config::load(None, &[]).unwrap();
    let current = std::env::current_dir().unwrap();
    assert_eq!(config.runtime_file, current.join(".run/bulkhead.json"));
    let defaults = load("");
    let (runtime_file, scratch) = (defaults.runtime_file.clone(), defaults.scratch.clone());
    let (devices, admin) = (defaults.devices.clone(), defaults.admin.clone());
    assert_eq!(config.devices.measured, current.join(".run/measured.json"));
    assert_eq!(config.admin.socket, Some(current.join(".run/admin.sock")));
    assert_eq!(Config { runtime_file, scratch, devices, admin, ..config }, defaults);
}

#[test]
fn operators_may_be_given_no_socket_a_group_and_a_file() {
    let admin = load("admin.socket = \"off\"\nadmin.audit_log = \"off\"\n").admin;
    assert_eq!((admin.socket, admin.group, admin.audit_log), (None, None, None));
    let admin = load("[admin]\nsocket = \"/s\"\ngroup = \"ops\"\naudit_log = \"/a\"").admin;
    assert_eq!((admin.socket, admin.audit_log), (Some("/s".into()), Some("/a".into())));
    assert_eq!(admin.group.as_deref(), Some("ops"));
    for bad in ["admin.group=a b", "admin.group=a:b", "admin.socket=3", "admin.max_connections=0"] {
        assert!(load_with("", &[bad]).is_err(), "{bad}");
    }
}

#[test]
fn overrides_win_over_the_file() {
    let config = load_with(
        "[http]\nlisten = \"1.2.3.4:5\"",
        &["http.listen=127.0.0.1:0", "models.digits.infer_timeout=2s", "repository.startup=none"],
    );
    let config = config.unwrap();
    assert_eq!(config.http.listen, "127.0.0.1:0".parse().unwrap());
    assert_eq!(config.model(&name("digits")).worker.infer_timeout, Duration::from_secs(2));
    assert_eq!(config.repository.startup, Startup::None);
}

#[test]
fn models_may_be_loaded_over_http_only_where_the_operator_said_so() {
    let loopback: Vec<_> = ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"]
        .map(|a| RepositoryControl::Loopback.allows(a.parse().unwrap()))
        .into();
    assert_eq!(loopback, [true; 3]);
    let open = "0.0.0.0:1".parse().unwrap();
    assert!(!RepositoryControl::Loopback.allows(open));
    assert!(RepositoryControl::Allowed.allows(open));
    assert!(!RepositoryControl::Denied.allows("127.0.0.1:1".parse().unwrap()));
}

#[test]
fn the_same_configuration_is_no_difference() {
    // A section that says the defaults is none either.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    let load = |text: &str| {
        fs::write(&file, text).unwrap();
        Config::load(Some(&file), &[]).unwrap()
    };
    assert!(Diff::between(&load(""), &load("")).is_empty());
    assert!(Diff::between(&load(""), &load("[models.m]\nslots = 16")).is_empty());
}

#[test]
fn a_difference_names_keys_models_and_what_needs_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    let load = |text: &str| {
        fs::write(&file, text).unwrap();
        Config::load(Some(&file), &[]).unwrap()
    };
    let old = load("[models.a]\nslots = 4\n[models.b]\nqueue = 1\n[models.same]\nslots = 9");
    let new = load(
        "http.listen = \"127.0.0.1:1\"\n[worker]\nslots = 9\n[models.a]\nslots = 4\nqueue = 2\n\
         [models.same]\nslots = 9",
    );
    let diff = Diff::between(&old, &new);
    let shown: Vec<String> = diff
        .changes
        .iter()
        .map(|c| format!("{} {} {} {:?}", c.key, c.old, c.new, c.effect))
        .collect();
    assert_eq!(
        shown,
        [
            "http.listen \"127.0.0.1:8000\" \"127.0.0.1:1\" Server",
            "worker.slots 16 9 Workers",
            "models.a.queue 256 2 Live",
            "models.b.slots 16 9 Workers",
            "models.b.queue 1 256 Live",
        ]
    );
    let touched = ["a", "b", "same", "unlisted"].map(|model| diff.touches(&name(model)));
    assert_eq!(touched, [true, true, false, true]);
    assert_eq!(diff.needs_restart().map(|c| &*c.key).collect::<Vec<_>>(), ["http.listen"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_file_is_a_configuration_or_an_error(text in "[a-z._=\\[\\]\"0-9\n ]{0,80}") {
        let _config_or_errors = load_with(&text, &[]);
    }

    #[test]
    fn any_value_of_any_key_is_taken_or_refused(key in 0..60_usize, value in ".{0,20}") {
        let keys = schema::all_keys();
        let text = format!("{}={value}", keys[key % keys.len()]);
        let _config_or_errors = load_with("", &[&text]);
    }
}

#[test]
fn metrics_are_off_or_at_an_address() {
    let listen = |text: &str| load(&format!("[metrics]\nlisten = {text}")).metrics.listen;
    assert_eq!(listen("\"off\""), None);
    assert_eq!(listen("\"[::1]:0\""), Some("[::1]:0".parse().unwrap()));
    for bad in ["\"on\"", "8002", "false", "\"localhost:8002\""] {
        let errors = errors(&format!("metrics.listen = {bad}"));
        assert!(errors[0].contains("\"off\", or an IP address"), "{errors:?}");
    }
}
