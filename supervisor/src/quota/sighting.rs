//! Whose the processes are that the driver names on a device; pure.

use std::collections::BTreeMap;

use crate::device::{Processes, Reading, State, Used};
use crate::health::DeviceUse;

/// Whose process a number of the driver's is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose<K> {
    /// Of the worker that holds this grant, or below it.
    Worker(K),
    /// A process that lives and is none of ours.
    Other,
    /// There is no process of this number any more: the driver has not yet taken back what it had.
    Gone,
    /// It cannot be told, as for a number of a namespace that cannot be looked into.
    Unknown,
}

/// Everything that one device's reading says of who is on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sighting<K> {
    /// Bytes and the driver's numbers of living workers' processes; `None` for bytes that are not said.
    pub workers: BTreeMap<K, (Option<u64>, Vec<u32>)>,
    /// Numbers of processes that are gone for the kernel or cannot be told.
    pub unowned: Vec<u32>,
    /// Bytes of each of those that are gone for the kernel; `None` if they are not said.
    pub ghosts: BTreeMap<u32, Option<u64>>,
    /// Whether any of them cannot be told, so that it may be anybody's.
    pub unknown: bool,
    /// Whether the driver says who uses the device at all; if not, why.
    pub blind: Option<String>,
}

/// Sorts the processes of a reading.
pub fn sight<K: Ord + Copy>(reading: &Reading, whose: impl Fn(u32) -> Whose<K>) -> Sighting<K> {
    let empty = Sighting {
        workers: BTreeMap::new(),
        unowned: vec![],
        ghosts: BTreeMap::new(),
        unknown: false,
        blind: None,
    };
    let processes = match &reading.processes {
        Processes::Blind(why) => return Sighting { blind: Some(why.clone()), ..empty },
        Processes::Seen(processes) => processes,
    };
    let mut sighting = empty;
    for (&number, &used) in processes {
        let bytes = match used {
            Used::Bytes(bytes) => Some(bytes),
            Used::Unknown => None,
        };
        let add = |sum: Option<u64>| Some(sum?.saturating_add(bytes?));
        match whose(number) {
            Whose::Worker(grant) => {
                let (sum, numbers) = sighting.workers.entry(grant).or_insert((Some(0), vec![]));
                *sum = add(*sum);
                numbers.push(number);
            }
            Whose::Gone => {
                sighting.ghosts.insert(number, bytes);
                sighting.unowned.push(number);
            }
            Whose::Unknown => {
                sighting.unknown = true;
                sighting.unowned.push(number);
            }
            Whose::Other => {}
        }
    }
    sighting
}

impl<K: Ord + Copy> Sighting<K> {
    /// What is seen of one worker here.
    #[must_use]
    pub fn of(&self, grant: K, state: &State) -> DeviceUse {
        if let State::Lost(why) = state {
            return DeviceUse::Lost(why.clone());
        }
        if let Some(why) = &self.blind {
            return DeviceUse::Blind(why.clone());
        }
        match self.workers.get(&grant) {
            None => DeviceUse::Nothing,
            Some((Some(bytes), _)) => DeviceUse::Bytes(*bytes),
            Some((None, _)) => {
                DeviceUse::Blind("the driver does not say how much it has".to_owned())
            }
        }
    }

    /// Bytes that processes of ours have here; `None` if that cannot be told. `was_ours` says which of those
    /// that are gone were seen as a worker's before.
    #[must_use]
    pub fn ours(&self, was_ours: impl Fn(u32) -> bool) -> Option<u64> {
        if self.blind.is_some() || self.unknown {
            return None;
        }
        let workers = self.workers.values().map(|(bytes, _)| *bytes);
        let ghosts = self.ghosts.iter().filter(|(number, _)| was_ours(**number));
        let all = workers.chain(ghosts.map(|(_, bytes)| *bytes));
        all.into_iter().try_fold(0_u64, |sum, bytes| Some(sum.saturating_add(bytes?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Device, DeviceId, Slice};

    fn reading(processes: &[(u32, Used)]) -> Reading {
        let id = DeviceId::new("GPU-0").unwrap();
        Reading {
            device: Device { id, index: 0, name: "fake".into(), slice: Slice::Whole },
            state: State::Usable,
            memory: None,
            busy: None,
            processes: Processes::Seen(processes.iter().copied().collect()),
        }
    }

    fn whose(number: u32) -> Whose<u8> {
        match number {
            1 | 11 => Whose::Worker(1),
            2 => Whose::Worker(2),
            3 => Whose::Gone,
            4 => Whose::Unknown,
            _ => Whose::Other,
        }
    }

    #[test]
    fn processes_of_a_worker_are_added_up() {
        let bytes = Used::Bytes;
        let told = [(1, bytes(5)), (11, bytes(6)), (2, bytes(7)), (3, bytes(8)), (9, bytes(100))];
        let sighting = sight(&reading(&told), whose);
        assert_eq!(sighting.of(1, &State::Usable), DeviceUse::Bytes(11));
        assert_eq!(sighting.of(7, &State::Usable), DeviceUse::Nothing);
        assert_eq!(sighting.ours(|number| number == 3), Some(5 + 6 + 7 + 8));
        // Somebody else's, as of a server before this one.
        assert_eq!(sighting.ours(|_| false), Some(5 + 6 + 7));
        assert_eq!(sighting.unowned, [3]);
        assert!(matches!(sighting.of(1, &State::Lost("gone".into())), DeviceUse::Lost(_)));
    }

    #[test]
    fn what_is_not_said_is_not_nothing() {
        let told =
            [(1, Used::Bytes(5)), (11, Used::Unknown), (2, Used::Bytes(7)), (4, Used::Unknown)];
        let sighting = sight(&reading(&told), whose);
        assert!(matches!(sighting.of(1, &State::Usable), DeviceUse::Blind(_)));
        assert_eq!(sighting.of(2, &State::Usable), DeviceUse::Bytes(7));
        assert_eq!((sighting.ours(|_| true), sighting.unowned), (None, vec![4]));
        let blind = Reading { processes: Processes::Blind("no right".into()), ..reading(&[]) };
        let sighting = sight(&blind, whose);
        assert_eq!(sighting.of(7, &State::Usable), DeviceUse::Blind("no right".into()));
        assert_eq!(sighting.ours(|_| true), None);
    }

    #[test]
    fn one_that_cannot_be_told_may_be_anybody_s() {
        let told = [(1, Used::Bytes(5)), (4, Used::Bytes(7))];
        let sighting = sight(&reading(&told), whose);
        assert_eq!((sighting.ours(|_| true), sighting.unknown), (None, true));
        assert_eq!(sighting.of(1, &State::Usable), DeviceUse::Bytes(5));
    }
}
