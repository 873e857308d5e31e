use super::*;
use crate::device::{Memory, Processes, Slice, Used};

const GIB: u64 = 1 << 30;
const PATIENCE: Duration = Duration::from_nanos(1000);

fn id(index: u16) -> DeviceId {
    DeviceId::new(&format!("GPU-{index}")).unwrap()
}

fn reading(index: u16, used: u64, processes: &[(u32, u64)]) -> Reading {
    let told = processes.iter().map(|&(number, bytes)| (number, Used::Bytes(bytes)));
    Reading {
        device: Device { id: id(index), index, name: "fake".into(), slice: Slice::Whole },
        state: State::Usable,
        memory: Some(Memory { total: 10 * GIB, used }),
        busy: Some(0),
        processes: Processes::Seen(told.collect()),
    }
}

fn snapshot(taken: u64, readings: Vec<Reading>) -> Snapshot {
    let driver = Driver::Answers("999.0".into());
    Snapshot { taken: MonotonicNanos(taken), driver, readings }
}

fn accounts() -> Accounts {
    let capacity = Capacity { arenas: 1000, workers: 100, headroom: GIB, patience: PATIENCE };
    Accounts::new(capacity)
}

fn nobody(_: u32) -> Whose<GrantId> {
    Whose::Other
}

fn ask(wanted: Wanted, limit: u64) -> DeviceAsk {
    let (model, version) = (ModelName::new("m").unwrap(), ModelVersion::new(1).unwrap());
    DeviceAsk { wanted, model, version, engine: "echo".into(), limit }
}

fn one(accounts: &mut Accounts, limit: u64) -> Result<(GrantId, u16), Refused> {
    let (ask, measured) = (ask(Wanted::Any(1), limit), Measured::default());
    let (grant, place) = accounts.reserve(0, Some((&ask, &measured)))?;
    let place = place.unwrap();
    assert_eq!((place.devices.len(), place.bytes), (1, limit));
    Ok((grant, place.devices[0].index))
}

#[test]
fn nothing_is_left_behind_by_a_refusal() {
    let mut accounts = accounts();
    let refused = one(&mut accounts, GIB).unwrap_err();
    assert!(refused.reason.contains("nothing has been asked yet"), "{refused:?}");
    let _found = accounts.look(&snapshot(1, vec![reading(0, 0, &[])]), nobody);
    let refused = one(&mut accounts, 10 * GIB).unwrap_err();
    assert_eq!(refused.outlook, Outlook::Bleak);
    assert!(
        refused.reason.contains("10737418240 bytes") && refused.reason.contains("9663676416 free")
    );
    assert_eq!((accounts.workers.used(), accounts.arenas.used()), (0, 0));
    let refused = accounts.reserve(2000, None).unwrap_err();
    assert_eq!(refused.reason, "limits.arena_memory: 2000 bytes asked, 1000 of 1000 free");
    assert_eq!(accounts.workers.used(), 0);
}

#[test]
fn another_capacity_holds_for_what_comes_next_and_takes_nothing_back() {
    let mut accounts = accounts();
    let _found = accounts.look(&snapshot(1, vec![reading(0, 0, &[])]), nobody);
    let (_grant, _) = one(&mut accounts, 6 * GIB).unwrap();
    let less = Capacity { arenas: 10, workers: 1, headroom: 8 * GIB, patience: PATIENCE * 2 };
    accounts.set_capacity(less);
    assert_eq!(accounts.patience(), PATIENCE * 2);
    let refused = accounts.reserve(0, None).unwrap_err();
    assert!(refused.reason.contains("limits.max_workers = 1"), "{refused:?}");
    accounts.set_capacity(Capacity { workers: 9, ..less });
    assert!(accounts.reserve(11, None).unwrap_err().reason.contains("arena_memory"));
    let _found = accounts.look(&snapshot(2, vec![reading(0, 0, &[])]), nobody);
    assert_eq!(accounts.of_device(&id(0)), Some((6 * GIB, 2 * GIB)));
    assert!(one(&mut accounts, GIB).is_err());
    accounts.set_capacity(Capacity { headroom: 0, workers: 9, ..less });
    let _found = accounts.look(&snapshot(3, vec![reading(0, 0, &[])]), nobody);
    assert!(one(&mut accounts, 4 * GIB).is_ok());
}

