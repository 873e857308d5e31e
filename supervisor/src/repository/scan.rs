//! Reads repositories: the one file here that touches the disk.
//!
//! Every answer is bounded (entries of a folder, bytes of a file) and nothing that lies in a
//! repository can make it fail as a whole or wait: a bad model is an entry with its reason.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use shared::id::{ModelName, ModelVersion};

use crate::config::{Config, Symlinks};

use super::convert::{ModelFile, read_manifest};
use super::error::{ScanError, ScanProblem};
use super::folder::{ModelFolder, VersionFolder, VersionProblem};
use super::manifest::{EngineKind, Manifest};

const CONFIG_FILE: &str = "config.pbtxt";
const MAX_CONFIG_BYTES: u64 = 1 << 20;
const MAX_REPOSITORY_ENTRIES: usize = 100_000;
const MAX_MODEL_ENTRIES: usize = 10_000;

/// Everything that all repositories hold.
#[derive(Debug, Default)]
pub struct Scan {
    pub models: BTreeMap<ModelName, Result<ModelFolder, ScanError>>,
    /// What is wrong with no model in particular.
    pub problems: Vec<ScanProblem>,
}

/// Where to look, and how far.
#[derive(Clone, Debug)]
pub struct Scanner {
    repositories: Vec<PathBuf>,
    symlinks: Symlinks,
    max_models: usize,
}

impl Scanner {
    pub fn new(config: &Config) -> Self {
        Self {
            repositories: config.repository.paths.clone(),
            symlinks: config.repository.symlinks,
            max_models: usize::try_from(config.limits.max_models).unwrap_or(usize::MAX),
        }
    }

    /// Reads every repository.
    pub fn scan(&self) -> Scan {
        let mut scan = Scan::default();
        let mut places: BTreeMap<ModelName, Vec<Place>> = BTreeMap::new();
        for root in self.roots(&mut scan.problems) {
            for name in names(&root, &mut scan.problems) {
                let place = Place::new(&root, &name, self.symlinks);
                places.entry(name).or_default().push(place);
            }
        }
        let count = places.len().saturating_sub(self.max_models);
        if count > 0 {
            scan.problems.push(ScanProblem::TooManyModels { count, limit: self.max_models });
        }
        let kept = places.into_iter().take(self.max_models);
        scan.models = kept.map(|(name, places)| (name.clone(), read(name, &places))).collect();
        scan
    }

    /// Reads one model, as it is on disk now.
    pub fn scan_one(&self, name: &ModelName) -> Result<ModelFolder, ScanError> {
        let roots = self.roots(&mut Vec::new()).into_iter();
        let places = roots.map(|root| Place::new(&root, name, self.symlinks));
        let places: Vec<Place> = places.filter(|place| place.path.is_dir()).collect();
        read(name.clone(), &places)
    }

    /// The repositories as they really are, each once.
    fn roots(&self, problems: &mut Vec<ScanProblem>) -> Vec<PathBuf> {
        let mut roots = Vec::new();
        for path in &self.repositories {
            match path.canonicalize() {
                Ok(root) if roots.contains(&root) => {}
                Ok(root) => roots.push(root),
                Err(source) => {
                    problems.push(ScanProblem::Repository { path: path.clone(), source });
                }
            }
        }
        roots
    }
}

/// The models that a repository seems to hold, by the names of its folders.
fn names(root: &Path, problems: &mut Vec<ScanProblem>) -> Vec<ModelName> {
    let entries = match entries(root, MAX_REPOSITORY_ENTRIES) {
        Ok(Entries::All(entries)) => entries,
        Ok(Entries::TooMany) => {
            let (path, limit) = (root.to_owned(), MAX_REPOSITORY_ENTRIES);
            problems.push(ScanProblem::TooManyEntries { path, limit });
            return Vec::new();
        }
        Err(source) => {
            problems.push(ScanProblem::Repository { path: root.to_owned(), source });
            return Vec::new();
        }
    };
    let mut names = Vec::new();
    for entry in entries {
        let path = root.join(&entry);
        // Files beside the models, and what begins with a dot, are not meant to be models.
        if entry.as_encoded_bytes().starts_with(b".") || !path.is_dir() {
            continue;
        }
        let name = entry.to_str().ok_or_else(|| "its name is not UTF-8".to_owned());
        match name.and_then(|name| ModelName::new(name).map_err(|invalid| invalid.to_string())) {
            Ok(name) => names.push(name),
            Err(reason) => problems.push(ScanProblem::Name { path, reason }),
        }
    }
    names
}

/// Where one model lies in one repository.
#[derive(Debug)]
struct Place {
    root: PathBuf,
    path: PathBuf,
    symlinks: Symlinks,
}

impl Place {
    fn new(root: &Path, name: &ModelName, symlinks: Symlinks) -> Self {
        Self { root: root.to_owned(), path: root.join(name.as_str()), symlinks }
    }

    /// Where `path` really is, if that is in this repository or may be elsewhere.
    fn resolve(&self, path: &Path) -> Result<PathBuf, Unresolved> {
        let real = path.canonicalize().map_err(Unresolved::Io)?;
        match self.symlinks {
            Symlinks::Inside if !real.starts_with(&self.root) => Err(Unresolved::Escapes),
            Symlinks::Inside | Symlinks::Follow => Ok(real),
        }
    }
}

