//! Which requests may have ended their workers, and which did; pure.
//!
//! ```text
//! (clear) ──its worker ended──► Suspect ──ended another, alone; `after` in all──► Convicted
//!    ▲                             │                                                  │
//!    └──it was answered, or ttl────┴───────────────────────ttl────────────────────────┘
//! ```
//! - *its worker ended*: whatever was in flight may be why, so all of it becomes suspect. A suspect
//!   runs alone from then on, also when the same request comes from another client.
//! - *it was answered*: it was beside the one that did it, or the worker was ended from outside.
//! - *ended another, alone*: nothing else can be why. What ended its worker alone the first time
//!   counts alike, and is convicted at once if `after` is 1.
//! - *ttl*: after that long without news the entry is forgotten, and the request tried again.
//!
//! Owns the table of one version of a model. It hashes nothing, refuses nothing and has no clock.
//!
//! Invariants: at most [`MAX_ENTRIES`]; a conviction is pushed out only where there is no suspect to
//! push out; nobody is convicted of a worker that others were in as well.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use shared::clock::MonotonicNanos;
use shared::id::Generation;

/// Most entries of one version of a model; a worker has no more slots than that.
pub const MAX_ENTRIES: usize = 256;

/// Stands for everything that a worker sees of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u64);

/// When a request that ends its workers is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoisonPolicy {
    /// Workers that the same request must have ended; 0 keeps no table.
    pub after: u32,
    /// How long an entry counts from its latest crash.
    pub ttl: Duration,
}

/// One worker of a version: in which of its instances, and the how-manieth there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation {
    pub instance: u16,
    pub generation: Generation,
}

/// How certain it is that a request ended its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// There was nothing else that could be why.
    Alone,
    AmongOthers,
}

/// What is held against a request.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Clear,
    /// It may run, and runs alone.
    Suspect,
    Convicted(Conviction),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conviction {
    /// Workers that it has ended.
    pub crashes: u32,
    /// How long it is refused from now on.
    pub left: Duration,
}

#[derive(Clone, Debug)]
pub struct Suspects {
    policy: PoisonPolicy,
    entries: BTreeMap<Fingerprint, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The latest worker that ended with it in flight.
    worker: Incarnation,
    /// When that was.
    since: MonotonicNanos,
    /// Workers that it may have ended: all but the first for certain.
    crashes: u32,
    held: Held,
}

/// In the order in which entries are pushed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Held {
    Suspect,
    Convicted,
}

impl Suspects {
    #[must_use]
    pub fn new(policy: PoisonPolicy) -> Self {
        Self { policy, entries: BTreeMap::new() }
    }

    #[must_use]
    pub fn policy(&self) -> PoisonPolicy {
        self.policy
    }

    /// For a reload: convictions stay what they are, for as long as the new time says.
    pub fn set_policy(&mut self, policy: PoisonPolicy) {
        self.policy = policy;
        if policy.after == 0 {
            self.entries.clear();
        }
    }

    /// Entries that have not been seen to be too old.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is held against a request now. Forgets what is too old.
    pub fn standing(&mut self, request: Fingerprint, now: MonotonicNanos) -> Standing {
        self.forget_old(now);
        self.entries.get(&request).map_or(Standing::Clear, |entry| self.standing_of(entry, now))
    }

    /// A worker has ended with this request in flight. Says what is held against it from now on.
    pub fn crashed(
        &mut self,
        request: Fingerprint,
        evidence: Evidence,
        worker: Incarnation,
        now: MonotonicNanos,
    ) -> Standing {
        if self.policy.after == 0 {
            return Standing::Clear;
        }
        self.forget_old(now);
        let before = self.entries.get(&request).copied();
        let crashes = match (before, evidence) {
            (None, Evidence::Alone | Evidence::AmongOthers) => 1,
            (Some(entry), Evidence::Alone) => entry.crashes.saturating_add(1),
            (Some(entry), Evidence::AmongOthers) => entry.crashes,
        };
        let held = match (before.map(|entry| entry.held), evidence) {
            (Some(Held::Convicted), _) => Held::Convicted,
            (_, Evidence::Alone) if crashes >= self.policy.after => Held::Convicted,
            (Some(Held::Suspect) | None, Evidence::Alone | Evidence::AmongOthers) => Held::Suspect,
        };
        if before.is_none() && self.entries.len() >= MAX_ENTRIES {
            self.push_out();
        }
        let entry = Entry { worker, since: now, crashes, held };
        self.entries.insert(request, entry);
        self.standing_of(&entry, now)
    }

    /// A suspect was answered. Without effect on what is convicted.
    pub fn answered(&mut self, request: Fingerprint) {
        if self.entries.get(&request).is_some_and(|entry| entry.held == Held::Suspect) {
            self.entries.remove(&request);
        }
    }

    /// What is held against the requests whose latest crash was that of `worker`.
    #[must_use]
    pub fn of_generation(&self, worker: Incarnation) -> Vec<Fingerprint> {
        let of_worker = self.entries.iter().filter(|(_, entry)| entry.worker == worker);
        of_worker.map(|(&request, _)| request).collect()
    }

    fn standing_of(&self, entry: &Entry, now: MonotonicNanos) -> Standing {
        match entry.held {
            Held::Suspect => Standing::Suspect,
            Held::Convicted => {
                let left = self.policy.ttl.saturating_sub(now.since(entry.since));
                Standing::Convicted(Conviction { crashes: entry.crashes, left })
            }
        }
    }

    fn forget_old(&mut self, now: MonotonicNanos) {
        let ttl = self.policy.ttl;
        self.entries.retain(|_, entry| now.since(entry.since) < ttl);
    }

    fn push_out(&mut self) {
        let first = self.entries.iter().min_by_key(|(_, entry)| (entry.held, entry.since));
        if let Some(request) = first.map(|(&request, _)| request) {
            self.entries.remove(&request);
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
#[path = "suspects_tests.rs"]
mod tests;
