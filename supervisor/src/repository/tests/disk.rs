//! Repositories on disk: what is found, and what must not be followed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use shared::id::ModelName;
use tempfile::TempDir;

use crate::config::Config;
use crate::repository::*;

/// Repositories `a` and `b` and a folder `outside`, in a folder that goes away.
struct Disk(TempDir);

impl Disk {
    fn new() -> Self {
        let disk = Self(tempfile::tempdir().unwrap());
        for folder in ["a", "b", "outside"] {
            fs::create_dir(disk.path(folder)).unwrap();
        }
        disk
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(path)
    }

    fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn link(&self, target: &str, path: &str) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(self.path(target), path).unwrap();
        self
    }

    fn scanner(&self, settings: &str) -> Scanner {
        let file = self.path("c.toml");
        fs::write(&file, format!("repository.paths = [\"a\", \"b\", \"a/.\"]\n{settings}"))
            .unwrap();
        Scanner::new(&Config::load(Some(&file), &[]).unwrap())
    }

    fn scan(&self) -> Scan {
        self.scanner("").scan()
    }

    /// Each model with its versions, or with the reason.
    fn shown(&self) -> BTreeMap<String, String> {
        shown(&self.scan())
    }

    /// The reason with the temporary folder left out.
    fn reason(&self, model: &str) -> String {
        self.shown()[model].replace(&*self.path("").to_string_lossy(), "")
    }
}

fn shown(scan: &Scan) -> BTreeMap<String, String> {
    let show = |(name, result): (&ModelName, &Result<ModelFolder, ScanError>)| {
        let text = match result {
            Ok(folder) => folder.versions.iter().map(show_version).collect::<Vec<_>>().join(" "),
            Err(error) => error.reason(),
        };
        (name.to_string(), text)
    };
    scan.models.iter().map(show).collect()
}

fn show_version(folder: &VersionFolder) -> String {
    match &folder.problem {
        None => folder.version.to_string(),
        Some(problem) => format!("({problem})"),
    }
}

fn name(text: &str) -> ModelName {
    ModelName::new(text).unwrap()
}

const ECHO: &str = "backend: \"echo\"";

#[test]
fn models_and_their_versions_are_found() {
    let disk = Disk::new();
    disk.file("a/echo/config.pbtxt", ECHO).file("a/echo/1/x", "").file("a/echo/10/x", "");
    disk.file("a/echo/2/x", "")
        .file("a/echo/02/x", "")
        .file("a/echo/v3/x", "")
        .file("a/echo/7", "");
    disk.file("b/torch/1/model.pt", "").file("a/README", "").file("a/.git/config", "");
    let scan = disk.scan();
    let expected = [("echo", "1 2 10"), ("torch", "1")].map(|(a, b)| (a.into(), b.into()));
    assert_eq!(shown(&scan), expected.into());
    assert!(scan.problems.is_empty(), "{:?}", scan.problems);
    let folder = scan.models[&name("torch")].as_ref().unwrap();
    assert_eq!(folder.manifest, Manifest::of_torch_file());
    assert_eq!(folder.versions[0].path, disk.path("b/torch/1"));
    let one = disk.scanner("").scan_one(&name("torch")).unwrap();
    assert_eq!(&one, folder);
}

#[test]
fn one_bad_model_hides_no_other() {
    let disk = Disk::new();
    disk.file("a/good/config.pbtxt", ECHO).file("a/good/1/x", "");
    disk.file("a/typo/config.pbtxt", "bakend: \"echo\"").file("a/empty/1/x", "");
    disk.file("a/binary/config.pbtxt", [0xff, 0xfe]).file("a/folder/config.pbtxt/x", "");
    disk.file("a/huge/config.pbtxt", vec![b'#'; (1 << 20) + 1]);
    fs::create_dir(disk.path("a/pipe")).unwrap();
    mkfifo(&disk.path("a/pipe/config.pbtxt"), Mode::S_IRWXU).unwrap();
    let expected = [
        ("binary", "config.pbtxt is not UTF-8"),
        ("empty", "it has no config.pbtxt, and no version of it has a model.pt to learn from"),
        ("folder", "config.pbtxt is not a regular file"),
        ("good", "1"),
        ("huge", "config.pbtxt has more than 1048576 bytes"),
        ("pipe", "config.pbtxt is not a regular file"),
        (
            "typo",
            "config.pbtxt: line 1: field 'bakend' not found for message 'ModelConfig' (in `bakend: \
             \"echo\"`)",
        ),
    ];
    assert_eq!(disk.shown(), expected.map(|(a, b)| (a.into(), b.into())).into());
}

