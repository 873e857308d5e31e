//! Bytes that all requests together may keep outside of slots.

use shared::sync::{AtomicUsize, Ordering};

/// A count with a limit. Each body's own limit does not bound what a thousand of them come to.
#[derive(Debug)]
pub struct ByteBudget {
    limit: AtomicUsize,
    used: AtomicUsize,
}

impl ByteBudget {
    pub fn new(limit: usize) -> Self {
        Self { limit: AtomicUsize::new(limit), used: AtomicUsize::new(0) }
    }

    /// For a reload. What was taken stays taken.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Takes so many bytes; `false`, and nothing is taken, if they are not there.
    #[must_use]
    pub(super) fn take(&self, bytes: usize) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let more = |used: usize| used.checked_add(bytes).filter(|&used| used <= limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let budget = ByteBudget::new(10);
        assert!(budget.take(6) && !budget.take(5) && budget.take(4));
        budget.give_back(6);
        assert!(budget.take(6) && !budget.take(usize::MAX));
    }
}
