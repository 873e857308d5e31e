//! Installing and removing: into a folder, and as a Debian package on a machine of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use supervisor::config::Config;
use tests::machine::Machine;
use tests::machine::{SERVICE, checkout};
use tests::supervisor::binaries;
use tests::{Client, Echo, skipped, torch_or_skip};

/// Runs a script of the checkout's on the built programs, into `root`.
fn install(root: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(checkout().join("scripts/install"));
    let command = command.args(arguments).arg("--root").arg(root);
    let output = command.output().expect("there is a bash");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn with_programs(root: &Path) -> Output {
    let programs = binaries();
    let programs = programs.to_str().expect("the path is text");
    install(root, &["--libtorch", "none", "--bin", programs])
}

/// Everything below a folder that is no folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder is ours").flatten();
    let inside = entries.map(|entry| entry.path()).flat_map(|path| {
        match path.is_symlink() || !path.is_dir() {
            true => vec![path],
            false => files(&path),
        }
    });
    let mut all: Vec<PathBuf> = inside.collect();
    all.sort();
    all
}

#[test]
fn what_is_installed_works_and_is_removed_to_the_last_folder() {
    let folder = tempfile::tempdir().expect("there is a folder for temporary files");
    let root = folder.path();
    with_programs(root);
    let program = root.join("usr/local/bin/bulkhead");
    let config = root.join("etc/bulkhead/config.toml");
    let checked = Command::new(&program).arg("check").arg(&config).output().expect("it runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let unit = fs::read_to_string(root.join("usr/local/lib/systemd/system/bulkhead.service"));
    assert!(unit.expect("it is there").contains("\nExecStart=/usr/local/bin/bulkhead serve "));
    for file in files(root) {
        let mode = fs::metadata(&file).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o022, 0, "others may write {}", file.display());
    }
    // Once more over it, and nothing of it stays.
    with_programs(root);
    install(root, &["--uninstall"]);
    assert_eq!(fs::read_dir(root).expect("the folder is ours").count(), 0);
}

#[test]
fn an_installation_replaces_what_runs_and_is_removed_with_it() {
    let test = "an_installation_replaces_what_runs_and_is_removed_with_it";
    let Some(models) = torch_or_skip("BULKHEAD_MODELS", test) else { return };
    let Some(machine) = Machine::installed_or_skip(test, &[("m", &Echo::default())]) else {
        return;
    };
    machine.run("systemctl enable --now bulkhead.socket bulkhead.service");
    let script = format!("{:?}/scripts/install", checkout());
    let again = format!("{script} --bin {:?} 2>&1", binaries());
    assert!(machine.run(&again).contains("systemctl restart bulkhead"));
    // Now with libtorch, which the service would not find in anybody's home. It is found by anybody who
    // looks for a server on this machine.
    let digits = models.join("digits");
    machine.run(&format!("cp -rL {digits:?} /var/lib/bulkhead/models/"));
    assert!(machine.run("cd / && bulkhead status").contains("ready"));
    machine.run("systemctl restart bulkhead");
    let status = machine.run("cd / && bulkhead status digits");
    assert!(status.contains("READY"), "{status}");
    // One that was stopped in the middle can be gone over, and nobody has edited the configuration.
    let broken = "d=$(mktemp -d) && cp \"$B\"/bulkhead* $d && mkdir -p /usr/local/share/man/man1/bulkhead.1.new";
    let broken = format!("B={:?}; {broken} && ! {script} --bin $d 2>/dev/null", binaries());
    machine.run(&broken);
    machine.run("rmdir /usr/local/share/man/man1/bulkhead.1.new");
    assert!(!machine.run(&again).contains("edited"));
    machine.run(&format!("{script} --uninstall"));
    let left = "! pgrep bulkhead && ! systemctl cat bulkhead.service 2>/dev/null && ! test -e /etc/bulkhead";
    machine.run(&format!(
        "{left} && ! test -e /usr/local/lib/bulkhead && test -d /var/lib/bulkhead/models/m"
    ));
}

