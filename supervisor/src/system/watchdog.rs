//! How often a service manager wants to hear that this process is well (`WatchdogSec=`).

use std::time::Duration;

use futures_util::future::join_all;
use tracing::error;

use super::pulse::Pulse;

/// What its unit asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watchdog {
    limit: Duration,
}

impl Watchdog {
    /// As the environment says; `None` if nobody watches this process.
    #[must_use]
    pub fn from_environment() -> Option<Self> {
        let variable = |name: &str| std::env::var(name).ok();
        Self::parse(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id())
    }

    fn parse(limit: Option<String>, pid: Option<String>, own: u32) -> Option<Self> {
        let ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
        let limit = limit?.parse().ok().filter(|limit| *limit > 0 && ours)?;
        Some(Self { limit: Duration::from_micros(limit) })
    }

    /// From one sign of life to the next: so short that after one that was missed there is time for two
    /// more.
    #[must_use]
    pub fn interval(self) -> Duration {
        self.limit / 4
    }

    /// Whether all of these loops turn, asked at the same time. They have an interval for it.
    pub async fn all_turn(self, pulses: &[Pulse]) -> bool {
        let limit = self.interval();
        let beats = join_all(pulses.iter().map(|pulse| pulse.beats(limit))).await;
        let stuck = pulses.iter().zip(&beats).filter(|(_, beats)| !**beats);
        for (pulse, _) in stuck {
            let what = pulse.what();
            error!(what, ?limit, "does not turn; the service manager's watchdog is not fed");
        }
        beats.into_iter().all(|beats| beats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_for_this_process_is_taken() {
        let parse = |limit: Option<&str>, pid: Option<&str>| {
            let text = |text: &str| text.to_owned();
            Watchdog::parse(limit.map(text), pid.map(text), 7).map(Watchdog::interval)
        };
        assert_eq!(parse(Some("2000000"), None), Some(Duration::from_millis(500)));
        assert_eq!(parse(Some("2000000"), Some("7")), Some(Duration::from_millis(500)));
        assert_eq!(parse(Some("2000000"), Some("8")), None);
        assert_eq!(parse(None, Some("7")), None);
        assert_eq!(parse(Some("0"), None), None);
        assert_eq!(parse(Some("soon"), None), None);
    }
}
