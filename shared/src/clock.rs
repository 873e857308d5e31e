//! Monotonic time as a number that both processes read alike (`CLOCK_MONOTONIC`).

use std::time::Duration;

/// Nanoseconds of the machine's monotonic clock; comparable between processes of one boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MonotonicNanos(pub u64);

impl MonotonicNanos {
    /// The present. Falls back to zero if the kernel has no monotonic clock, which Linux always has.
    #[cfg(not(loom))]
    pub fn now() -> Self {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
        let since_boot = now.map_or(Duration::ZERO, Duration::from);
        Self(u64::try_from(since_boot.as_nanos()).unwrap_or(u64::MAX))
    }

    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Time from `earlier` to `self`, zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