/// systemd must not end what is still within its own limits.
#[test]
fn the_units_limits_are_longer_than_the_servers() {
    let unit = include_str!("../scripts/systemd/bulkhead.service");
    let config = Config::load(Some(&checkout().join("config.toml")), &[]).expect("it is good");
    assert!(unit.contains("\nTimeoutStopSec=45s\n") && unit.contains("\nTimeoutStartSec=6min\n"));
    // And for workers, their processes and folders.
    let ends = Duration::from_secs(10);
    let stop = config.shutdown.grace + config.shutdown.drain_timeout + ends;
    assert!(stop < Duration::from_secs(45));
    assert!(config.repository.required_timeout < Some(Duration::from_secs(6 * 60)));
}

#[test]
fn a_configuration_that_was_edited_is_nobody_elses() {
    let folder = tempfile::tempdir().expect("there is a folder for temporary files");
    let root = folder.path();
    let config = root.join("etc/bulkhead/config.toml");
    fs::create_dir_all(config.parent().expect("it is in a folder")).expect("the folder is ours");
    fs::write(&config, "# mine\n").expect("the folder is ours");
    let said = |output: Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let kept = format!("kept {}", config.display());
    assert!(said(with_programs(root)).contains(&kept));
    assert!(said(with_programs(root)).contains(&kept));
    assert!(said(install(root, &["--uninstall"])).contains(&kept));
    assert_eq!(files(root), std::slice::from_ref(&config));
    assert_eq!(fs::read_to_string(config).expect("it is there"), "# mine\n");
}

#[test]
fn a_package_is_installed_serves_and_is_removed() {
    let test = "a_package_is_installed_serves_and_is_removed";
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if !["dpkg-deb", "objcopy"].into_iter().all(has) {
        return skipped(test, "dpkg-deb or objcopy is not installed");
    }
    let Some(machine) = Machine::boot_or_skip(test) else { return };
    // The checkout can only be read there.
    let package = "/root/bulkhead.deb";
    machine.run(&format!("{:?}/scripts/package --bin {:?} --to {package}", checkout(), binaries()));
    let listed = machine.run(&format!("dpkg-deb -c {package}"));
    for wanted in CONTENT {
        assert!(listed.lines().any(|line| line.contains(wanted)), "{wanted} is not in\n{listed}");
    }
    machine.run(&format!("dpkg -i {package} && systemctl start {SERVICE}"));
    machine.inside(|| {
        Client::new(machine.address()).get("/v2/health/ready").assert_status(200).status
    });
    assert_eq!(machine.property("User"), "bulkhead");
    // Over one that runs, with a configuration that this one refuses: dpkg has done its part.
    machine.run("echo 'nonsense = 1' >>/etc/bulkhead/config.toml");
    machine.run(&format!(
        "dpkg -i --force-confold {package} && dpkg -s bulkhead | grep -q 'ok installed'"
    ));
    machine.run("dpkg -r bulkhead");
    machine.run(
        "! pgrep bulkhead && ! test -e /usr/bin/bulkhead && test -e /etc/bulkhead/config.toml",
    );
    machine.run("dpkg -P bulkhead && ! test -e /etc/bulkhead");
}

/// With owner and mode, as `dpkg-deb -c` lists it.
const CONTENT: [&str; 7] = [
    " ./usr/bin/bulkhead -> ../lib/bulkhead/bulkhead",
    " ./usr/lib/bulkhead/bulkhead-worker",
    " ./usr/lib/systemd/system/bulkhead.service",
    " ./usr/lib/systemd/system/bulkhead.socket",
    " ./usr/lib/sysusers.d/bulkhead.conf",
    " ./etc/bulkhead/config.toml",
    " ./usr/share/doc/bulkhead/copyright",
];
