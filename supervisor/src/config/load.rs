//! From a file and overrides to a [`Config`].

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use toml::Table;

use super::check::{ADMIN_SOCKET, check};
use super::error::{ConfigError, ConfigErrors};
use super::overrides;
use super::raw::Raw;
use super::reader::{Places, Reader};
use super::schema;
use super::settings::Config;

/// Read if no other file is named and it is there.
pub const DEFAULT_FILE: &str = "config.toml";
/// That of the service, as `scripts/install` puts it there.
const INSTALLED_FILE: &str = "/etc/bulkhead/config.toml";
/// Largest file that is read.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Where a configuration comes from, so that it can be read again.
#[derive(Clone, Debug)]
pub struct Origin {
    file: Option<PathBuf>,
    overrides: Vec<String>,
}

impl Origin {
    /// `file`, or [`DEFAULT_FILE`] if there is one now: what was read once is demanded later, so that
    /// a file that is gone is an error and not a configuration that says nothing.
    #[must_use]
    pub fn new(file: Option<&Path>, overrides: &[String]) -> Self {
        let default = || Path::new(DEFAULT_FILE).exists().then(|| PathBuf::from(DEFAULT_FILE));
        Self { file: file.map(Path::to_owned).or_else(default), overrides: overrides.to_vec() }
    }

    /// The same for whoever looks for a server: without a file here, the service's.
    #[must_use]
    pub fn of_the_machine(file: Option<&Path>, overrides: &[String]) -> Self {
        let here = Self::new(file, overrides);
        // One that is here and wrong is still the one that is meant: another server would be told.
        let installed = || Path::new(INSTALLED_FILE).exists().then(|| INSTALLED_FILE.into());
        Self { file: here.file.or_else(installed), ..here }
    }

    /// Where operators are heard, of a file that is wrong, which may be no TOML at all: as far as it says so
    /// in plain words, otherwise the default. `None` if they are not heard.
    #[must_use]
    pub fn admin_socket(&self) -> Option<PathBuf> {
        let set = self.overrides.iter().rev().find_map(|set| set.strip_prefix("admin.socket="));
        let text = self.file.as_deref().and_then(|file| read(file).ok()).unwrap_or_default();
        let named = set.or_else(|| plain_socket(&text)).unwrap_or(ADMIN_SOCKET);
        let named = named.trim_matches('"');
        (named != "off").then(|| PathBuf::from(named))
    }

    /// `None` if there is none: all is as by default, but for what was set beside it.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads the file and checks the whole.
    pub fn load(&self) -> Result<Config, ConfigErrors> {
        Config::load(self.file.as_deref(), &self.overrides)
    }
}

/// The value of `socket` below `[admin]`, or of `admin.socket` above all sections.
fn plain_socket(text: &str) -> Option<&str> {
    let mut section = "";
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.trim();
        }
        let key = match section {
            "" => "admin.socket",
            "admin" => "socket",
            _ => continue,
        };
        let value = line.strip_prefix(key).and_then(|rest| rest.trim_start().strip_prefix('='));
        if let Some(value) = value.and_then(|value| value.split(['"', '\'']).nth(1)) {
            return Some(value);
        }
    }
    None
}

impl Config {
    /// Reads `path`, or [`DEFAULT_FILE`] if there is one, lays `overrides` (each `KEY=VALUE`) over
    /// it and checks the whole.
    pub fn load(path: Option<&Path>, overrides: &[String]) -> Result<Self, ConfigErrors> {
        let fail = |file: Option<&Path>, error| ConfigErrors {
            file: file.map(Path::to_owned),
            errors: vec![error],
        };
        let current = std::env::current_dir().map_err(|e| fail(path, ConfigError::Read(e)))?;
        let file = path.unwrap_or(Path::new(DEFAULT_FILE));
        let text = match read(&current.join(file)) {
            Ok(text) => Some(text),
            Err(ConfigError::Read(e)) if path.is_none() && e.kind() == io::ErrorKind::NotFound => {
                None
            }
            Err(error) => return Err(fail(Some(file), error)),
        };
        let file = text.is_some().then_some(file);
        let table = text.as_deref().unwrap_or_default().parse::<Table>();
        let table = table.map_err(|e| fail(file, ConfigError::Syntax(e)))?;
        let folder =
            file.and_then(Path::parent).map_or_else(|| current.clone(), |p| current.join(p));
        let source = Source { table, folder, current };
        source
            .check(overrides)
            .map_err(|errors| ConfigErrors { file: file.map(Path::to_owned), errors })
    }
}

/// A file's content and where relative paths start.
struct Source {
    table: Table,
    folder: PathBuf,
    current: PathBuf,
}

impl Source {
    fn check(mut self, overrides: &[String]) -> Result<Config, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let overridden = overrides::apply(&mut self.table, overrides, &mut errors);
        errors.extend(schema::remove_unknown(&mut self.table));
        let raw: Raw = match self.table.try_into() {
            Ok(raw) => raw,
            Err(error) => {
                errors.push(ConfigError::Shape(error));
                return Err(errors);
            }
        };
        let places = Places { file: self.folder, current: self.current, overridden };
        let mut reader = Reader::new(places);
        let config = check(&mut reader, &raw);
        errors.append(&mut reader.errors);
        if errors.is_empty() { Ok(config) } else { Err(errors) }
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let file = File::open(path).map_err(ConfigError::Read)?;
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(ConfigError::Read)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge(MAX_FILE_BYTES));
    }
    Ok(text)
}
