//! Orphans that come back to a process which has asked for them. A test program of its own, with one
//! test: every child that it has not entered is ended.

use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use supervisor::process::{Family, Swept};

fn is_there(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

#[tokio::test]
async fn orphans_are_ended_and_children_are_not() {
    Family::take_orphans().unwrap();
    let family = Arc::new(Family::default());
    let pid = |child: &std::process::Child| i32::try_from(child.id()).unwrap();
    let sleeper = || Command::new("sleep").arg("600").spawn();
    let (mut ours, _member) = family.start(sleeper, pid).unwrap();

    // A shell that ends at once and leaves two processes in sessions of their own, one below the other.
    let script = "setsid sh -c 'sleep 600 & echo $! $$; wait' & read -r never <&-; exit 0";
    let shell = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let shell_of = pid(&shell);
    let (mut shell, member) = family.start(|| Ok::<_, Errno>(shell), |_| shell_of).unwrap();
    let mut line = String::new();
    let output = shell.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
    shell.wait().unwrap();
    drop(member);
    let left: Vec<i32> = line.split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert_eq!((left.len(), left.iter().all(|&pid| is_there(pid))), (2, true));

    assert_eq!(family.end_strays().await, Swept::Clean);
    assert!(left.iter().all(|&pid| !is_there(pid)), "{left:?}");
    assert!(ours.try_wait().unwrap().is_none());
    ours.kill().unwrap();
    ours.wait().unwrap();
}
