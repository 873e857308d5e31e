//! What a request asks for beside its echo: one word, then its arguments.
//!
//! ```text
//! identity                nothing; also the empty text
//! delay 50ms              answer later (us, ms, s)
//! fail TEXT               an error of the model
//! invalid TEXT            an error of the client
//! oom                     an error that says that memory ran out
//! crash segv|abort|kill   end by this signal
//! crash exit N            end with this code; N may be left out and is then 0
//! hang                    compute for ever; SIGTERM still ends it (see ignore-term)
//! hang sleep              sleep for ever
//! stop                    stop by SIGSTOP
//! allocate 100MiB         touch memory (KiB, MiB, GiB), then free it
//! leak 100MiB             touch memory and keep it
//! grow N                  outputs are the inputs N times over
//! print TEXT              a line on stdout, as libraries write them
//! ignore-term             ignore SIGTERM from now on
//! flood-stderr N          so many lines
//! flood-bell N            so many doorbells, needed or not
//! malformed-fact          a packet that is no fact
//! confined-again          a second report of its confinement
//! forge                   a completion of a request that this worker was not given
//! replay                  the completion before this one once more
//! scribble                overwrite all that this process can write in the response object; hang
//! close-socket            close the control socket; hang
//! unread                  never read the control socket again, and answer all the same
//! punch-hole WHICH        take pages out of the object of requests or responses; hang if that can be
//! truncate WHICH          change the size of the object of requests or responses
//! overwrite               write to the object of requests
//! fork-bomb N             processes until one is refused, or N; they stay
//! orphan                  a process that belongs to nobody, in a session of its own; it stays
//! threads N               threads until one is refused, or N; they stay
//! objects 100MiB          touch memory in shared objects and keep it, if none is refused
//! descriptors             open files until one is refused; they stay open
//! variable NAME           NAME=VALUE of the environment, as a line on stdout
//! device-allocate 100MiB  need so much of the device for this request
//! device-leak 100MiB      take so much of it and keep it
//! device-cache 100MiB     take so much of it and keep it until it is wanted back
//! device-fault            lose the device for good
//! device-late TEXT        an error of the model that shows only when the request is waited for
//! device-ahead            an error unless the inputs were prefetched
//! probe WHAT ...          try something that a confined worker must not be able to do: see [`Probe`]
//! ```

use std::time::Duration;

use crate::engine::echo::objects::{Damage, Object};
use crate::engine::echo::probe::Probe;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Identity,
    Delay(Duration),
    Fail(String),
    Invalid(String),
    OutOfMemory,
    Crash(Crash),
    Hang(Hang),
    Stop,
    Allocate(usize),
    Leak(usize),
    Grow(u32),
    Print(String),
    IgnoreTerm,
    FloodStderr(u64),
    Attack(Attack),
    /// What it would do to the memory that it shares with the supervisor.
    Damage(Damage),
    ForkBomb(u32),
    Orphan,
    Threads(u32),
    Objects(usize),
    Descriptors,
    /// Bytes that are written to the scratch folder, and whether their file keeps its name.
    Fill(usize, Name),
    Variable(String),
    /// An error where there is no device.
    Device(DeviceCommand),
    Probe(Probe),
}

/// What is done with a device that is only counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceCommand {
    Allocate(u64),
    Leak(u64),
    Cache(u64),
    Fault,
    Late(String),
    Ahead,
}

/// What a file is left with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    Kept,
    Removed,
}

/// What a hostile worker would do to the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    FloodBell(u64),
    MalformedFact,
    ConfinedAgain,
    Forge,
    Replay,
    Scribble,
    CloseSocket,
    Unread,
}

