//! Limits that the driver itself holds on the control group of a worker.

use serde_json::Value;
use tests::{Release, Supervisor, skipped, wait};

use crate::stage::{GIB, Gpus, on_gpu, seat};

/// Whether this server has control groups of version 2; if not, says that `test` is skipped.
fn unified(server: &Supervisor, test: &str) -> bool {
    let not_hard = seat(server, "m", 1)["not_hard"].clone();
    let missing = not_hard.as_str().is_some_and(|why| why.contains("no control group"));
    if missing {
        skipped(test, "there are no control groups of version 2 to be had");
    }
    !missing
}

fn sets(gpus: &Gpus) -> Vec<Vec<String>> {
    let words = |line: &String| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    gpus.fake.log().iter().map(words).filter(|words| words[0] == "set").collect()
}

#[test]
fn a_limit_that_the_driver_confirms_is_hard_and_cleared_at_the_end() {
    let gpus = Gpus::of(Release::R615, &["GPU-a"]);
    let server = gpus.server().echo("m", &on_gpu()).start();
    if !unified(&server, "a_limit_that_the_driver_confirms_is_hard_and_cleared_at_the_end") {
        return;
    }
    assert_eq!(seat(&server, "m", 1)["enforcement"], "hard");
    let set = sets(&gpus);
    assert_eq!(set.len(), 1, "{set:?}");
    assert_eq!((set[0][1].as_str(), &set[0][4]), ("GPU-a", &(4 * GIB).to_string()));
    assert!(std::path::Path::new(&set[0][2]).is_dir(), "{set:?}");
    server.client().unload("m").assert_status(200);
    wait::until_true("a limit that is cleared", || {
        sets(&gpus).last().is_some_and(|set| set[3] == "0" && set[4] == u64::MAX.to_string())
    });
}

fn not_hard(gpus: &Gpus, test: &str) -> Option<(Supervisor, Value)> {
    let server = gpus.server().echo("m", &on_gpu()).start();
    unified(&server, test).then(|| {
        let seat = seat(&server, "m", 1);
        assert_ne!(seat["enforcement"], "hard");
        (server, seat["not_hard"].clone())
    })
}

#[test]
fn a_driver_without_limits_says_so() {
    let gpus = Gpus::new(&["GPU-a"]);
    let Some((_server, why)) = not_hard(&gpus, "a_driver_without_limits_says_so") else { return };
    assert!(why.as_str().unwrap().contains("R615"), "{why}");
}

#[test]
fn a_limit_that_is_refused_is_not_hard() {
    let gpus = Gpus::of(Release::R615, &["GPU-a"]);
    gpus.say(&gpus.idle().refuses_limits(4));
    let Some((_server, why)) = not_hard(&gpus, "a_limit_that_is_refused_is_not_hard") else {
        return;
    };
    assert!(why.as_str().unwrap().contains('4'), "{why}");
}

#[test]
fn a_limit_that_reads_back_as_something_else_is_cleared_and_not_hard() {
    let gpus = Gpus::of(Release::R615, &["GPU-a"]);
    gpus.say(&gpus.idle().reads_limits(0, GIB));
    let test = "a_limit_that_reads_back_as_something_else_is_cleared_and_not_hard";
    let Some((_server, why)) = not_hard(&gpus, test) else { return };
    assert!(why.as_str().unwrap().contains(&GIB.to_string()), "{why}");
    assert_eq!(sets(&gpus).last().unwrap()[4], u64::MAX.to_string());
}
