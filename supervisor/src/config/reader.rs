//! Reads one value after another and remembers what was wrong with each.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use shared::id::ModelName;
use toml::Value;

use super::error::ConfigError;
use super::value::{Quantity, show_range};

/// Where relative paths start.
#[derive(Debug)]
pub(super) struct Places {
    /// The configuration file's folder.
    pub(super) file: PathBuf,
    /// The folder in which the server was started, for what `--set` gave.
    pub(super) current: PathBuf,
    /// Keys that `--set` gave.
    pub(super) overridden: BTreeSet<String>,
}

impl Places {
    fn base(&self, key: &str) -> &Path {
        if self.overridden.contains(key) { &self.current } else { &self.file }
    }
}

/// Longest piece of a bad value that an error repeats.
const MAX_SHOWN: usize = 120;

#[derive(Debug)]
pub(super) struct Reader {
    places: Places,
    pub(super) errors: Vec<ConfigError>,
}

impl Reader {
    pub(super) fn new(places: Places) -> Self {
        Self { places, errors: Vec::new() }
    }

    /// The value within its range; the default if there is none or it is bad.
    pub(super) fn quantity<Q: Quantity>(
        &mut self,
        key: &str,
        raw: Option<&Value>,
        range: &RangeInclusive<Q>,
        default: Q,
    ) -> Q {
        let Some(value) = raw else { return default };
        match Q::read(value).filter(|quantity| range.contains(quantity)) {
            Some(quantity) => quantity,
            None => {
                self.refuse(key, value, show_range(range));
                default
            }
        }
    }

    /// As [`Self::quantity`], or `"auto"`.
    pub(super) fn auto<Q: Quantity>(
        &mut self,
        key: &str,
        raw: Option<&Value>,
        range: &RangeInclusive<Q>,
        default: Option<Q>,
    ) -> Option<Q> {
        self.unless("auto", (key, raw), range, default)
    }

    /// As [`Self::quantity`], or this word for `None`.
    pub(super) fn unless<Q: Quantity>(
        &mut self,
        word: &str,
        (key, raw): (&str, Option<&Value>),
        range: &RangeInclusive<Q>,
        default: Option<Q>,
    ) -> Option<Q> {
        let Some(value) = raw else { return default };
        if value.as_str() == Some(word) {
            return None;
        }
        let quantity = Q::read(value).filter(|quantity| range.contains(quantity));
        if quantity.is_none() {
            self.refuse(key, value, format!("{word:?} or {}", show_range(range)));
        }
        quantity.or(default)
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &str,
        raw: Option<&Value>,
        words: &[(&str, T)],
        default: T,
    ) -> T {
        let names: Vec<String> = words.iter().map(|(name, _)| format!("{name:?}")).collect();
        let parsed = self.parsed(key, raw, &names.join(", or "), |value| {
            let text = value.as_str()?;
            words.iter().find(|(name, _)| *name == text).map(|(_, meaning)| *meaning)
        });
        parsed.unwrap_or(default)
    }

    /// Whatever `parse` makes of the value.
    pub(super) fn parsed<T>(
        &mut self,
        key: &str,
        raw: Option<&Value>,
        expected: &str,
        parse: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = raw?;
        let parsed = parse(value);
        if parsed.is_none() {
            self.refuse(key, value, expected.to_owned());
        }
        parsed
    }

    /// A path, made absolute.
    pub(super) fn path(&mut self, key: &str, raw: Option<&Value>, default: &str) -> PathBuf {
        let text = self.parsed(key, raw, "a path", |value| path_text(value).map(str::to_owned));
        self.absolute(key, text.as_deref().unwrap_or(default))
    }

    pub(super) fn paths(&mut self, key: &str, raw: Option<&Value>) -> Vec<PathBuf> {
        let texts = self.parsed(key, raw, "a list of paths", |value| {
            let texts = value.as_array()?.iter().map(path_text);
            texts.map(|text| text.map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        texts.unwrap_or_default().iter().map(|text| self.absolute(key, text)).collect()
    }

    /// A list of model names in which each stands once.
    pub(super) fn names(&mut self, key: &str, list: &[Value]) -> BTreeSet<ModelName> {
        let mut names = BTreeSet::new();
        for value in list {
            match value.as_str().map(ModelName::new) {
                Some(Ok(name)) => {
                    if !names.insert(name) {
                        self.conflict(key, value, "it stands there twice".to_owned());
                    }
                }
                Some(Err(invalid)) => self.conflict(key, value, invalid.to_string()),
                None => self.refuse(key, value, "the name of a model".to_owned()),
            }
        }
        names
    }

    pub(super) fn refuse(&mut self, key: &str, value: &Value, expected: String) {
        self.errors.push(ConfigError::Value { key: key.to_owned(), value: show(value), expected });
    }

    pub(super) fn conflict(&mut self, key: &str, value: &Value, reason: String) {
        self.errors.push(ConfigError::Conflict { key: key.to_owned(), value: show(value), reason });
    }

    fn absolute(&self, key: &str, text: &str) -> PathBuf {
        let joined = self.places.base(key).join(text);
        let parts = joined.components().filter(|part| *part != std::path::Component::CurDir);
        parts.collect()
    }
}

fn path_text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty() && !text.contains('\0'))
}

fn show(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
