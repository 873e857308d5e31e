//! Accounts of bytes: who holds how much of a fixed capacity; pure.
//!
//! Owns the sums. It does not measure what is really used and does not know what the bytes are: host
//! memory for the arenas of workers, and later the memory of a device.
//!
//! Invariants: what is held never sums up to more than the capacity at the time of the last grant;
//! each grant is returned once, whole.

use std::collections::BTreeMap;

/// One account. `K` names a holder, for example an instance and the ticket of its reservation.
#[derive(Clone, Debug)]
pub struct Ledger<K> {
    capacity: u64,
    used: u64,
    held: BTreeMap<K, u64>,
}

#[must_use = "what is not granted must not be used"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    Granted,
    Denied(Denied),
    /// The holder has a grant of so many bytes already; it stays as it is.
    AlreadyHeld {
        bytes: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{asked} bytes asked, {free} of {capacity} free")]
pub struct Denied {
    pub asked: u64,
    pub free: u64,
    pub capacity: u64,
}

#[must_use = "a release without a grant is somebody's mistake"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    Freed { bytes: u64 },
    NotHeld,
}

impl<K: Ord> Ledger<K> {
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self { capacity, used: 0, held: BTreeMap::new() }
    }

    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    #[must_use]
    pub fn used(&self) -> u64 {
        self.used
    }

    #[must_use]
    pub fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.used)
    }

    /// What this one holds.
    #[must_use]
    pub fn held(&self, holder: &K) -> Option<u64> {
        self.held.get(holder).copied()
    }

    /// For a reload. Grants that no longer fit stay; nothing is granted until they do.
    pub fn set_capacity(&mut self, capacity: u64) {
        self.capacity = capacity;
    }

    pub fn reserve(&mut self, holder: K, bytes: u64) -> Reserved {
        if let Some(&bytes) = self.held.get(&holder) {
            return Reserved::AlreadyHeld { bytes };
        }
        let (free, capacity) = (self.free(), self.capacity);
        if bytes > free {
            return Reserved::Denied(Denied { asked: bytes, free, capacity });
        }
        self.used += bytes;
        self.held.insert(holder, bytes);
        Reserved::Granted
    }

    pub fn release(&mut self, holder: &K) -> Released {
        match self.held.remove(holder) {
            Some(bytes) => {
                self.used -= bytes;
                Released::Freed { bytes }
            }
            None => Released::NotHeld,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_does_not_fit_is_denied_with_the_numbers() {
        let mut ledger = Ledger::new(100);
        assert_eq!(ledger.reserve("a", 60), Reserved::Granted);
        let denied = Denied { asked: 41, free: 40, capacity: 100 };
        assert_eq!(ledger.reserve("b", 41), Reserved::Denied(denied));
        assert_eq!(denied.to_string(), "41 bytes asked, 40 of 100 free");
        assert_eq!(ledger.reserve("b", 40), Reserved::Granted);
        assert_eq!(ledger.free(), 0);
        assert_eq!(ledger.reserve("nothing", 0), Reserved::Granted);
    }

    #[test]
    fn a_second_release_is_reported() {
        let mut ledger = Ledger::new(100);
        assert_eq!(ledger.reserve("a", 60), Reserved::Granted);
        assert_eq!(ledger.release(&"a"), Released::Freed { bytes: 60 });
        assert_eq!(ledger.release(&"a"), Released::NotHeld);
        assert_eq!(ledger.free(), 100);
    }

    #[test]
    fn a_smaller_capacity_waits_until_what_is_held_fits() {
        let mut ledger = Ledger::new(100);
        assert_eq!(ledger.reserve("a", 60), Reserved::Granted);
        ledger.set_capacity(50);
        let denied = Denied { asked: 1, free: 0, capacity: 50 };
        assert_eq!(ledger.reserve("b", 1), Reserved::Denied(denied));
        assert_eq!(ledger.release(&"a"), Released::Freed { bytes: 60 });
        assert_eq!(ledger.reserve("b", 50), Reserved::Granted);
    }

    #[test]
    fn the_largest_number_does_not_overflow() {
        let mut ledger = Ledger::new(u64::MAX);
        assert_eq!(ledger.reserve("a", u64::MAX), Reserved::Granted);
        assert!(matches!(ledger.reserve("b", u64::MAX), Reserved::Denied(_)));
    }

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Reserve(u8, u64),
        Release(u8),
    }

    fn any_op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (0_u8..6, 0_u64..60).prop_map(|(holder, bytes)| Op::Reserve(holder, bytes)),
            (0_u8..6).prop_map(Op::Release),
        ]
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_list_of_grants(ops in prop::collection::vec(any_op(), 0..200)) {
            const CAPACITY: u64 = 100;
            let mut ledger = Ledger::new(CAPACITY);
            let mut grants: Vec<(u8, u64)> = Vec::new();
            for op in ops {
                let used: u64 = grants.iter().map(|grant| grant.1).sum();
                match op {
                    Op::Reserve(holder, asked) => {
                        let held = grants.iter().find(|grant| grant.0 == holder);
                        let free = CAPACITY - used;
                        let expected = match held {
                            Some(&(_, bytes)) => Reserved::AlreadyHeld { bytes },
                            None if asked <= free => Reserved::Granted,
                            None => Reserved::Denied(Denied { asked, free, capacity: CAPACITY }),
                        };
                        prop_assert_eq!(ledger.reserve(holder, asked), expected);
                        if expected == Reserved::Granted {
                            grants.push((holder, asked));
                        }
                    }
                    Op::Release(holder) => {
                        let at = grants.iter().position(|grant| grant.0 == holder);
                        let expected = at.map_or(Released::NotHeld, |at| {
                            Released::Freed { bytes: grants.swap_remove(at).1 }
                        });
                        prop_assert_eq!(ledger.release(&holder), expected);
                    }
                }
                let used: u64 = grants.iter().map(|grant| grant.1).sum();
                prop_assert_eq!(ledger.used(), used);
                prop_assert!(used <= CAPACITY);
            }
        }
    }
}