#[test]
fn what_others_use_is_not_granted() {
    let mut accounts = accounts();
    let _found = accounts.look(&snapshot(1, vec![reading(0, 4 * GIB, &[(77, 4 * GIB)])]), nobody);
    assert_eq!(accounts.of_device(&id(0)), Some((0, 5 * GIB)));
    let (grant, _) = one(&mut accounts, 5 * GIB).unwrap();
    // What the worker itself takes of its grant is not anybody else's.
    let whose = |number| if number == 5 { Whose::Worker(grant) } else { Whose::Other };
    let both = [(77, 4 * GIB), (5, 3 * GIB)];
    let found = accounts.look(&snapshot(2, vec![reading(0, 7 * GIB, &both)]), whose);
    assert_eq!(found.seen, [(grant, DeviceUse::Bytes(3 * GIB))]);
    assert_eq!(accounts.of_device(&id(0)), Some((5 * GIB, 5 * GIB)));
}

#[test]
fn what_others_use_is_not_granted_either_where_nobody_says_who_uses_what() {
    let mut accounts = accounts();
    let blind = |used| {
        let processes = Processes::Blind("no right".into());
        vec![Reading { processes, ..reading(0, used, &[]) }]
    };
    let _found = accounts.look(&snapshot(1, blind(4 * GIB)), nobody);
    assert_eq!(accounts.of_device(&id(0)), Some((0, 5 * GIB)));
    let _grant = one(&mut accounts, 3 * GIB).unwrap();
    // The worker may have taken what it was granted, or not: no more is granted than is free now.
    let _found = accounts.look(&snapshot(2, blind(7 * GIB)), nobody);
    assert_eq!(accounts.of_device(&id(0)), Some((3 * GIB, 5 * GIB)));
    let _found = accounts.look(&snapshot(3, blind(9 * GIB)), nobody);
    assert_eq!(accounts.of_device(&id(0)), Some((3 * GIB, 3 * GIB)));
    let _found = accounts.look(&snapshot(4, blind(0)), nobody);
    assert_eq!(accounts.of_device(&id(0)), Some((3 * GIB, 9 * GIB)));
}

#[test]
fn what_a_server_before_this_one_has_left_is_not_granted_and_holds_nobody_up() {
    let mut accounts = accounts();
    let left = || vec![reading(0, 6 * GIB, &[(77, 6 * GIB)])];
    let _found = accounts.look(&snapshot(1, left()), |_| Whose::Gone);
    assert_eq!(accounts.of_device(&id(0)), Some((0, 3 * GIB)));
    // A worker that ends before it has used its device was never that process.
    let (grant, _) = one(&mut accounts, GIB).unwrap();
    accounts.leave(grant, MonotonicNanos(2));
    let found = accounts.look(&snapshot(3, left()), |_| Whose::Gone);
    assert!(matches!(found.verdicts[..], [Verdict::Open { .. }]), "{found:?}");
}

#[test]
fn in_a_namespace_that_cannot_be_looked_into_nothing_is_certain() {
    let mut accounts = accounts();
    let _found = accounts.look(&snapshot(1, vec![reading(0, 0, &[])]), nobody);
    let (grant, _) = one(&mut accounts, 4 * GIB).unwrap();
    let there = || vec![reading(0, 3 * GIB, &[(5, 3 * GIB)])];
    let found = accounts.look(&snapshot(2, there()), |_| Whose::Unknown);
    // What it may have itself is not held against it a second time.
    assert_eq!(found.seen, [(grant, DeviceUse::Nothing)]);
    assert_eq!(accounts.of_device(&id(0)), Some((4 * GIB, 9 * GIB)));
    accounts.leave(grant, MonotonicNanos(3));
    let found = accounts.look(&snapshot(4, there()), |_| Whose::Unknown);
    let passed = crate::quota::gate::Passed::Unproven;
    assert!(matches!(found.verdicts[..], [Verdict::Open { passed: p, .. }] if p == passed));
}

#[test]
fn a_silent_driver_s_last_words_are_not_what_is_so() {
    let mut accounts = accounts();
    let _found = accounts.look(&snapshot(1, vec![reading(0, 0, &[])]), nobody);
    let (grant, _) = one(&mut accounts, GIB).unwrap();
    let mut silent = snapshot(2, vec![reading(0, 2 * GIB, &[(5, 2 * GIB)])]);
    silent.driver = Driver::Silent;
    let found = accounts.look(&silent, |_| Whose::Worker(grant));
    assert!(matches!(found.seen[..], [(_, DeviceUse::Blind(_))]), "{found:?}");
    assert_eq!(one(&mut accounts, GIB).unwrap_err().outlook, Outlook::Returning);
}

