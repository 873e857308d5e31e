//! Whether workers ended for what was done to them, and as what it was.
//!
//! Faults overlap, and one that is still at work in a truce may end its worker in the next round; so
//! an end is held against all that was done to its model in this round and in the one before.

use std::collections::BTreeSet;

use ::tests::logs::Logs;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::fleet::{TORCH_WITNESS, Victim, WITNESS};
use crate::journal::Pages;
use crate::schedule::{Change, Control, FILL, Fault, LEAK};

/// How far the log and the list of faults have been gone through.
#[derive(Debug, Default)]
pub(crate) struct Causes {
    lines: usize,
    /// The first fault of the round before, and of this one.
    rounds: (usize, usize),
}

impl Causes {
    /// After a round: an end that nothing of what was done explains.
    pub(crate) fn unexplained(
        &mut self,
        logs: &Logs,
        pages: &Pages,
        victims: &[Victim],
    ) -> Option<String> {
        let lines = logs.lines();
        let events = lines[self.lines..].iter().filter_map(|line| serde_json::from_str(line).ok());
        let exits = events.filter(|event: &Value| event["message"] == "worker exited");
        let faults: Vec<Fault> = pages.faults[self.rounds.0..].iter().map(|(_, f)| *f).collect();
        let strange = exits.into_iter().find(|exit| !is_explained(exit, &faults, victims));
        self.lines = lines.len();
        self.rounds = (self.rounds.1, pages.faults.len());
        strange.map(|exit| format!("nothing explains this end: {exit}"))
    }
}

fn is_explained(exit: &Value, faults: &[Fault], victims: &[Victim]) -> bool {
    let (model, kind) = (exit["model"].as_str(), exit["kind"].as_str().unwrap_or_default());
    if [Some(WITNESS), Some(TORCH_WITNESS)].contains(&model) {
        return false;
    }
    let Some(victim) = victims.iter().find(|victim| Some(victim.name()) == model) else {
        return false;
    };
    faults.iter().flat_map(|fault| ends(*fault, *victim)).chain(always(*victim)).any(|e| e == kind)
}

/// Of a model that nobody struck.
fn always(victim: Victim) -> BTreeSet<&'static str> {
    // On a machine that others keep busy a start takes as long as it takes.
    let mut ends = BTreeSet::from(["start_timeout"]);
    // What is down is loaded in a truce.
    if victim == Victim::Sleepy {
        ends.insert("retired");
    }
    ends
}

/// The kinds of ends that a fault may bring about in workers of `of`.
fn ends(fault: Fault, of: Victim) -> BTreeSet<&'static str> {
    let kinds: &[&str] = match fault {
        // A copy that its zygote could not tell of is lost, whoever's it was to be.
        Fault::Zygote(_) => &["spawn_failed"],
        // All that are down are loaded.
        Fault::Heal => &["retired"],
        Fault::Signal(victim, signal) if victim == of => by_signal(signal),
        Fault::Command(victim, command, _) if victim == of => by_command(command),
        Fault::Deaf(victim) if victim == of => &["hang"],
        Fault::Bomb(victim) if victim == of => &["SIGABRT", "quota"],
        Fault::Control(victim, Control::Unload | Control::Load | Control::Reload)
            if victim == of =>
        {
            &["retired"]
        }
        Fault::File(victim, Change::Fatal) if victim == of => &["retired", "SIGSEGV", "load_error"],
        Fault::File(victim, Change::Renewed | Change::Garbage) if victim == of => &["retired"],
        Fault::Signal(..)
        | Fault::Command(..)
        | Fault::Deaf(_)
        | Fault::Bomb(_)
        | Fault::Control(..)
        | Fault::File(..)
        | Fault::Client(..)
        | Fault::Malformed
        | Fault::Crowd => &[],
    };
    kinds.iter().copied().collect()
}

fn by_signal(signal: Signal) -> &'static [&'static str] {
    let named: [(Signal, &[&str]); 4] = [
        (Signal::SIGKILL, &["SIGKILL"]),
        (Signal::SIGSEGV, &["SIGSEGV"]),
        (Signal::SIGABRT, &["SIGABRT"]),
        (Signal::SIGTERM, &["SIGTERM"]),
    ];
    let found = named.iter().find(|(name, _)| *name == signal);
    // Stopped.
    found.map_or(&["hang"], |(_, kinds)| kinds)
}

fn by_command(command: &str) -> &'static [&'static str] {
    match command {
        "crash segv" => &["SIGSEGV"],
        "crash abort" => &["SIGABRT"],
        "crash kill" => &["SIGKILL"],
        "crash exit" => &["code 0"],
        "crash exit 3" => &["code 3"],
        "hang" | "hang sleep" | "stop" => &["hang"],
        "malformed-fact" | "forge" | "replay" => &["violation"],
        // What it leaves of the ring may also say that there is nothing new.
        "scribble" | "punch-hole responses" => &["violation", "hang"],
        "flood-bell 300000" => &["flood"],
        // With the next input that comes as an object of its own.
        "descriptors" => &["code 6"],
        LEAK => &["host_oom"],
        // Files in memory count as that.
        FILL => &["quota", "host_oom"],
        _harmless => &[],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schedule::Repeat;

    #[test]
    fn an_end_is_explained_by_what_was_done_to_that_model() {
        let exit = |model: &str, kind: &str| json!({"model": model, "kind": kind});
        let faults = [
            Fault::Signal(Victim::Plain, Signal::SIGKILL),
            Fault::Command(Victim::Exec, "hang", Repeat::Allowed),
        ];
        let explained = |model, kind| is_explained(&exit(model, kind), &faults, &Victim::ALL);
        assert!(explained("plain", "SIGKILL") && explained("exec", "hang"));
        assert!(!explained("plain", "hang") && !explained("exec", "SIGKILL"));
        assert!(explained("sleepy", "retired") && !explained("plain", "retired"));
        assert!(!explained(WITNESS, "SIGKILL") && !explained("nobody", "hang"));
    }
}
