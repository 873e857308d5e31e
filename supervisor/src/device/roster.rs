//! All devices that were ever seen, and what was last said of each; pure.
//!
//! Invariants: a device keeps its index as long as it is remembered, whatever becomes of the others. One
//! that is not named any more is lost, not forgotten: whoever holds it must hear of that.

use std::collections::BTreeMap;

use super::reading::{Device, DeviceId, Memory, Processes, Reading, Slice, State};

/// Devices that are remembered. Only slices that are cut anew over and over can come to so many.
const MOST_KNOWN: usize = 128;

/// What was said of one device in a round of questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub id: DeviceId,
    pub name: String,
    pub slice: Slice,
    pub state: State,
    pub memory: Option<Memory>,
    pub busy: Option<u8>,
    pub processes: Processes,
}

/// Why nothing was said of a device that was there before. Holds for its slices too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    Lost(String),
    /// It may be there and well.
    Mute(String),
}

/// One round of questions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    pub told: Vec<Told>,
    pub missing: BTreeMap<DeviceId, Missing>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Appeared,
    Lost(String),
    Returned,
}

#[derive(Clone, Debug, Default)]
pub struct Roster {
    /// In the order of their index.
    readings: Vec<Reading>,
    next: u16,
    /// Whole devices that need a reset, and why.
    condemned: BTreeMap<DeviceId, String>,
}

impl Roster {
    pub fn readings(&self) -> &[Reading] {
        &self.readings
    }

    /// The device reported what it does not come back from. It stays lost, and its slices with it, for
    /// as long as this roster lives: nothing that is asked later says that it has been reset.
    pub fn condemn(&mut self, id: DeviceId, why: String) {
        self.condemned.entry(id).or_insert(why);
    }

    /// The driver itself has gone. What is known of no device any more is not known to be gone either.
    pub fn blind(&mut self, why: &str) {
        for reading in &mut self.readings {
            (reading.memory, reading.busy) = (None, None);
            reading.processes = Processes::Blind(why.to_owned());
        }
    }

    /// Takes in a round; says what is new.
    pub fn on(&mut self, round: Round) -> Vec<(Device, Change)> {
        let before: BTreeMap<DeviceId, State> =
            self.readings.iter().map(|r| (r.device.id.clone(), r.state.clone())).collect();
        let told: Vec<DeviceId> = round.told.iter().map(|told| told.id.clone()).collect();
        for told in round.told {
            self.enter(told);
        }
        for reading in &mut self.readings {
            if !told.contains(&reading.device.id) {
                untold(reading, &round.missing);
            }
            if let Some(why) = of_device(&reading.device, &self.condemned) {
                lose(reading, why);
            }
        }
        let change = |reading: &Reading| match (before.get(&reading.device.id), &reading.state) {
            (None, _) => Some(Change::Appeared),
            (Some(State::Usable), State::Lost(why)) => Some(Change::Lost(why.clone())),
            (Some(State::Lost(_)), State::Usable) => Some(Change::Returned),
            (Some(State::Usable), State::Usable) | (Some(State::Lost(_)), State::Lost(_)) => None,
        };
        let changed = |r: &Reading| change(r).map(|change| (r.device.clone(), change));
        self.readings.iter().filter_map(changed).collect()
    }

    fn enter(&mut self, told: Told) {
        let Told { id, name, slice, state, memory, busy, processes } = told;
        let known = self.readings.iter().position(|reading| reading.device.id == id);
        let index = match known {
            Some(at) => self.readings[at].device.index,
            None if self.has_room() => {
                let index = self.next;
                self.next = self.next.saturating_add(1);
                index
            }
            None => return,
        };
        let device = Device { id, index, name, slice };
        let reading = Reading { device, state, memory, busy, processes };
        match known {
            Some(at) => self.readings[at] = reading,
            None => self.readings.push(reading),
        }
    }

    /// Forgets the one that was lost first, if it must.
    fn has_room(&mut self) -> bool {
        if self.readings.len() >= MOST_KNOWN {
            let lost = |reading: &Reading| matches!(reading.state, State::Lost(_));
            if let Some(at) = self.readings.iter().position(lost) {
                self.readings.remove(at);
            }
        }
        self.readings.len() < MOST_KNOWN
    }
}