enum Unresolved {
    Escapes,
    Io(io::Error),
}

fn read(name: ModelName, places: &[Place]) -> Result<ModelFolder, ScanError> {
    let place = match places {
        [] => return Err(ScanError::NotFound),
        [place] => place,
        places => {
            let paths = places.iter().map(|place| place.path.clone()).collect();
            return Err(ScanError::Duplicate(paths));
        }
    };
    let path = place.resolve(&place.path).map_err(|unresolved| match unresolved {
        Unresolved::Escapes => ScanError::Escapes(place.path.clone()),
        Unresolved::Io(error) => ScanError::List(error),
    })?;
    let versions = version_numbers(&path)?;
    let default = EngineKind::Torch.default_filename().unwrap_or_default();
    let has_file = |version: &ModelVersion| path.join(version.to_string()).join(default).is_file();
    let file =
        if versions.iter().any(has_file) { ModelFile::TorchScript } else { ModelFile::Unknown };
    let manifest = read_config(place, &path, &name, file)?;
    let versions =
        versions.into_iter().map(|version| version_folder(place, &path, version, &manifest));
    Ok(ModelFolder { name, versions: versions.collect(), path, manifest })
}

fn read_config(
    place: &Place,
    folder: &Path,
    name: &ModelName,
    file: ModelFile,
) -> Result<Manifest, ScanError> {
    let path = folder.join(CONFIG_FILE);
    match (path.symlink_metadata(), file) {
        (Err(e), ModelFile::TorchScript) if e.kind() == io::ErrorKind::NotFound => {
            return Ok(Manifest::of_torch_file());
        }
        (Err(e), ModelFile::Unknown) if e.kind() == io::ErrorKind::NotFound => {
            return Err(ScanError::NoConfig);
        }
        (Err(e), _) => return Err(ScanError::ReadConfig(e)),
        (Ok(_), _) => {}
    }
    let real = place.resolve(&path).map_err(|unresolved| match unresolved {
        Unresolved::Escapes => ScanError::Escapes(path),
        Unresolved::Io(error) => ScanError::ReadConfig(error),
    })?;
    read_manifest(&read_text(&real)?, name, file).map_err(ScanError::Manifest)
}

fn read_text(path: &Path) -> Result<String, ScanError> {
    // Opening a pipe would otherwise wait for its writer.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let file = file.map_err(ScanError::ReadConfig)?;
    if !file.metadata().map_err(ScanError::ReadConfig)?.is_file() {
        return Err(ScanError::ConfigNotAFile);
    }
    let mut bytes = Vec::new();
    file.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut bytes).map_err(ScanError::ReadConfig)?;
    if bytes.len() as u64 > MAX_CONFIG_BYTES {
        return Err(ScanError::ConfigTooLarge(MAX_CONFIG_BYTES));
    }
    String::from_utf8(bytes).map_err(|_| ScanError::ConfigNotText)
}

/// Folders with the name of a version, ascending; everything else is ignored, as Triton does.
fn version_numbers(folder: &Path) -> Result<Vec<ModelVersion>, ScanError> {
    let entries = match entries(folder, MAX_MODEL_ENTRIES).map_err(ScanError::List)? {
        Entries::All(entries) => entries,
        Entries::TooMany => return Err(ScanError::TooManyEntries(MAX_MODEL_ENTRIES)),
    };
    let folders = entries.into_iter().filter(|entry| folder.join(entry).is_dir());
    let mut versions: Vec<ModelVersion> =
        folders.filter_map(|entry| ModelVersion::parse(entry.to_str()?)).collect();
    versions.sort_unstable();
    Ok(versions)
}

fn version_folder(
    place: &Place,
    model: &Path,
    version: ModelVersion,
    manifest: &Manifest,
) -> VersionFolder {
    let path = model.join(version.to_string());
    let problem = version_problem(place, &path, version, manifest);
    // One that cannot be resolved has a problem, and is not opened.
    let path = place.resolve(&path).unwrap_or(path);
    VersionFolder { version, path, problem }
}

fn version_problem(
    place: &Place,
    folder: &Path,
    version: ModelVersion,
    manifest: &Manifest,
) -> Option<VersionProblem> {
    if place.resolve(folder).is_err() {
        return Some(VersionProblem::Escapes(folder.to_owned()));
    }
    let filename = manifest.filename.clone()?;
    let file = folder.join(&filename);
    match place.resolve(&file) {
        Ok(real) if real.is_file() => None,
        Ok(_) => Some(VersionProblem::NotAFile { version, filename }),
        Err(Unresolved::Escapes) => Some(VersionProblem::Escapes(file)),
        Err(Unresolved::Io(_)) => Some(VersionProblem::NoFile { version, filename }),
    }
}

enum Entries {
    All(Vec<OsString>),
    TooMany,
}

/// The names in a folder, sorted, so that what a bound leaves out does not depend on the disk.
fn entries(folder: &Path, limit: usize) -> io::Result<Entries> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        if names.len() == limit {
            return Ok(Entries::TooMany);
        }
        names.push(entry?.file_name());
    }
    names.sort_unstable();
    Ok(Entries::All(names))
}
