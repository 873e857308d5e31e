use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use super::*;

const CONTAINER: &str = "pid:[4026532001]";

/// A `/proc` of the test's own.
struct Proc(tempfile::TempDir);

impl Proc {
    /// Of a process with these numbers, in this namespace.
    fn new(own: &[u32], namespace: &str) -> Self {
        let proc = Self(tempfile::tempdir().unwrap());
        proc.process("self", 1, own, namespace);
        proc
    }

    fn process(&self, name: &str, parent: u32, numbers: &[u32], namespace: &str) {
        let folder = self.0.path().join(name);
        fs::create_dir_all(folder.join("ns")).unwrap();
        fs::create_dir(folder.join("fd")).unwrap();
        let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        let numbers = numbers.join("\t");
        // A name that tries to be a line of its own; the kernel writes its line break so.
        let status =
            format!("Name:\tevil\\nPPid:\t7\nPPid:\t{parent}\nNSpid:\t{numbers}\nVmRSS: 1\n");
        fs::write(folder.join("status"), status).unwrap();
        symlink(namespace, folder.join("ns/pid")).unwrap();
    }

    fn opens(&self, name: &str, file: &str) {
        symlink(file, self.0.path().join(name).join("fd/3")).unwrap();
    }

    fn kin(&self, number: u32, pid: i32) -> Kinship {
        View::of(self.0.path(), |_| false).kin(number, &|other| other == pid)
    }
}

#[test]
fn in_the_initial_namespace_numbers_are_what_they_say() {
    let proc = Proc::new(&[10], INITIAL);
    proc.process("20", 10, &[20], INITIAL);
    proc.process("30", 1, &[30], INITIAL);
    proc.process("1", 0, &[1], INITIAL);
    assert_eq!(proc.kin(20, 20), Kinship::Of(20));
    assert_eq!(proc.kin(30, 20), Kinship::Stranger);
    assert_eq!(proc.kin(40, 20), Kinship::Gone);
    assert_eq!(proc.kin(u32::MAX, 20), Kinship::Gone);
    assert_eq!(proc.kin(0, 0), Kinship::Unknown);
}

#[test]
fn a_grandchild_in_namespaces_of_its_own_is_found_from_below() {
    let proc = Proc::new(&[10], INITIAL);
    proc.process("20", 10, &[20], INITIAL);
    proc.process("21", 20, &[21, 1], CONTAINER);
    proc.process("22", 21, &[22, 2], CONTAINER);
    assert_eq!(proc.kin(22, 20), Kinship::Of(20));
    // Its number in there is somebody else's out here.
    assert_ne!(proc.kin(22, 2), Kinship::Of(2));
}

#[test]
fn a_chain_without_an_end_is_given_up() {
    let proc = Proc::new(&[10], INITIAL);
    proc.process("20", 21, &[20], INITIAL);
    proc.process("21", 20, &[21], INITIAL);
    assert_eq!(proc.kin(20, 99), Kinship::Unknown);
}

#[test]
fn a_parent_that_went_while_we_looked_leaves_it_open() {
    let proc = Proc::new(&[10], INITIAL);
    proc.process("20", 19, &[20], INITIAL);
    assert_eq!(proc.kin(20, 99), Kinship::Unknown);
}

#[test]
fn a_process_that_is_hidden_lives() {
    let proc = Proc::new(&[10], INITIAL);
    let view = View::of(proc.0.path(), |pid| pid == 50);
    assert_eq!(view.kin(50, &|_| false), Kinship::Stranger);
    assert_eq!(view.kin(51, &|_| false), Kinship::Gone);
}

#[test]
fn with_the_hosts_proc_numbers_are_translated() {
    let proc = Proc::new(&[5000, 10], CONTAINER);
    proc.process("1", 0, &[1], INITIAL);
    proc.process("5010", 5000, &[5010, 20], CONTAINER);
    proc.process("5011", 5010, &[5011, 21, 1], "pid:[4026532002]");
    // In another container, with the same number in there.
    proc.process("6010", 1, &[6010, 20], "pid:[4026532003]");
    assert_eq!(proc.kin(5010, 20), Kinship::Of(20));
    assert_eq!(proc.kin(5011, 20), Kinship::Of(20));
    assert_eq!(proc.kin(6010, 20), Kinship::Stranger);
    assert_eq!(proc.kin(7000, 20), Kinship::Gone);
}

#[test]
fn a_proc_between_ours_and_the_hosts_tells_nothing() {
    let proc = Proc::new(&[50, 10], "pid:[4026532009]");
    proc.process("1", 0, &[1], CONTAINER);
    proc.process("60", 50, &[60, 20], "pid:[4026532009]");
    assert_eq!(proc.kin(60, 20), Kinship::Unknown);
}

#[test]
fn in_a_container_only_who_uses_a_device_is_ours_and_nobody_is_gone() {
    let proc = Proc::new(&[10], CONTAINER);
    proc.process("20", 10, &[20], CONTAINER);
    proc.process("21", 20, &[21, 1], "pid:[4026532002]");
    proc.process("30", 1, &[30], CONTAINER);
    proc.opens("30", "/dev/nvidia0");
    assert_eq!(proc.kin(20, 20), Kinship::Unknown);
    proc.opens("20", "/dev/nvidiactl");
    assert_eq!(proc.kin(20, 20), Kinship::Of(20));
    assert_eq!(proc.kin(21, 20), Kinship::Unknown);
    proc.opens("21", "/dev/nvidia-uvm");
    assert_eq!(proc.kin(21, 20), Kinship::Of(20));
    assert_eq!(proc.kin(30, 20), Kinship::Unknown);
    assert_eq!(proc.kin(99, 20), Kinship::Unknown);
}

/// Where the numbers of this machine's processes are those of its driver.
fn numbers_are_real() -> bool {
    View::of(Path::new("/proc"), lives).numbers == Numbers::OfProc
}

#[test]
fn real_processes_are_found() {
    if !numbers_are_real() {
        return;
    }
    let own = std::process::id();
    let pid = i32::try_from(own).unwrap();
    // It has a child of its own, and ends when its input does.
    let mut shell = Command::new("sh");
    let shell = shell.args(["-c", "exec 3<&0; cat <&3 & echo $!; wait"]);
    let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let child = i32::try_from(shell.id()).unwrap();
    let mut line = String::new();
    let mut output = std::io::BufReader::new(shell.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    let grandchild: u32 = line.trim().parse().unwrap();
    assert_eq!(kin(own, &|other| other == pid), Kinship::Of(pid));
    assert_eq!(kin(grandchild, &|other| other == child), Kinship::Of(child));
    assert_eq!(kin(grandchild, &|_| false), Kinship::Stranger);
    drop(shell.stdin.take());
    shell.kill().unwrap();
    shell.wait().unwrap();
    assert_eq!(kin(shell.id(), &|other| other == child), Kinship::Gone);
    let nobody = u32::try_from(i32::MAX).unwrap();
    assert_eq!(kin(nobody, &|_| true), Kinship::Gone);
}