#[test]
fn versions_without_their_file_say_so() {
    let disk = Disk::new();
    disk.file("a/m/config.pbtxt", "backend: \"pytorch\" default_model_filename: \"net.pt\"");
    disk.file("a/m/1/net.pt", "").file("a/m/2/model.pt", "").file("a/m/3/net.pt/x", "");
    assert_eq!(
        disk.reason("m"),
        "1 (the folder of version 2 has no file net.pt) (net.pt of version 3 is not a regular file)"
    );
}

#[test]
fn a_model_in_two_repositories_is_served_from_neither() {
    let disk = Disk::new();
    disk.file("a/m/config.pbtxt", ECHO).file("b/m/config.pbtxt", ECHO);
    assert_eq!(disk.reason("m"), "more than one repository holds it: a/m, b/m");
    let one = disk.scanner("").scan_one(&name("m"));
    assert!(matches!(one, Err(ScanError::Duplicate(paths)) if paths.len() == 2));
}

#[test]
fn links_do_not_leave_their_repository() {
    let disk = Disk::new();
    disk.file("outside/config.pbtxt", ECHO).file("outside/1/model.pt", "").file("a/real/1/x", "");
    disk.link("outside", "a/model").link("outside/config.pbtxt", "a/config/config.pbtxt");
    disk.file("a/inside/config.pbtxt", ECHO).link("a/real/1", "a/inside/1");
    disk.file("a/version/config.pbtxt", ECHO).link("outside/1", "a/version/1");
    disk.link("outside/1/model.pt", "a/file/1/model.pt").link("nowhere", "a/dangling/config.pbtxt");
    let out = " leaves the repository through a symbolic link";
    assert_eq!(disk.reason("model"), format!("a/model{out}"));
    assert_eq!(disk.reason("config"), format!("a/config/config.pbtxt{out}"));
    assert_eq!(disk.reason("version"), format!("(a/version/1{out})"));
    assert_eq!(disk.reason("file"), format!("(a/file/1/model.pt{out})"));
    assert_eq!(disk.reason("inside"), "1");
    assert!(disk.reason("dangling").starts_with("config.pbtxt cannot be read: No such file"));
}

#[test]
fn links_may_be_followed_where_the_operator_says_so() {
    let disk = Disk::new();
    disk.file("outside/config.pbtxt", ECHO).file("outside/1/model.pt", "").link("outside", "a/m");
    let scanner = disk.scanner("repository.follow_symlinks = true");
    let folder = scanner.scan_one(&name("m")).unwrap();
    assert_eq!((folder.versions.len(), folder.path), (1, disk.path("outside")));
}

#[test]
fn folders_that_cannot_be_models_are_problems_not_failures() {
    let disk = Disk::new();
    disk.file("a/m/config.pbtxt", ECHO).file("a/a b/config.pbtxt", ECHO).file("a/-rf/x", "");
    fs::create_dir(disk.path("a").join(OsStr::from_bytes(b"\xff\xfe"))).unwrap();
    let scan = disk.scan();
    let problems: Vec<String> = scan.problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems.iter().any(|p| p.ends_with("its name is not UTF-8")));
    assert!(problems.iter().any(|p| p.contains("-rf is not a model: a model name must not start")));
    assert_eq!(scan.models.len(), 1);
}

#[test]
fn a_missing_repository_is_a_problem_and_a_missing_model_an_error() {
    let disk = Disk::new();
    disk.file("b/m/config.pbtxt", ECHO);
    fs::remove_dir(disk.path("a")).unwrap();
    let scan = disk.scan();
    assert!(scan.problems[0].to_string().ends_with("/a cannot be read"));
    assert_eq!(scan.models.len(), 1);
    assert!(matches!(disk.scanner("").scan_one(&name("x")), Err(ScanError::NotFound)));
}

#[test]
fn what_is_over_the_limit_of_models_is_counted() {
    let disk = Disk::new();
    disk.file("a/m1/config.pbtxt", ECHO).file("b/m2/config.pbtxt", ECHO).file("a/m3/x", "");
    let scan = disk.scanner("limits.max_models = 2").scan();
    assert_eq!(shown(&scan).into_keys().collect::<Vec<_>>(), ["m1", "m2"]);
    assert_eq!(
        scan.problems[0].to_string(),
        "1 models are left out, because limits.max_models is 2"
    );
}

#[test]
fn no_name_reaches_outside() {
    let disk = Disk::new();
    disk.file("outside/config.pbtxt", ECHO);
    for trick in ["../outside", "/etc", "..", ".", "a/../../outside", "a\0b", ""] {
        assert!(ModelName::new(trick).is_err(), "{trick:?}");
    }
}
