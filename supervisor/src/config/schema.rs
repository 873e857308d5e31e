//! Which keys there are. Unknown ones are taken out of the table, each with its nearest neighbour,
//! so that the rest can still be checked.

use toml::{Table, Value};

use super::error::ConfigError;
use super::raw::{
    Raw, RawAdmin, RawBackoff, RawDevices, RawHttp, RawLimits, RawLog, RawMetrics, RawModel,
    RawRepository, RawRestart, RawShutdown, RawTraces, RawWorker,
};

/// What may stand below a key.
enum Below {
    Value,
    Keys(Vec<&'static str>),
    /// Any name, each with a section.
    Names,
}

fn below(path: &[&str]) -> Below {
    match path {
        [] => Below::Keys(Raw::KEYS.to_vec()),
        ["log"] => Below::Keys(RawLog::KEYS.to_vec()),
        ["traces"] => Below::Keys(RawTraces::KEYS.to_vec()),
        ["http"] => Below::Keys(RawHttp::KEYS.to_vec()),
        ["metrics"] => Below::Keys(RawMetrics::KEYS.to_vec()),
        ["admin"] => Below::Keys(RawAdmin::KEYS.to_vec()),
        ["limits"] => Below::Keys(RawLimits::KEYS.to_vec()),
        ["devices"] => Below::Keys(RawDevices::KEYS.to_vec()),
        ["repository"] => Below::Keys(RawRepository::KEYS.to_vec()),
        ["worker"] => Below::Keys(RawWorker::KEYS.to_vec()),
        ["shutdown"] => Below::Keys(RawShutdown::KEYS.to_vec()),
        ["models"] => Below::Names,
        ["models", _] => Below::Keys([RawModel::KEYS, RawWorker::KEYS].concat()),
        ["restart"] | ["models", _, "restart"] => Below::Keys(RawRestart::KEYS.to_vec()),
        ["restart", "backoff"] | ["models", _, "restart", "backoff"] => {
            Below::Keys(RawBackoff::KEYS.to_vec())
        }
        _ => Below::Value,
    }
}

/// Takes out of `table` what has no place in it.
pub(super) fn remove_unknown(table: &mut Table) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    prune(table, &[], &mut errors);
    errors
}

/// One level of a tree that is at most five levels deep: values are not entered.
fn prune(table: &mut Table, path: &[&str], errors: &mut Vec<ConfigError>) {
    let below_here = below(path);
    table.retain(|key, value| {
        let known = match &below_here {
            Below::Keys(keys) => keys.contains(&key),
            Below::Names | Below::Value => true,
        };
        if !known {
            errors.push(unknown(path, key));
            return false;
        }
        let here = [path, &[key]].concat();
        match (below(&here), value) {
            (Below::Value, _) => true,
            (Below::Keys(_) | Below::Names, Value::Table(inner)) => {
                prune(inner, &here, errors);
                true
            }
            (Below::Keys(_) | Below::Names, other) => {
                let (key, value) = (join(&here), other.to_string());
                errors.push(ConfigError::Value { key, value, expected: "a section".to_owned() });
                false
            }
        }
    });
}

fn unknown(path: &[&str], key: &str) -> ConfigError {
    let full = join(&[path, &[key]].concat());
    ConfigError::UnknownKey { nearest: nearest(path, key), key: full }
}

/// A sibling that is spelled alike, or the same key elsewhere.
fn nearest(path: &[&str], key: &str) -> Option<String> {
    let close = |candidate: &str| {
        let distance = strsim::osa_distance(key, candidate);
        (distance <= 1 + key.len() / 4).then_some(distance)
    };
    let siblings = match below(path) {
        Below::Keys(keys) => keys,
        Below::Names | Below::Value => Vec::new(),
    };
    let sibling = siblings
        .into_iter()
        .filter_map(|name| close(name).map(|distance| (distance, name)))
        .min()
        .map(|(_, name)| join(&[path, &[name]].concat()));
    sibling.or_else(|| {
        let elsewhere = |full: &String| full.rsplit('.').next() == Some(key);
        all_keys().into_iter().find(elsewhere)
    })
}

/// Every key but those of `[models.NAME]`, dotted.
pub(super) fn all_keys() -> Vec<String> {
    let mut found = Vec::new();
    collect(&[], &mut found);
    found
}

fn collect(path: &[&str], found: &mut Vec<String>) {
    match below(path) {
        Below::Keys(keys) => keys.iter().for_each(|key| collect(&[path, &[key]].concat(), found)),
        Below::Value => found.push(join(path)),
        Below::Names => {}
    }
}

/// As TOML would write it: a name that is not a bare key is quoted.
pub(super) fn join(path: &[&str]) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let quote = |part: &&str| {
        let is_bare = !part.is_empty() && part.chars().all(bare);
        if is_bare { (*part).to_owned() } else { format!("{part:?}") }
    };
    path.iter().map(quote).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<String> {
        let mut table: Table = text.parse().unwrap();
        remove_unknown(&mut table).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn unknown_keys_are_all_named_with_their_neighbours() {
        let text = r#"
            runtime = 1
            [http]
            lisen = "x"
            slots = 3
            [models."a.b"]
            slot = 1
            [models.m.restart.backoff]
            jiter = 1
            [grpc]
            listen = "x"
        "#;
        assert_eq!(
            errors(text),
            [
                "grpc is not a key",
                "http.lisen is not a key; did you mean http.listen?",
                "http.slots is not a key; did you mean worker.slots?",
                "models.\"a.b\".slot is not a key; did you mean models.\"a.b\".slots?",
                "models.m.restart.backoff.jiter is not a key; did you mean \
                 models.m.restart.backoff.jitter?",
                "runtime is not a key",
            ]
        );
    }

    #[test]
    fn a_value_in_the_place_of_a_section_is_named() {
        assert_eq!(errors("http = 3"), ["http = 3: expected a section"]);
        assert_eq!(errors("models.m = true"), ["models.m = true: expected a section"]);
    }

    #[test]
    fn what_is_left_always_has_the_shape_of_raw() {
        let mut table: Table =
            "http = 3\nx = 1\n[restart]\nbackoff = 1\n[models.m]\ny = 2\nslots = []"
                .parse()
                .unwrap();
        assert_eq!(remove_unknown(&mut table).len(), 4);
        assert!(table.try_into::<Raw>().is_ok());
    }
}
