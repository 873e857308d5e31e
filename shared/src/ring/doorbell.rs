//! Waking the other side only when it sleeps, without ever losing a wake-up.
//!
//! The sleeping side announces each attempt to sleep as a new, non-zero *epoch* in a word that the
//! waking side reads, then looks at the ring once more, and only then sleeps. The waking side
//! publishes, then reads the word: it wakes if the epoch is one that it has not woken yet. Every
//! attempt must be a new epoch, also one that follows a spurious wake-up: the waking side has
//! already spent its wake on the old epoch and would stay silent.
//!
//! One wake an epoch is enough only if *every* wake of an epoch ends that attempt, also one that
//! comes before the sleeper has reached the kernel. A socket keeps its packet. A futex does not
//! keep wakes, so the word that the sleeper waits on must be one that each wake changes and that
//! was read before the announcement. The ring's head is not such a word: a wake meant for item 1
//! can be spent on the attempt that follows item 1, find nobody asleep yet and change nothing, and
//! item 2 then finds the epoch already woken. (loom found this; see `tests/loom_ring.rs`.)
//!
//! The same protocol serves both directions: a worker sleeps on a futex, the supervisor on the
//! control socket. A hostile word costs its writer latency and nothing else.

use crate::sync::{AtomicU32, Ordering, fence};

/// The side that sleeps. One value per ring, used by one thread at a time.
#[derive(Debug, Default)]
pub struct Sleeper {
    epoch: u32,
}

impl Sleeper {
    /// Announces an attempt to sleep. The caller must have read the futex word before (if it sleeps
    /// on one), and must look at the ring again now before it sleeps.
    pub fn announce(&mut self, word: &AtomicU32) {
        self.epoch = self.epoch.checked_add(1).unwrap_or(1);
        word.store(self.epoch, Ordering::Relaxed);
        // Partner: the fence in `Waker::must_wake`. Of "my word, then their head" here and "my
        // head, then their word" there, at least one side sees the other's store.
        fence(Ordering::SeqCst);
    }

    /// Says that this side looks at the ring by itself again, so that it need not be woken.
    pub fn awake(&self, word: &AtomicU32) {
        word.store(0, Ordering::Relaxed);
    }
}

/// The side that wakes.
#[derive(Debug, Default)]
pub struct Waker {
    woken: u32,
}

impl Waker {
    /// Whether the other side must be woken for what was published before this call.
    #[must_use]
    pub fn must_wake(&mut self, word: &AtomicU32) -> bool {
        // Partner: the fence in `Sleeper::announce`.
        fence(Ordering::SeqCst);
        let epoch = word.load(Ordering::Relaxed);
        if epoch == 0 || epoch == self.woken {
            return false;
        }
        self.woken = epoch;
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_wake_an_epoch() {
        let word = AtomicU32::new(0);
        let (mut sleeper, mut waker) = (Sleeper::default(), Waker::default());
        assert!(!waker.must_wake(&word), "awake");
        sleeper.announce(&word);
        assert!(waker.must_wake(&word));
        assert!(!waker.must_wake(&word), "already woken");
        sleeper.announce(&word);
        assert!(waker.must_wake(&word), "a new attempt");
        sleeper.awake(&word);
        assert!(!waker.must_wake(&word));
    }

    #[test]
    fn epochs_skip_zero_when_they_wrap() {
        let word = AtomicU32::new(0);
        let mut sleeper = Sleeper { epoch: u32::MAX };
        sleeper.announce(&word);
        assert_eq!(word.load(Ordering::Relaxed), 1);
    }
}
