//! What all workers hold: processes, slots, and the memory of devices; pure.
//!
//! Invariants: the grants on a device never sum up to more than it had to give at the time of the last
//! grant; a grant comes back once, and that of a worker that ran on a device only through the [`Gate`].

mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use shared::clock::MonotonicNanos;
use shared::id::{ModelName, ModelVersion};

use super::gate::{Gate, Trace, Verdict};
use super::ledger::{Ledger, Reserved};
use super::measured::{Measured, Subject};
use super::placement::{Candidate, Wanted, place};
use super::sighting::{Sighting, Whose, sight};
use crate::device::{Device, DeviceId, Driver, Reading, Snapshot, State};
use crate::health::DeviceUse;

/// What one worker holds. Its name would not do: while a model is loaded anew, two workers have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GrantId(u64);

/// What there is to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Bytes of the memory objects.
    pub arenas: u64,
    pub workers: u64,
    /// Bytes of each device that nobody is granted.
    pub headroom: u64,
    /// How long a worker that has ended may still be seen on its devices.
    pub patience: Duration,
}

/// What a worker asks for beside its process and its slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceAsk {
    pub wanted: Wanted,
    pub model: ModelName,
    pub version: ModelVersion,
    pub engine: String,
    /// Bytes on each device that the configuration allows.
    pub limit: u64,
}

/// Devices that were granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub devices: Vec<Device>,
    /// Bytes on each.
    pub bytes: u64,
}

pub use report::{Balance, DeviceBalance, Held, Report};

/// Why nothing was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub reason: String,
    pub outlook: Outlook,
}

/// Whether it is worth waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// Somebody is on the way out whose memory comes back soon, or the driver may answer.
    Returning,
    /// It takes somebody's doing.
    Bleak,
}

/// What came of a look at all devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Of each worker that holds devices and lives.
    pub seen: Vec<(GrantId, DeviceUse)>,
    pub verdicts: Vec<Verdict<GrantId>>,
}

#[derive(Clone, Debug)]
pub struct Accounts {
    arenas: Ledger<GrantId>,
    workers: Ledger<GrantId>,
    books: BTreeMap<DeviceId, Book>,
    holders: BTreeMap<GrantId, Holder>,
    gate: Gate<GrantId>,
    driver: Driver,
    headroom: u64,
    next: u64,
}

/// The account of one device.
#[derive(Clone, Debug)]
struct Book {
    reading: Reading,
    ledger: Ledger<GrantId>,
    /// Processes on it that were gone for the kernel at the last look.
    ghosts: BTreeSet<u32>,
}

/// Who holds devices.
#[derive(Clone, Debug)]
struct Holder {
    devices: Vec<DeviceId>,
    model: ModelName,
    version: ModelVersion,
    /// The driver's numbers of its processes, as far as any was seen.
    numbers: BTreeSet<(DeviceId, u32)>,
    /// Those that were gone before it came, and so are not its own.
    before: BTreeSet<(DeviceId, u32)>,
    lives: bool,
}

