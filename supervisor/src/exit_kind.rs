//! The kinds of ends that a worker can come to, and their names; pure.
//!
//! Owns the vocabulary of logs, metrics, the repository index and the configuration. Which end is
//! of which kind is told by `lifecycle::classify`.
//!
//! | name | a worker that |
//! |---|---|
//! | `clean` | ended with the server, as it was asked to |
//! | `retired` | was ended because nobody wanted its model, or nobody used it |
//! | `load_error` | could not load its model |
//! | `start_timeout` | gave no sign of life in time, or did not load in time |
//! | `hang` | was ended because it had work and made no progress |
//! | `host_oom` | was ended for host memory |
//! | `device_oom` | had no device memory to go on with |
//! | `device_fault` | was refused by its device from some moment on |
//! | `signal` | was ended by a signal that is not ours, shown by its name |
//! | `code` | exited by itself, shown with its code; 0 is one of them, for nobody had asked it to |
//! | `violation` | did what no honest worker does |
//! | `flood` | sent more than an honest worker can |
//! | `quota` | was ended because it used more than its quota |
//! | `spawn_failed` | never ran |
//! | `unknown` | is gone, and the kernel did not say how |

use std::fmt;
use std::str::FromStr;

use nix::sys::signal::Signal;

/// How a worker came to its end. The order is that of the names in the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExitKind {
    Clean,
    Retired,
    LoadError,
    StartTimeout,
    Hang,
    HostOom,
    DeviceOom,
    DeviceFault,
    /// By number, 1 to 64.
    Signal(i32),
    /// 0 to 255.
    Code(i32),
    Violation,
    Flood,
    Quota,
    SpawnFailed,
    Unknown,
}

/// One kind, or all signals, or all codes: as a configuration names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitPattern {
    Kind(ExitKind),
    AnySignal,
    AnyCode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such kind of exit; expected {EXPECTED}")]
pub struct UnknownKind;

/// What [`ExitPattern::from_str`] takes, for messages.
pub const EXPECTED: &str = "\"load_error\", \"start_timeout\", \"hang\", \"host_oom\", \
     \"device_oom\", \"device_fault\", \"signal\" or the name of one as \"SIGSEGV\", \"code\" or \
     one as \"code 3\", \"violation\", \"flood\", \"quota\", \"spawn_failed\" or \"unknown\"";

/// The kinds that are named by a word alone.
const WORDS: [ExitKind; 13] = [
    ExitKind::Clean,
    ExitKind::Retired,
    ExitKind::LoadError,
    ExitKind::StartTimeout,
    ExitKind::Hang,
    ExitKind::HostOom,
    ExitKind::DeviceOom,
    ExitKind::DeviceFault,
    ExitKind::Violation,
    ExitKind::Flood,
    ExitKind::Quota,
    ExitKind::SpawnFailed,
    ExitKind::Unknown,
];

/// The highest signal of Linux.
const MAX_SIGNAL: i32 = 64;

impl ExitKind {
    /// A name that never changes and is one of a few: for labels of metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Retired => "retired",
            Self::LoadError => "load_error",
            Self::StartTimeout => "start_timeout",
            Self::Hang => "hang",
            Self::HostOom => "host_oom",
            Self::DeviceOom => "device_oom",
            Self::DeviceFault => "device_fault",
            Self::Signal(_) => "signal",
            Self::Code(_) => "code",
            Self::Violation => "violation",
            Self::Flood => "flood",
            Self::Quota => "quota",
            Self::SpawnFailed => "spawn_failed",
            Self::Unknown => "unknown",
        }
    }

    /// Whether memory ran out, of the host or of a device.
    #[must_use]
    pub fn is_out_of_memory(self) -> bool {
        matches!(self, Self::HostOom | Self::DeviceOom)
    }

    /// Whether it was meant to end, so that nothing is wrong.
    #[must_use]
    pub fn is_intended(self) -> bool {
        matches!(self, Self::Clean | Self::Retired)
    }
}

/// `SIGSEGV` for 11; `None` for what has no name, as real-time signals.
#[must_use]
pub fn signal_name(signal: i32) -> Option<&'static str> {
    Signal::try_from(signal).ok().map(Signal::as_str)
}

