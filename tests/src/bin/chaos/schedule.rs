//! Which fault comes when: a pure function of the seed and of which victims there are.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::dice::Dice;
use crate::fleet::{Engine, Victim};

/// A fault and how long after the one before it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) pause: Duration,
    pub(crate) fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// From outside, to one of the victim's workers.
    Signal(Victim, Signal),
    /// A request that has the worker do it.
    Command(Victim, &'static str, Repeat),
    /// SIGTERM is ignored from now on, and then comes a hang.
    Deaf(Victim),
    /// Processes without end, if they can be had, and then a crash that leaves them.
    Bomb(Victim),
    /// To all zygotes.
    Zygote(Signal),
    Control(Victim, Control),
    /// What is on disk changes, is loaded, is put right again and loaded again.
    File(Victim, Change),
    Client(Victim, Nuisance),
    Malformed,
    /// Many connections that say little.
    Crowd,
    /// Whatever is not loaded is loaded.
    Heal,
}

/// Whether the server may give the request to a second worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    Allowed,
    Forbidden,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Unload,
    Load,
    Reload,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Another configuration that is as good.
    Renewed,
    Garbage,
    /// The file is good, and its worker ends while it loads. A torch model has its file cut short.
    Fatal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nuisance {
    /// Several inputs at a time that fit no slot.
    LargeInputs,
    HangUpInBody,
    HangUpInAnswer,
    /// Some bytes now and then.
    SlowUpload,
    /// No more bytes.
    Stall,
}

const SIGNALS: [Signal; 5] =
    [Signal::SIGKILL, Signal::SIGSEGV, Signal::SIGABRT, Signal::SIGSTOP, Signal::SIGTERM];
const COMMANDS: [&str; 23] = [
    "crash segv",
    "crash abort",
    "crash kill",
    "crash exit",
    "crash exit 3",
    "hang",
    "hang sleep",
    "stop",
    "forge",
    "replay",
    "scribble",
    "punch-hole responses",
    "truncate requests",
    "truncate responses",
    "unread",
    "descriptors",
    "malformed-fact",
    "flood-bell 300000",
    "flood-stderr 5000",
    "fail on purpose",
    "oom",
    "grow 200000",
    "delay 700ms",
];
pub(crate) const LEAK: &str = "leak 300MiB";
pub(crate) const FILL: &str = "fill 64MiB";
const NUISANCES: [Nuisance; 5] = [
    Nuisance::LargeInputs,
    Nuisance::HangUpInBody,
    Nuisance::HangUpInAnswer,
    Nuisance::SlowUpload,
    Nuisance::Stall,
];

#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    dice: Dice,
    victims: Vec<Victim>,
}

impl Schedule {
    pub(crate) fn new(seed: u64, victims: &[Victim]) -> Self {
        Self { dice: Dice::new(seed), victims: victims.to_vec() }
    }

    pub(crate) fn next(&mut self) -> Step {
        let pause = Duration::from_millis(self.dice.between(20, 400));
        Step { pause, fault: self.fault() }
    }

    fn fault(&mut self) -> Fault {
        let victim = self.dice.pick(&self.victims);
        match self.dice.between(0, 100) {
            0..25 => Fault::Signal(victim, self.dice.pick(&SIGNALS)),
            25..60 => self.command(victim),
            60..64 => Fault::Zygote(self.dice.pick(&[Signal::SIGKILL, Signal::SIGSTOP])),
            64..72 => {
                let all = [Control::Unload, Control::Load, Control::Reload];
                Fault::Control(victim, self.dice.pick(&all))
            }
            72..77 => {
                let all = [Change::Renewed, Change::Garbage, Change::Fatal];
                Self::file(victim, self.dice.pick(&all))
            }
            77..90 => Fault::Client(victim, self.dice.pick(&NUISANCES)),
            90..92 => Fault::Malformed,
            92..94 => Fault::Crowd,
            _the_rest => Fault::Heal,
        }
    }

    /// Only the echo engine takes commands, and only a limit makes a leak or a full disk harmless.
    fn command(&mut self, victim: Victim) -> Fault {
        let repeat = self.dice.pick(&[Repeat::Allowed, Repeat::Forbidden]);
        match (victim.engine(), self.dice.between(0, 14)) {
            (Engine::Torch, _) => Fault::Signal(victim, self.dice.pick(&SIGNALS)),
            (Engine::Echo, 0) => Fault::Deaf(victim),
            (Engine::Echo, 1) => Fault::Command(Victim::Limited, LEAK, repeat),
            (Engine::Echo, 2) => Fault::Command(Victim::Limited, FILL, repeat),
            (Engine::Echo, 3) => Fault::Bomb(victim),
            (Engine::Echo, _) => Fault::Command(victim, self.dice.pick(&COMMANDS), repeat),
        }
    }

    /// A load is answered when its restarts are used up: where there are many, that takes minutes.
    fn file(victim: Victim, change: Change) -> Fault {
        match (victim.engine(), change) {
            (Engine::Echo, Change::Fatal) => Fault::File(Victim::Tight, change),
            (Engine::Echo | Engine::Torch, _) => Fault::File(victim, change),
        }
    }
}

impl Fault {
    /// Whether answers of this model may be anything from here on: its worker overwrites those that it
    /// has given and the server has not read yet.
    pub(crate) fn makes_liar_of(self, model: &str) -> bool {
        match self {
            Self::Command(victim, "scribble" | "forge" | "punch-hole responses", _) => {
                victim.name() == model
            }
            Self::Command(..)
            | Self::Signal(..)
            | Self::Deaf(_)
            | Self::Bomb(_)
            | Self::Zygote(_)
            | Self::Control(..)
            | Self::File(..)
            | Self::Client(..)
            | Self::Malformed
            | Self::Crowd
            | Self::Heal => false,
        }
    }

    /// What it is counted as.
    pub(crate) fn kind(self) -> String {
        match self {
            Self::Signal(_, signal) => signal.to_string(),
            Self::Command(_, command, _) => command.to_owned(),
            Self::Deaf(_) => "ignore-term, hang".to_owned(),
            Self::Bomb(_) => "fork-bomb, crash".to_owned(),
            Self::Zygote(signal) => format!("{signal} to the zygotes"),
            Self::Control(_, control) => format!("{control:?}"),
            Self::File(_, change) => format!("file: {change:?}"),
            Self::Client(_, nuisance) => format!("client: {nuisance:?}"),
            Self::Malformed => "malformed requests".to_owned(),
            Self::Crowd => "crowd of connections".to_owned(),
            Self::Heal => "load all".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn drawn(seed: u64) -> Vec<Step> {
        let mut schedule = Schedule::new(seed, &Victim::ALL);
        (0..3000).map(|_| schedule.next()).collect()
    }

    #[test]
    fn the_same_seed_draws_the_same_faults() {
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
    }

    #[test]
    fn every_kind_is_drawn() {
        let kinds: BTreeSet<String> = drawn(1).iter().map(|step| step.fault.kind()).collect();
        // Signals, commands, leak, fill, deaf, bomb, zygotes, control, files, clients, and three more.
        assert_eq!(kinds.len(), 5 + 23 + 4 + 2 + 3 + 3 + 5 + 3, "{kinds:?}");
    }

    #[test]
    fn only_the_limited_one_leaks_or_fills_and_torch_takes_no_commands() {
        for step in drawn(2) {
            if let Fault::Command(victim, command, _) = step.fault {
                assert_eq!(victim.engine(), Engine::Echo);
                assert!(![LEAK, FILL].contains(&command) || victim == Victim::Limited);
            }
        }
    }
}
