//! When what a worker had of a device counts as free; pure.
//!
//! A process that has been reaped is gone for the kernel, and its memory not yet for the driver, which
//! takes it back in its own time. A grant comes back when the driver, asked after the exit, names none
//! of the worker's processes any more. Where it does not say who uses a device, the exit alone has to
//! do, and that is told. What is still seen after a while makes its device suspect: the grant stays
//! taken, and nothing new should be placed there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shared::clock::MonotonicNanos;

use crate::device::DeviceId;

/// Everything that has ended and is not known to be gone from its devices. `K` names a grant.
#[derive(Clone, Debug)]
pub struct Gate<K> {
    patience: Duration,
    leaving: BTreeMap<K, Leaving>,
}

#[derive(Clone, Debug)]
struct Leaving {
    devices: Vec<DeviceId>,
    exited: MonotonicNanos,
    /// Whether its lateness has been told.
    overdue: bool,
}

/// What is known of a worker's processes on one of its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    Seen,
    NotSeen,
    /// The driver does not say who uses the device.
    Blind,
    /// The device is lost, and with it what was on it.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// The driver names it no more.
    Gone,
    /// It could not be told; the exit alone was seen.
    Unproven,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<K> {
    /// The grant may be given back.
    Open { grant: K, after: Duration, passed: Passed },
    /// It is still there after all patience. Told once; the grant stays taken.
    Overdue { grant: K, after: Duration },
}

impl<K: Ord + Copy> Gate<K> {
    #[must_use]
    pub fn new(patience: Duration) -> Self {
        Self { patience, leaving: BTreeMap::new() }
    }

    /// Counts for those that are waited for already, too.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    #[must_use]
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// The exit of the worker of this grant has been seen.
    pub fn leave(&mut self, grant: K, devices: Vec<DeviceId>, exited: MonotonicNanos) {
        self.leaving.insert(grant, Leaving { devices, exited, overdue: false });
    }

    /// Judges everybody by what was asked of the driver at `taken`. `trace` says what that shows of a
    /// grant's processes on a device.
    pub fn look(
        &mut self,
        taken: MonotonicNanos,
        trace: impl Fn(K, &DeviceId) -> Trace,
    ) -> Vec<Verdict<K>> {
        let mut verdicts = Vec::new();
        self.leaving.retain(|&grant, leaving| {
            let asked_since = taken > leaving.exited;
            let traces: Vec<Trace> =
                leaving.devices.iter().map(|device| trace(grant, device)).collect();
            if asked_since && !traces.contains(&Trace::Seen) {
                let blind = traces.contains(&Trace::Blind);
                let passed = if blind { Passed::Unproven } else { Passed::Gone };
                let after = taken.since(leaving.exited);
                verdicts.push(Verdict::Open { grant, after, passed });
                return false;
            }
            true
        });
        verdicts
    }

    /// Who has been waited for long enough by `now`; each is told once.
    pub fn overdue(&mut self, now: MonotonicNanos) -> Vec<Verdict<K>> {
        let mut late = Vec::new();
        for (&grant, leaving) in &mut self.leaving {
            let after = now.since(leaving.exited);
            if !leaving.overdue && after >= self.patience {
                leaving.overdue = true;
                late.push(Verdict::Overdue { grant, after });
            }
        }
        late
    }

    /// Devices on which somebody is overdue.
    #[must_use]
    pub fn suspects(&self) -> BTreeSet<&DeviceId> {
        let overdue = self.leaving.values().filter(|leaving| leaving.overdue);
        overdue.flat_map(|leaving| &leaving.devices).collect()
    }

    /// Whether anybody is on the way out whose grant may come back soon.
    #[must_use]
    pub fn awaits(&self) -> bool {
        self.leaving.values().any(|leaving| !leaving.overdue)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Duration = Duration::from_nanos(100);

    fn id() -> DeviceId {
        DeviceId::new("GPU-0").unwrap()
    }

    fn at(nanos: u64) -> MonotonicNanos {
        MonotonicNanos(nanos)
    }

    fn gate() -> Gate<u8> {
        let mut gate = Gate::new(PATIENCE);
        gate.leave(1, vec![id()], at(50));
        gate
    }

    #[test]
    fn only_what_was_asked_after_the_exit_counts() {
        let mut gate = gate();
        assert_eq!(gate.look(at(50), |_, _| Trace::NotSeen), []);
        assert_eq!(gate.look(at(60), |_, _| Trace::Seen), []);
        let (after, passed) = (Duration::from_nanos(20), Passed::Gone);
        assert_eq!(
            gate.look(at(70), |_, _| Trace::NotSeen),
            [Verdict::Open { grant: 1, after, passed }]
        );
        assert_eq!(gate.look(at(80), |_, _| Trace::NotSeen), []);
        assert!(!gate.awaits());
    }

    #[test]
    fn where_nothing_can_be_seen_the_exit_has_to_do() {
        let after = Duration::from_nanos(10);
        let open = |passed| [Verdict::Open { grant: 1, after, passed }];
        assert_eq!(gate().look(at(60), |_, _| Trace::Blind), open(Passed::Unproven));
        assert_eq!(gate().look(at(60), |_, _| Trace::Lost), open(Passed::Gone));
    }

    #[test]
    fn who_stays_makes_the_device_suspect_until_it_is_gone() {
        let mut gate = gate();
        assert_eq!(gate.overdue(at(149)), []);
        assert!(gate.awaits() && gate.suspects().is_empty());
        assert_eq!(gate.overdue(at(150)), [Verdict::Overdue { grant: 1, after: PATIENCE }]);
        assert_eq!(gate.overdue(at(200)), []);
        assert!(!gate.awaits() && gate.suspects().contains(&id()));
        assert_eq!(gate.look(at(200), |_, _| Trace::Seen), []);
        assert_eq!(gate.look(at(210), |_, _| Trace::NotSeen).len(), 1);
        assert!(gate.suspects().is_empty());
    }

    proptest! {
        /// However long a process is seen, its grant comes back once, and not while it is seen.
        #[test]
        fn a_grant_comes_back_once(seen in prop::collection::vec(any::<bool>(), 0..20)) {
            let mut gate = gate();
            let mut opened = 0;
            for (step, seen) in (1_u64..).zip(seen.iter().chain([&false])) {
                let now = at(50 + step * 10);
                let trace = if *seen { Trace::Seen } else { Trace::NotSeen };
                let open = gate.look(now, |_, _| trace).len();
                prop_assert!(open == 0 || !seen);
                opened += open;
                prop_assert!(gate.overdue(now).is_empty() || step * 10 >= 100);
            }
            prop_assert_eq!(opened, 1);
        }
    }
}
