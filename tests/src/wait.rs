//! Waiting on a condition, with a watchdog.

use std::thread::park_timeout;
use std::time::{Duration, Instant};

/// Longer than anything takes on a machine that is busy with other things. It turns a test that
/// would wait for ever into one that fails; it is no statement about the server.
pub const WATCHDOG: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(3);

/// Waits until `condition` gives something.
pub fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    let found = poll(WATCHDOG, condition);
    found.unwrap_or_else(|| panic!("the watchdog barked: {what} did not come about"))
}

/// Waits until `condition` holds.
pub fn until_true(what: &str, mut condition: impl FnMut() -> bool) {
    until(what, || condition().then_some(()));
}

/// For what must come about within a time that is promised to users.
pub fn within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let found = poll(limit, || condition().then_some(()));
    assert!(found.is_some(), "{what} did not come about within {limit:?}");
}

/// Waits until `condition` holds; says whether it came about, for a caller with more to say if not.
pub fn comes_about(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    poll(limit, || condition().then_some(())).is_some()
}

/// Waits until so much time has passed since `start`: for what must not come about in it.
pub fn until_passed(start: Instant, time: Duration) {
    poll(time.saturating_mul(2), || (start.elapsed() >= time).then_some(()));
}

fn poll<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        // Before the condition is looked at: it gets a last look when the time is over.
        let late = start.elapsed() >= limit;
        let found = condition();
        if found.is_some() || late {
            return found;
        }
        park_timeout(LOOK);
    }
}