impl Accounts {
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        Self {
            arenas: Ledger::new(capacity.arenas),
            workers: Ledger::new(capacity.workers),
            books: BTreeMap::new(),
            holders: BTreeMap::new(),
            gate: Gate::new(capacity.patience),
            driver: Driver::Absent("nothing has been asked yet".to_owned()),
            headroom: capacity.headroom,
            next: 0,
        }
    }

    /// For a reload. Grants that no longer fit stay. What devices have to give follows with the next
    /// look at them.
    pub fn set_capacity(&mut self, capacity: Capacity) {
        self.arenas.set_capacity(capacity.arenas);
        self.workers.set_capacity(capacity.workers);
        self.headroom = capacity.headroom;
        self.gate.set_patience(capacity.patience);
    }

    /// How long a worker that has ended may still be seen on its devices.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.gate.patience()
    }

    /// Room for one worker, all of it or nothing.
    pub fn reserve(
        &mut self,
        arena_bytes: u64,
        device: Option<(&DeviceAsk, &Measured)>,
    ) -> Result<(GrantId, Option<Place>), Refused> {
        let grant = GrantId(self.next);
        self.next += 1;
        let bleak = |reason| Refused { reason, outlook: Outlook::Bleak };
        if let Reserved::Denied(_) = self.workers.reserve(grant, 1) {
            let most = self.workers.capacity();
            return Err(bleak(format!("limits.max_workers = {most} workers run already")));
        }
        if let Reserved::Denied(denied) = self.arenas.reserve(grant, arena_bytes) {
            let _freed = self.workers.release(&grant);
            return Err(bleak(format!("limits.arena_memory: {denied}")));
        }
        let Some((ask, measured)) = device else { return Ok((grant, None)) };
        match self.on_devices(grant, ask, measured) {
            Ok(place) => Ok((grant, Some(place))),
            Err(refused) => {
                let _freed = self.workers.release(&grant);
                let _freed = self.arenas.release(&grant);
                Err(refused)
            }
        }
    }

    fn on_devices(
        &mut self,
        grant: GrantId,
        ask: &DeviceAsk,
        measured: &Measured,
    ) -> Result<Place, Refused> {
        let candidates = self.candidates(ask, measured);
        let chosen = place(&ask.wanted, &candidates).map_err(|no| self.refused(&no))?;
        let need = |id: &DeviceId| candidates.iter().find(|c| c.id == *id).map_or(0, |c| c.need);
        let bytes = chosen.iter().map(need).max().unwrap_or(0);
        let (mut devices, mut before) = (Vec::new(), BTreeSet::new());
        for id in &chosen {
            let book = self.books.get_mut(id).expect("candidates are made of books");
            let reserved = book.ledger.reserve(grant, bytes);
            assert_eq!(reserved, Reserved::Granted, "placement has looked at the same ledger");
            devices.push(book.reading.device.clone());
            before.extend(book.ghosts.iter().map(|&number| (id.clone(), number)));
        }
        let holder = Holder {
            devices: chosen,
            model: ask.model.clone(),
            version: ask.version,
            numbers: BTreeSet::new(),
            before,
            lives: true,
        };
        self.holders.insert(grant, holder);
        Ok(Place { devices, bytes })
    }

    fn candidates(&self, ask: &DeviceAsk, measured: &Measured) -> Vec<Candidate> {
        let suspects = self.gate.suspects();
        let answers = matches!(self.driver, Driver::Answers(_));
        let usable = self.books.values().filter(|book| {
            let reading = &book.reading;
            answers && reading.state == State::Usable && !suspects.contains(&reading.device.id)
        });
        let candidate = |book: &Book| {
            let Device { id, index, name, .. } = &book.reading.device;
            let subject = Subject::new(&ask.model, ask.version, name);
            let need = match &ask.wanted {
                // How a model spreads is its own affair: one figure does not say what each device needs.
                Wanted::Any(2..) => ask.limit,
                Wanted::These(several) if several.len() > 1 => ask.limit,
                Wanted::Any(_) | Wanted::These(_) => {
                    measured.need(&subject, &ask.engine, ask.limit)
                }
            };
            let sibling = |holder: &&Holder| {
                let same = holder.model == ask.model && holder.version == ask.version;
                same && holder.devices.contains(id)
            };
            Candidate {
                id: id.clone(),
                index: *index,
                free: book.ledger.free(),
                need,
                siblings: self.holders.values().filter(sibling).count(),
                busy: book.reading.busy,
            }
        };
        usable.map(candidate).collect()
    }

    fn refused(&self, why: &dyn fmt::Display) -> Refused {
        let mut reasons = match &self.driver {
            Driver::Absent(why) => vec![format!("there is no GPU: {why}")],
            Driver::Silent => vec!["the GPU driver does not answer".to_owned()],
            Driver::Answers(_) => vec![why.to_string()],
        };
        let suspects = self.gate.suspects();
        for Book { reading: Reading { device, state, .. }, .. } in self.books.values() {
            if let State::Lost(why) = state {
                reasons.push(format!("GPU {} is lost: {why}", device.index));
            } else if suspects.contains(&device.id) {
                let index = device.index;
                reasons.push(format!(
                    "GPU {index} is suspect: it keeps the memory of a worker that is gone"
                ));
            }
        }
        let outlook = match (&self.driver, self.gate.awaits()) {
            // It may have begun late, or answer again.
            (Driver::Silent, _) | (_, true) => Outlook::Returning,
            (Driver::Answers(_) | Driver::Absent(_), false) => Outlook::Bleak,
        };
        Refused { reason: reasons.join("; "), outlook }
    }

    /// The worker of this grant never ran, or ran on no device.
    pub fn release(&mut self, grant: GrantId) {
        let _freed = self.arenas.release(&grant);
        let _freed = self.workers.release(&grant);
        self.release_devices(grant);
    }

    /// Its exit has been seen. What it had of devices comes back with a verdict of the gate.
    pub fn leave(&mut self, grant: GrantId, exited: MonotonicNanos) {
        let _freed = self.arenas.release(&grant);
        let _freed = self.workers.release(&grant);
        if let Some(holder) = self.holders.get_mut(&grant) {
            holder.lives = false;
            self.gate.leave(grant, holder.devices.clone(), exited);
        }
    }

    fn release_devices(&mut self, grant: GrantId) {
        let Some(holder) = self.holders.remove(&grant) else { return };
        for id in &holder.devices {
            if let Some(book) = self.books.get_mut(id) {
                let _freed = book.ledger.release(&grant);
            }
        }
    }

    /// Takes in what the driver said. `whose` tells the workers' processes from others.
    pub fn look(&mut self, snapshot: &Snapshot, whose: impl Fn(u32) -> Whose<GrantId>) -> Found {
        self.driver = snapshot.driver.clone();
        if snapshot.driver == Driver::Silent {
            // What was read is of a moment before: nothing is known of now.
            return Found { seen: self.nothing_seen(), verdicts: Vec::new() };
        }
        let mut sightings = BTreeMap::new();
        for reading in &snapshot.readings {
            let sighting = sight(reading, &whose);
            self.enter(reading, &sighting);
            sightings.insert(reading.device.id.clone(), sighting);
        }
        self.forget_devices(snapshot);
        let seen = self.seen(&sightings);
        let (holders, books) = (&self.holders, &self.books);
        let trace = |grant: GrantId, id: &DeviceId| {
            let lost =
                books.get(id).is_none_or(|book| matches!(book.reading.state, State::Lost(_)));
            match (lost, sightings.get(id), holders.get(&grant)) {
                (true, _, _) | (_, None, _) | (_, _, None) => Trace::Lost,
                (false, Some(sighting), Some(holder)) => trace(holder, id, sighting),
            }
        };
        let verdicts = self.gate.look(snapshot.taken, trace);
        for verdict in &verdicts {
            if let Verdict::Open { grant, .. } = verdict {
                self.release_devices(*grant);
            }
        }
        Found { seen, verdicts }
    }

    /// Who has been waited for long enough.
    pub fn overdue(&mut self, now: MonotonicNanos) -> Vec<Verdict<GrantId>> {
        self.gate.overdue(now)
    }

    fn enter(&mut self, reading: &Reading, sighting: &Sighting<GrantId>) {
        let id = reading.device.id.clone();
        let book = self.books.entry(id.clone()).or_insert_with(|| Book {
            reading: reading.clone(),
            ledger: Ledger::new(0),
            ghosts: BTreeSet::new(),
        });
        // A moment without a figure changes nothing: what there is to give is still there.
        if let Some(memory) = reading.memory {
            let ours = sighting.ours(|number| was_ours(&self.holders, &id, number));
            // Where that cannot be told, at least what is beyond all grants is not ours: nothing is
            // granted that is not free at the moment.
            let ours = ours.unwrap_or(book.ledger.used());
            let given = memory.total.saturating_sub(self.headroom);
            let foreign = memory.used.saturating_sub(ours);
            book.ledger.set_capacity(given.saturating_sub(foreign));
        }
        book.ghosts = sighting.ghosts.keys().copied().collect();
        book.reading = reading.clone();
        for (grant, (_, numbers)) in &sighting.workers {
            if let Some(holder) = self.holders.get_mut(grant) {
                holder.numbers.extend(numbers.iter().map(|&number| (id.clone(), number)));
            }
        }
    }

    /// Devices that the driver does not know any more and nobody holds.
    fn forget_devices(&mut self, snapshot: &Snapshot) {
        if let Driver::Answers(_) = snapshot.driver {
            let held: BTreeSet<&DeviceId> =
                self.holders.values().flat_map(|holder| &holder.devices).collect();
            self.books.retain(|id, _| snapshot.reading(id).is_some() || held.contains(id));
        }
    }

    fn nothing_seen(&self) -> Vec<(GrantId, DeviceUse)> {
        let blind = || DeviceUse::Blind("the driver does not answer".to_owned());
        self.holders.iter().filter(|(_, h)| h.lives).map(|(&grant, _)| (grant, blind())).collect()
    }

    fn seen(&self, sightings: &BTreeMap<DeviceId, Sighting<GrantId>>) -> Vec<(GrantId, DeviceUse)> {
        let of = |(&grant, holder): (&GrantId, &Holder)| {
            let on =
                holder.devices.iter().map(|id| match (sightings.get(id), self.books.get(id)) {
                    (Some(sighting), Some(book)) => sighting.of(grant, &book.reading.state),
                    (None, _) | (_, None) => match &self.driver {
                        Driver::Answers(_) => {
                            DeviceUse::Lost("the driver does not know it any more".to_owned())
                        }
                        Driver::Absent(why) => DeviceUse::Blind(why.clone()),
                        Driver::Silent => DeviceUse::Blind("the driver does not answer".to_owned()),
                    },
                });
            (grant, on.fold(DeviceUse::Nothing, DeviceUse::graver))
        };
        self.holders.iter().filter(|(_, holder)| holder.lives).map(of).collect()
    }

    /// Bytes that are granted on a device, and that can be.
    #[must_use]
    pub fn of_device(&self, id: &DeviceId) -> Option<(u64, u64)> {
        self.books.get(id).map(|book| (book.ledger.used(), book.ledger.capacity()))
    }

    /// Whether anybody's memory is on its way back.
    #[must_use]
    pub fn awaits(&self) -> bool {
        self.gate.awaits()
    }
}

/// Whether a worker that is known here was seen under this number.
fn was_ours(holders: &BTreeMap<GrantId, Holder>, id: &DeviceId, number: u32) -> bool {
    holders.values().any(|holder| holder.numbers.contains(&(id.clone(), number)))
}

/// What a reading shows of a worker that has ended.
fn trace(holder: &Holder, id: &DeviceId, sighting: &Sighting<GrantId>) -> Trace {
    if sighting.blind.is_some() {
        return Trace::Blind;
    }
    // A number that a living process has now is that process's, whoever had it before.
    let known = |number: &u32| holder.numbers.contains(&(id.clone(), *number));
    if sighting.unowned.iter().any(known) {
        return Trace::Seen;
    }
    if sighting.unknown {
        return Trace::Blind;
    }
    // One that was never seen alive may be any that has gone since it came.
    let new = |number: &u32| !holder.before.contains(&(id.clone(), *number));
    match holder.numbers.is_empty() && sighting.ghosts.keys().any(new) {
        true => Trace::Seen,
        false => Trace::NotSeen,
    }
}

#[cfg(test)]
#[path = "accounts_tests.rs"]
mod tests;