#[test]
fn the_gate_gives_back_what_a_worker_held() {
    let mut accounts = accounts();
    let _found = accounts.look(&snapshot(1, vec![reading(0, 0, &[])]), nobody);
    let (grant, _) = one(&mut accounts, 9 * GIB).unwrap();
    let whose = |number| if number == 5 { Whose::Worker(grant) } else { Whose::Other };
    let there = || vec![reading(0, GIB, &[(5, GIB)])];
    assert_eq!(accounts.look(&snapshot(2, there()), whose).seen, [(grant, DeviceUse::Bytes(GIB))]);
    accounts.leave(grant, MonotonicNanos(3));
    assert_eq!(accounts.workers.used(), 0);
    let refused = one(&mut accounts, GIB).unwrap_err();
    assert_eq!(refused.outlook, Outlook::Returning);
    // The process is gone, and the driver still has it.
    assert_eq!(accounts.look(&snapshot(4, there()), |_| Whose::Gone), Found::default());
    assert!(matches!(accounts.overdue(MonotonicNanos(2000))[..], [Verdict::Overdue { .. }]));
    let refused = one(&mut accounts, GIB).unwrap_err();
    assert!(refused.reason.contains("GPU 0 is suspect"), "{refused:?}");
    assert_eq!(refused.outlook, Outlook::Bleak);
    let found = accounts.look(&snapshot(2001, vec![reading(0, 0, &[])]), nobody);
    assert!(matches!(found.verdicts[..], [Verdict::Open { .. }]));
    assert!(one(&mut accounts, 9 * GIB).is_ok());
}

#[test]
fn a_number_that_another_process_has_now_holds_nothing_up() {
    let mut accounts = accounts();
    let _found = accounts.look(&snapshot(1, vec![reading(0, 0, &[])]), nobody);
    let (grant, _) = one(&mut accounts, GIB).unwrap();
    let there = || vec![reading(0, GIB, &[(5, GIB)])];
    let _found = accounts.look(&snapshot(2, there()), |_| Whose::Worker(grant));
    accounts.leave(grant, MonotonicNanos(3));
    let found = accounts.look(&snapshot(4, there()), |_| Whose::Other);
    assert!(matches!(found.verdicts[..], [Verdict::Open { .. }]), "{found:?}");
}

#[test]
fn a_device_that_is_lost_is_told_and_lets_go_of_what_was_on_it() {
    let mut accounts = accounts();
    let two = || vec![reading(0, 0, &[]), reading(1, 0, &[])];
    let _found = accounts.look(&snapshot(1, two()), nobody);
    let (grant, index) = one(&mut accounts, GIB).unwrap();
    assert_eq!(index, 0);
    let mut readings = two();
    readings[0].state = State::Lost("Xid 79".into());
    let found = accounts.look(&snapshot(2, readings.clone()), nobody);
    assert_eq!(found.seen, [(grant, DeviceUse::Lost("Xid 79".into()))]);
    accounts.leave(grant, MonotonicNanos(3));
    let found = accounts.look(&snapshot(4, readings), nobody);
    assert!(matches!(found.verdicts[..], [Verdict::Open { .. }]));
    // The next one goes elsewhere; who insists on that device is told why not.
    assert_eq!(one(&mut accounts, GIB).map(|(_, index)| index), Ok(1));
    let insists = ask(Wanted::These(vec![0]), GIB);
    let refused = accounts.reserve(0, Some((&insists, &Measured::default()))).unwrap_err();
    assert!(refused.reason.contains("GPU 0 is lost: Xid 79"), "{refused:?}");
}

#[test]
fn versions_spread_and_a_silent_driver_grants_nothing_new() {
    let mut accounts = accounts();
    let _found = accounts.look(&snapshot(1, vec![reading(0, 0, &[]), reading(1, 0, &[])]), nobody);
    let places: Vec<u16> = (0..4).map(|_| one(&mut accounts, GIB).unwrap().1).collect();
    assert_eq!(places, [0, 1, 0, 1]);
    let mut silent = snapshot(2, vec![reading(0, 0, &[])]);
    silent.driver = Driver::Silent;
    silent.readings[0].state = State::Lost("no answer".into());
    let _found = accounts.look(&silent, nobody);
    assert!(one(&mut accounts, GIB).is_err());
}

/// A machine whose processes come, go, linger, and are joined by others'.
mod simulation {
    use rand::rngs::SmallRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    const DEVICES: u16 = 3;
    const STEPS: usize = 300;

    #[derive(Default)]
    struct World {
        now: u64,
        /// Number, grant, device, bytes.
        living: Vec<(u32, GrantId, u16, u64)>,
        /// Number, device, bytes, rounds that the driver still keeps it.
        ghosts: Vec<(u32, u16, u64, u32)>,
        others: Vec<(u32, u16, u64)>,
        numbers: u32,
        granted: BTreeMap<GrantId, (u16, u64)>,
    }