fn untold(reading: &mut Reading, missing: &BTreeMap<DeviceId, Missing>) {
    match of_device(&reading.device, missing) {
        Some(Missing::Lost(why)) => lose(reading, why),
        Some(Missing::Mute(why)) => {
            (reading.memory, reading.busy) = (None, None);
            reading.processes = Processes::Blind(why.clone());
        }
        None => lose(reading, "the driver does not name it any more"),
    }
}

fn lose(reading: &mut Reading, why: &str) {
    reading.state = State::Lost(why.to_owned());
    (reading.memory, reading.busy) = (None, None);
    reading.processes = Processes::Blind("it is lost".to_owned());
}

/// What is said of a device, or of the one that it is a slice of.
fn of_device<'a, T>(device: &Device, said: &'a BTreeMap<DeviceId, T>) -> Option<&'a T> {
    let parent = match &device.slice {
        Slice::Whole => None,
        Slice::Of(parent) => said.get(parent),
    };
    said.get(&device.id).or(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> DeviceId {
        DeviceId::new(text).unwrap()
    }

    fn told(text: &str, slice: Slice) -> Told {
        Told {
            id: id(text),
            name: "fake".into(),
            slice,
            state: State::Usable,
            memory: Some(Memory { total: 10, used: 1 }),
            busy: None,
            processes: Processes::Seen(BTreeMap::new()),
        }
    }

    fn round(ids: &[&str]) -> Round {
        let told = ids.iter().map(|text| told(text, Slice::Whole)).collect();
        Round { told, missing: BTreeMap::new() }
    }

    fn states(roster: &Roster) -> Vec<(u16, String)> {
        let state = |reading: &Reading| match &reading.state {
            State::Usable => "usable".to_owned(),
            State::Lost(why) => why.clone(),
        };
        roster.readings().iter().map(|r| (r.device.index, state(r))).collect()
    }

    #[test]
    fn a_device_that_is_gone_is_lost_and_the_others_keep_their_index() {
        let mut roster = Roster::default();
        assert_eq!(roster.on(round(&["a", "b", "c"])).len(), 3);
        let gone = "the driver does not name it any more".to_owned();
        let changes = roster.on(round(&["c", "a"]));
        assert_eq!(changes.len(), 1);
        assert_eq!((changes[0].0.id.as_str(), &changes[0].1), ("b", &Change::Lost(gone.clone())));
        let usable = || "usable".to_owned();
        assert_eq!(states(&roster), [(0, usable()), (1, gone), (2, usable())]);
        assert_eq!(roster.readings()[1].memory, None);
        assert_eq!(roster.on(round(&["a", "b", "c"]))[0].1, Change::Returned);
        assert_eq!(roster.on(round(&["a", "b", "c", "d"]))[0].0.index, 3);
    }

    #[test]
    fn what_is_said_of_a_device_holds_for_its_slices() {
        let mut roster = Roster::default();
        let slices = || ["x", "y"].map(|text| told(text, Slice::Of(id("a")))).to_vec();
        let _new = roster.on(Round { told: slices(), missing: BTreeMap::new() });
        let mute = Round {
            told: vec![],
            missing: BTreeMap::from([(id("a"), Missing::Mute("busy".into()))]),
        };
        assert_eq!(roster.on(mute), []);
        assert_eq!(roster.readings()[0].processes, Processes::Blind("busy".into()));
        roster.condemn(id("a"), "Xid 79".into());
        let changes = roster.on(Round { told: slices(), missing: BTreeMap::new() });
        assert_eq!(changes.len(), 2);
        // However well it answers.
        assert_eq!(roster.on(Round { told: slices(), missing: BTreeMap::new() }), []);
        assert_eq!(states(&roster)[0].1, "Xid 79");
    }

    #[test]
    fn a_driver_that_is_gone_leaves_nothing_known_and_nothing_lost() {
        let mut roster = Roster::default();
        let _new = roster.on(round(&["a"]));
        roster.blind("gone");
        let reading = &roster.readings()[0];
        assert_eq!((&reading.state, reading.memory), (&State::Usable, None));
        assert_eq!(reading.processes, Processes::Blind("gone".into()));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut roster = Roster::default();
        for n in 0..1000 {
            let name = format!("s{n}");
            let _changes = roster.on(round(&["stays", &name]));
        }
        assert_eq!(roster.readings().len(), MOST_KNOWN);
        assert_eq!(roster.readings()[0].state, State::Usable);
        assert_eq!(roster.readings().iter().filter(|r| r.state == State::Usable).count(), 2);
    }
}