impl fmt::Display for ExitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => f.write_str(name),
                None => write!(f, "signal {signal}"),
            },
            Self::Code(code) => write!(f, "code {code}"),
            Self::Clean
            | Self::Retired
            | Self::LoadError
            | Self::StartTimeout
            | Self::Hang
            | Self::HostOom
            | Self::DeviceOom
            | Self::DeviceFault
            | Self::Violation
            | Self::Flood
            | Self::Quota
            | Self::SpawnFailed
            | Self::Unknown => f.write_str(self.label()),
        }
    }
}

impl ExitPattern {
    #[must_use]
    pub fn matches(self, kind: ExitKind) -> bool {
        match self {
            Self::Kind(only) => only == kind,
            Self::AnySignal => matches!(kind, ExitKind::Signal(_)),
            Self::AnyCode => matches!(kind, ExitKind::Code(_)),
        }
    }
}

impl fmt::Display for ExitPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => kind.fmt(f),
            Self::AnySignal => f.write_str("signal"),
            Self::AnyCode => f.write_str("code"),
        }
    }
}

impl FromStr for ExitPattern {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        if let Some(kind) = WORDS.into_iter().find(|kind| kind.label() == text) {
            return Ok(Self::Kind(kind));
        }
        let numbered = |word: &str, most: i32| {
            let number = text.strip_prefix(word)?.strip_prefix(' ')?.parse().ok()?;
            (0..=most).contains(&number).then_some(number)
        };
        match text {
            "signal" => return Ok(Self::AnySignal),
            "code" => return Ok(Self::AnyCode),
            _ => {}
        }
        let named = || Signal::from_str(text).ok().map(|signal| signal as i32);
        let signal = numbered("signal", MAX_SIGNAL).filter(|&signal| signal > 0).or_else(named);
        signal
            .map(ExitKind::Signal)
            .or_else(|| numbered("code", 255).map(ExitKind::Code))
            .map(Self::Kind)
            .ok_or(UnknownKind)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_kind() -> impl Strategy<Value = ExitKind> {
        prop_oneof![
            prop::sample::select(WORDS.to_vec()),
            (1..=MAX_SIGNAL).prop_map(ExitKind::Signal),
            (0..=255).prop_map(ExitKind::Code),
        ]
    }

    #[test]
    fn signals_and_codes_are_named_alone_or_all_together() {
        let pattern = |text: &str| text.parse::<ExitPattern>();
        let segv = ExitPattern::Kind(ExitKind::Signal(11));
        assert_eq!(pattern("SIGSEGV"), Ok(segv));
        assert_eq!(pattern("signal 11"), Ok(segv));
        assert_eq!(pattern("signal"), Ok(ExitPattern::AnySignal));
        assert_eq!(pattern("code 3"), Ok(ExitPattern::Kind(ExitKind::Code(3))));
        assert!(ExitPattern::AnySignal.matches(ExitKind::Signal(6)));
        assert!(
            !segv.matches(ExitKind::Signal(6)) && !ExitPattern::AnyCode.matches(ExitKind::Hang)
        );
        for bad in ["", "signal 0", "signal 65", "code 256", "code -1", "segv", "Load_error"] {
            assert_eq!(pattern(bad), Err(UnknownKind), "{bad:?}");
        }
    }

    #[test]
    fn the_expected_words_are_all_that_can_be_followed_by_a_restart() {
        let intended = |kind: &&ExitKind| !kind.is_intended();
        for kind in WORDS.iter().filter(intended) {
            assert!(EXPECTED.contains(&format!("\"{kind}\"")), "{kind}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_read_back(kind in any_kind()) {
            prop_assert_eq!(kind.to_string().parse(), Ok(ExitPattern::Kind(kind)));
            prop_assert!(kind.to_string().parse::<ExitPattern>().is_ok_and(|p| p.matches(kind)));
        }

        #[test]
        fn any_text_is_a_pattern_or_an_error(text in ".{0,20}") {
            let _pattern_or_error = text.parse::<ExitPattern>();
        }
    }
}