    impl World {
        fn snapshot(&mut self, rng: &mut SmallRng) -> Snapshot {
            self.now += 10;
            for ghost in &mut self.ghosts {
                ghost.3 = ghost.3.saturating_sub(1);
            }
            self.ghosts.retain(|ghost| ghost.3 > 0);
            let readings = (0..DEVICES).map(|index| {
                let living = self.living.iter().map(|&(n, _, at, bytes)| (n, at, bytes));
                let ghosts = self.ghosts.iter().map(|&(n, at, bytes, _)| (n, at, bytes));
                let all = living.chain(ghosts).chain(self.others.iter().copied());
                let here: Vec<(u32, u64)> =
                    all.filter(|&(_, at, _)| at == index).map(|(n, _, bytes)| (n, bytes)).collect();
                let used = here.iter().map(|(_, bytes)| bytes).sum();
                let mut reading = reading(index, used, &here);
                reading.busy = Some(rng.random_range(0..=100));
                reading
            });
            let readings = readings.collect();
            snapshot(self.now, readings)
        }

        fn whose(&self, number: u32) -> Whose<GrantId> {
            let living = self.living.iter().find(|worker| worker.0 == number);
            match living {
                Some(worker) => Whose::Worker(worker.1),
                None if self.ghosts.iter().any(|ghost| ghost.0 == number) => Whose::Gone,
                None => Whose::Other,
            }
        }

        fn look(&mut self, accounts: &mut Accounts, rng: &mut SmallRng) {
            let snapshot = self.snapshot(rng);
            let found = accounts.look(&snapshot, |number| self.whose(number));
            for (grant, seen) in found.seen {
                let has =
                    self.living.iter().find(|worker| worker.1 == grant).map(|worker| worker.3);
                let expected = has.map_or(DeviceUse::Nothing, DeviceUse::Bytes);
                assert_eq!(seen, expected);
            }
            for verdict in found.verdicts {
                let Verdict::Open { grant, .. } = verdict else { panic!("{verdict:?}") };
                assert!(self.granted.remove(&grant).is_some(), "a grant came back twice");
                assert!(self.living.iter().all(|worker| worker.1 != grant), "it still lives");
            }
        }

        fn step(&mut self, accounts: &mut Accounts, rng: &mut SmallRng) {
            match rng.random_range(0..10) {
                0..=2 => {
                    let bytes = rng.random_range(1..5) * GIB;
                    let before: Vec<_> = (0..DEVICES).map(|i| accounts.of_device(&id(i))).collect();
                    if let Ok((grant, index)) = one(accounts, bytes) {
                        let (used, capacity) = before[usize::from(index)].unwrap();
                        assert!(used + bytes <= capacity, "over-committed");
                        self.numbers += 1;
                        self.granted.insert(grant, (index, bytes));
                        // Some take a while until they use their device, or never do.
                        if rng.random_bool(0.8) {
                            let has = rng.random_range(1..=bytes);
                            self.living.push((self.numbers, grant, index, has));
                        }
                    }
                }
                3..=5 => {
                    let Some(&grant) = self.granted.keys().next() else { return };
                    let Some(at) = self.living.iter().position(|worker| worker.1 == grant) else {
                        accounts.leave(grant, MonotonicNanos(self.now));
                        return;
                    };
                    let (number, _, index, bytes) = self.living.swap_remove(at);
                    self.ghosts.push((number, index, bytes, rng.random_range(1..4)));
                    accounts.leave(grant, MonotonicNanos(self.now));
                }
                6 => {
                    self.numbers += 1;
                    let index = rng.random_range(0..DEVICES);
                    self.others.push((self.numbers, index, rng.random_range(1..3) * GIB));
                }
                7 if !self.others.is_empty() => drop(self.others.swap_remove(0)),
                _ => self.look(accounts, rng),
            }
            for index in 0..DEVICES {
                let held = self.granted.values().filter(|(at, _)| *at == index);
                let held: u64 = held.map(|(_, bytes)| bytes).sum();
                let used = accounts.of_device(&id(index)).map_or(0, |(used, _)| used);
                assert_eq!(used, held, "a grant was lost or came back early");
            }
        }
    }

    #[test]
    fn nothing_is_over_committed_and_nothing_leaks() {
        for seed in 0..500 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let (mut world, mut accounts) = (World::default(), accounts());
            world.look(&mut accounts, &mut rng);
            for _ in 0..STEPS {
                world.step(&mut accounts, &mut rng);
            }
            for &grant in world.granted.keys() {
                accounts.leave(grant, MonotonicNanos(world.now));
            }
            world.living.clear();
            world.ghosts.clear();
            world.look(&mut accounts, &mut rng);
            assert!(world.granted.is_empty(), "seed {seed}");
            assert_eq!(accounts.workers.used(), 0);
        }
    }
}
