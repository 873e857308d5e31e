//! `--set KEY=VALUE`, laid over the table of the file.
//!
//! A key is dotted as in TOML (a part may be quoted). A value is TOML where it can be read as such,
//! and otherwise a plain string, so that a shell needs no second pair of quotes.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::error::ConfigError;
use super::schema;

/// Most parts of a key: `models.NAME.restart.backoff.KEY`.
const MAX_PARTS: usize = 5;

/// Lays each override over `table`, in order; returns the keys that they name.
pub(super) fn apply(
    table: &mut Table,
    overrides: &[String],
    errors: &mut Vec<ConfigError>,
) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for text in overrides {
        match apply_one(table, text) {
            Ok(key) => {
                keys.insert(key);
            }
            Err(reason) => errors.push(ConfigError::Override { text: text.clone(), reason }),
        }
    }
    keys
}

fn apply_one(table: &mut Table, text: &str) -> Result<String, &'static str> {
    let (key, value) = split(text).ok_or("expected KEY=VALUE")?;
    let parts = key_parts(key).ok_or("expected a dotted key, as http.listen")?;
    if parts.len() > MAX_PARTS {
        return Err("the key has too many parts");
    }
    insert(table, &parts, parse_value(value)).ok_or("a part of the key is not a section")?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    Ok(schema::join(&parts))
}

/// At the first `=` outside quotes: a model's name may hold one.
fn split(text: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    let at = text.find(|c: char| {
        quoted ^= c == '"';
        c == '=' && !quoted
    })?;
    Some((text[..at].trim(), text[at + 1..].trim()))
}

fn key_parts(key: &str) -> Option<Vec<String>> {
    if key.contains(['\n', '#']) {
        return None;
    }
    let mut table: Table = format!("{key} = 0").parse().ok()?;
    let mut parts = Vec::new();
    loop {
        let (part, value) = std::mem::take(&mut table).into_iter().next()?;
        parts.push(part);
        match value {
            Value::Table(inner) => table = inner,
            Value::Integer(_) => return Some(parts),
            Value::String(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Array(_) => return None,
        }
    }
}

fn parse_value(text: &str) -> Value {
    let parsed = format!("value = {text}").parse::<Table>().ok();
    let single = parsed.filter(|table| table.len() == 1);
    let value = single.and_then(|mut table| table.remove("value"));
    value.unwrap_or_else(|| Value::from(text))
}

/// `None` if a value stands where the key needs a section.
fn insert(table: &mut Table, parts: &[String], value: Value) -> Option<()> {
    let (last, sections) = parts.split_last()?;
    let mut here = table;
    for section in sections {
        let below = here.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
        here = below.as_table_mut()?;
    }
    match (here.get_mut(last), value) {
        (Some(Value::Table(old)), Value::Table(new)) => old.extend(new),
        (_, value) => {
            here.insert(last.clone(), value);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(file: &str, overrides: &[&str]) -> (Table, Vec<String>) {
        let mut table: Table = file.parse().unwrap();
        let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
        let mut errors = Vec::new();
        apply(&mut table, &overrides, &mut errors);
        (table, errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn values_are_toml_or_plain_text() {
        let (table, errors) = set(
            "[http]\nlisten = \"1.2.3.4:1\"\nmax_connections = 3",
            &[
                "http.listen=127.0.0.1:0",
                "models.digits.infer_timeout=2s",
                "models.\"a.b=c\".slots = 4",
                "repository.paths=[\"a\", \"b\"]",
                "restart.backoff={ initial = \"1s\" }",
                "restart.backoff={ max = \"2s\" }",
                "log.filter=info,supervisor=debug",
                "worker.slots=",
            ],
        );
        assert_eq!(errors, [""; 0]);
        let expected: Table = r#"
            http = { listen = "127.0.0.1:0", max_connections = 3 }
            models = { digits = { infer_timeout = "2s" }, "a.b=c" = { slots = 4 } }
            repository.paths = ["a", "b"]
            restart.backoff = { initial = "1s", max = "2s" }
            log.filter = "info,supervisor=debug"
            worker.slots = ""
        "#
        .parse()
        .unwrap();
        assert_eq!(table, expected);
    }

    #[test]
    fn what_is_not_a_key_and_a_value_is_refused() {
        let bad = ["http.listen", "=1", "a b=1", "a..b=1", "a.b.c.d.e.f=1", "x.y=1", "a\nb=1"];
        let (_, errors) = set("x = 1", &bad);
        assert_eq!(errors.len(), bad.len());
        assert_eq!(errors[0], "--set http.listen: expected KEY=VALUE");
        assert_eq!(errors[5], "--set x.y=1: a part of the key is not a section");
    }

    #[test]
    fn a_value_cannot_smuggle_in_a_second_key() {
        let (table, _) = set("", &["log.filter=1\nother = 2"]);
        assert_eq!(table["log"]["filter"].as_str(), Some("1\nother = 2"));
    }

    proptest! {
        #[test]
        fn any_text_is_applied_or_refused(text in "[a-z.\"=\\[{#\\n ]{0,30}", any in ".{0,30}") {
            set("x = 1", &[&text, &any]);
        }
    }
}