/// How a process ends itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    Segv,
    Abort,
    Kill,
    Exit(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hang {
    Busy,
    Sleep,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCommand {
    #[error("a command must be UTF-8")]
    NotText,
    #[error("there is no command {0:?}")]
    Unknown(String),
    #[error("{command:?} takes {takes}, not {given:?}")]
    Argument { command: &'static str, takes: &'static str, given: String },
}

impl Command {
    /// Reads the content of the `COMMAND` input.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidCommand> {
        let text = std::str::from_utf8(bytes).map_err(|_| InvalidCommand::NotText)?;
        let (word, argument) = split_word(text);
        match word {
            "" | "identity" => bare("identity", argument, Self::Identity),
            "delay" => argued("delay", "a time such as 50ms", argument, time).map(Self::Delay),
            "fail" => Ok(Self::Fail(argument.into())),
            "invalid" => Ok(Self::Invalid(argument.into())),
            "oom" => bare("oom", argument, Self::OutOfMemory),
            "crash" => {
                argued("crash", "segv, abort, kill or exit N", argument, crash).map(Self::Crash)
            }
            "hang" => argued("hang", "nothing or sleep", argument, hang).map(Self::Hang),
            "stop" => bare("stop", argument, Self::Stop),
            "allocate" => size("allocate", argument).map(Self::Allocate),
            "leak" => size("leak", argument).map(Self::Leak),
            "grow" => number("grow", argument).map(Self::Grow),
            "print" => Ok(Self::Print(argument.into())),
            "ignore-term" => bare("ignore-term", argument, Self::IgnoreTerm),
            "flood-stderr" => number("flood-stderr", argument).map(Self::FloodStderr),
            "flood-bell" => {
                number("flood-bell", argument).map(|bells| Self::Attack(Attack::FloodBell(bells)))
            }
            "probe" => argued("probe", "something to try", argument, Probe::parse).map(Self::Probe),
            "punch-hole" => object("punch-hole", argument).map(|o| Self::Damage(Damage::Hole(o))),
            "truncate" => object("truncate", argument).map(|o| Self::Damage(Damage::Size(o))),
            "overwrite" => bare("overwrite", argument, Self::Damage(Damage::Requests)),
            "fork-bomb" => number("fork-bomb", argument).map(Self::ForkBomb),
            "orphan" => bare("orphan", argument, Self::Orphan),
            "threads" => number("threads", argument).map(Self::Threads),
            "objects" => size("objects", argument).map(Self::Objects),
            "descriptors" => bare("descriptors", argument, Self::Descriptors),
            "fill" => size("fill", argument).map(|bytes| Self::Fill(bytes, Name::Kept)),
            "fill-unnamed" => {
                size("fill-unnamed", argument).map(|bytes| Self::Fill(bytes, Name::Removed))
            }
            "variable" => Ok(Self::Variable(argument.into())),
            word if word.starts_with("device-") => device(word, argument).map(Self::Device),
            word => attack(word, argument),
        }
    }
}

fn device(word: &str, argument: &str) -> Result<DeviceCommand, InvalidCommand> {
    let bytes = |command| size(command, argument).map(|bytes| bytes as u64);
    let bare = |command, parsed| {
        argued(command, "nothing", argument, |text| text.is_empty().then_some(parsed))
    };
    match word {
        "device-allocate" => bytes("device-allocate").map(DeviceCommand::Allocate),
        "device-leak" => bytes("device-leak").map(DeviceCommand::Leak),
        "device-cache" => bytes("device-cache").map(DeviceCommand::Cache),
        "device-fault" => bare("device-fault", DeviceCommand::Fault),
        "device-late" => Ok(DeviceCommand::Late(argument.into())),
        "device-ahead" => bare("device-ahead", DeviceCommand::Ahead),
        unknown => Err(InvalidCommand::Unknown(unknown.into())),
    }
}

fn attack(word: &str, argument: &str) -> Result<Command, InvalidCommand> {
    let (command, attack) = match word {
        "malformed-fact" => ("malformed-fact", Attack::MalformedFact),
        "confined-again" => ("confined-again", Attack::ConfinedAgain),
        "forge" => ("forge", Attack::Forge),
        "replay" => ("replay", Attack::Replay),
        "scribble" => ("scribble", Attack::Scribble),
        "close-socket" => ("close-socket", Attack::CloseSocket),
        "unread" => ("unread", Attack::Unread),
        unknown => return Err(InvalidCommand::Unknown(unknown.into())),
    };
    bare(command, argument, Command::Attack(attack))
}

fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

fn bare(command: &'static str, argument: &str, parsed: Command) -> Result<Command, InvalidCommand> {
    argued(command, "nothing", argument, |text| text.is_empty().then_some(parsed))
}

fn number<T: std::str::FromStr>(command: &'static str, text: &str) -> Result<T, InvalidCommand> {
    argued(command, "a number", text, |text| text.parse().ok())
}

fn size(command: &'static str, text: &str) -> Result<usize, InvalidCommand> {
    argued(command, "a size such as 100MiB", text, bytes)
}

fn object(command: &'static str, text: &str) -> Result<Object, InvalidCommand> {
    argued(command, "requests or responses", text, |text| match text {
        "requests" => Some(Object::Requests),
        "responses" => Some(Object::Responses),
        _ => None,
    })
}

fn argued<T>(
    command: &'static str,
    takes: &'static str,
    text: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, InvalidCommand> {
    let error = || InvalidCommand::Argument { command, takes, given: text.into() };
    parse(text).ok_or_else(error)
}

fn time(text: &str) -> Option<Duration> {
    let (number, unit) = quantity(text)?;
    match unit {
        "us" => Some(Duration::from_micros(number)),
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        _ => None,
    }
}

fn bytes(text: &str) -> Option<usize> {
    let (number, unit) = quantity(text)?;
    let scale = match unit {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    usize::try_from(number).ok()?.checked_mul(scale)
}

fn quantity(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit))
}

/// Also the value of the `load_crash` parameter.
pub(super) fn crash(text: &str) -> Option<Crash> {
    match split_word(text) {
        ("segv", "") => Some(Crash::Segv),
        ("abort", "") => Some(Crash::Abort),
        ("kill", "") => Some(Crash::Kill),
        ("exit", "") => Some(Crash::Exit(0)),
        ("exit", code) => code.parse().ok().map(Crash::Exit),
        _ => None,
    }
}

fn hang(text: &str) -> Option<Hang> {
    match text {
        "" => Some(Hang::Busy),
        "sleep" => Some(Hang::Sleep),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::Pid;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_command_is_understood() {
        let cases = [
            ("", Command::Identity),
            ("identity", Command::Identity),
            ("delay 50ms", Command::Delay(Duration::from_millis(50))),
            ("delay 7us", Command::Delay(Duration::from_micros(7))),
            ("fail out of cheese", Command::Fail("out of cheese".into())),
            ("invalid shape", Command::Invalid("shape".into())),
            ("oom", Command::OutOfMemory),
            ("crash segv", Command::Crash(Crash::Segv)),
            ("crash abort", Command::Crash(Crash::Abort)),
            ("crash kill", Command::Crash(Crash::Kill)),
            ("crash exit", Command::Crash(Crash::Exit(0))),
            ("crash exit 7", Command::Crash(Crash::Exit(7))),
            ("hang", Command::Hang(Hang::Busy)),
            ("hang sleep", Command::Hang(Hang::Sleep)),
            ("stop", Command::Stop),
            ("allocate 100MiB", Command::Allocate(100 << 20)),
            ("leak 1GiB", Command::Leak(1 << 30)),
            ("objects 1MiB", Command::Objects(1 << 20)),
            ("threads 9", Command::Threads(9)),
            ("fill 1MiB", Command::Fill(1 << 20, Name::Kept)),
            ("fill-unnamed 1MiB", Command::Fill(1 << 20, Name::Removed)),
            ("grow 3", Command::Grow(3)),
            ("print a  b", Command::Print("a  b".into())),
            ("ignore-term", Command::IgnoreTerm),
            ("flood-stderr 9", Command::FloodStderr(9)),
            ("flood-bell 9", Command::Attack(Attack::FloodBell(9))),
            ("malformed-fact", Command::Attack(Attack::MalformedFact)),
            ("forge", Command::Attack(Attack::Forge)),
            ("scribble", Command::Attack(Attack::Scribble)),
            ("replay", Command::Attack(Attack::Replay)),
            ("unread", Command::Attack(Attack::Unread)),
            ("punch-hole responses", Command::Damage(Damage::Hole(Object::Responses))),
            ("truncate requests", Command::Damage(Damage::Size(Object::Requests))),
            ("overwrite", Command::Damage(Damage::Requests)),
            ("fork-bomb 9", Command::ForkBomb(9)),
            ("variable TMPDIR", Command::Variable("TMPDIR".into())),
            ("device-allocate 1MiB", Command::Device(DeviceCommand::Allocate(1 << 20))),
            ("device-leak 1MiB", Command::Device(DeviceCommand::Leak(1 << 20))),
            ("device-cache 1MiB", Command::Device(DeviceCommand::Cache(1 << 20))),
            ("device-fault", Command::Device(DeviceCommand::Fault)),
            ("device-late now", Command::Device(DeviceCommand::Late("now".into()))),
            ("device-ahead", Command::Device(DeviceCommand::Ahead)),
            ("probe read /a b", Command::Probe(Probe::Read("/a b".into()))),
            ("probe kill 7", Command::Probe(Probe::Kill(Pid::from_raw(7)))),
        ];
        for (text, command) in cases {
            assert_eq!(Command::parse(text.as_bytes()), Ok(command), "{text:?}");
        }
    }

    #[test]
    fn errors_say_what_is_taken() {
        let error = |text: &str| Command::parse(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(error("delay 5"), r#""delay" takes a time such as 50ms, not "5""#);
        assert_eq!(
            error("crash gently"),
            r#""crash" takes segv, abort, kill or exit N, not "gently""#
        );
        assert_eq!(error("oom now"), r#""oom" takes nothing, not "now""#);
        assert_eq!(error("explode"), r#"there is no command "explode""#);
        assert_eq!(Command::parse(&[0xff]), Err(InvalidCommand::NotText));
        assert!(Command::parse(b"leak 18446744073709551615GiB").is_err(), "overflow");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_command_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _command_or_error = Command::parse(&bytes);
        }

        #[test]
        fn any_argument_is_taken_or_refused(
            word in "(delay|crash|hang|allocate|leak|threads|grow|flood-bell|forge|truncate|fork-bomb|probe|probe kill|probe tcp)", rest in ".{0,20}",
        ) {
            let _command_or_error = Command::parse(format!("{word} {rest}").as_bytes());
        }
    }
}
