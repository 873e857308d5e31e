//! What any sequence of events must leave true.

use proptest::prelude::*;

use super::*;

fn any_event() -> impl Strategy<Value = Event> {
    let generation = || (0_u64..6).prop_map(Generation);
    let ticket = || (0_u64..12).prop_map(Ticket);
    let message = || Just("x".to_owned());
    let class = prop_oneof![
        Just(ExitClass::Signal(9)),
        Just(ExitClass::Code(78)),
        Just(ExitClass::SpawnStarved),
        Just(ExitClass::DeviceOutOfMemory),
    ];
    let exit = class.prop_map(|class| ExitReport { class, detail: String::new() });
    let fault = prop_oneof![
        Just(LoadFault::Transient),
        Just(LoadFault::Permanent),
        Just(LoadFault::Starved)
    ];
    let why = prop_oneof![
        Just(health::Reason::Hung { overdue: SECOND }),
        Just(health::Reason::HostMemory { used: 2, limit: 1 }),
        Just(health::Reason::Threads { seen: 2, limit: 1 }),
        Just(health::Reason::Scratch { found: health::DiskUse::Bytes(2), limit: 1 }),
    ];
    prop_oneof![
        4 => Just(Event::Wanted),
        1 => Just(Event::Unwanted),
        1 => Just(Event::ServerEnds),
        1 => Just(Event::StopNow),
        1 => Just(Event::OperatorReset),
        1 => Just(Event::Renew),
        1 => Just(Event::Demand),
        1 => generation().prop_map(|generation| Event::Idle { generation }),
        4 => ticket().prop_map(|ticket| Event::Granted { ticket }),
        1 => ticket().prop_map(|ticket| Event::Denied { ticket, reason: "full".into() }),
        2 => generation().prop_map(|generation| Event::Attached { generation }),
        4 => generation().prop_map(|generation| Event::Loaded { generation }),
        1 => (generation(), fault, message()).prop_map(|(generation, fault, message)| {
            Event::LoadFailed { generation, fault, message }
        }),
        1 => (generation(), why).prop_map(|(generation, why)| Event::Unhealthy { generation, why }),
        1 => generation().prop_map(|generation| Event::Drained { generation }),
        1 => (generation(), exit).prop_map(|(generation, exit)| {
            Event::Exited { generation, exit, jitter: Jitter::NONE }
        }),
        1 => (0_u64..30).prop_map(|token| Event::Timer { token: Token(token) }),
    ]
}

proptest! {
    /// Whatever comes, in whatever order, with whatever numbers: what is ignored changes nothing,
    /// and each grant that was taken up is released once.
    #[test]
    fn no_sequence_of_events_breaks_the_books(events in prop::collection::vec(any_event(), 0..200)) {
        let mut machine = Machine::new(policy());
        let mut spawned = Vec::new();
        let mut released = Vec::new();
        for (second, event) in (0_u64..).zip(events) {
            let before = machine.state().clone();
            let outcome = machine.on(event, at(second));
            if let Outcome::Ignored(_) = outcome {
                prop_assert_eq!(machine.state(), &before);
            }
            for effect in outcome.into_effects() {
                if let Effect::ReleaseQuota { ticket } = effect {
                    released.push(ticket);
                } else if let Effect::Spawn { .. } = effect {
                    spawned.extend(machine.state().worker().map(|worker| worker.ticket));
                }
            }
        }
        spawned.retain(|ticket| machine.state().worker().map(|worker| worker.ticket) != Some(*ticket));
        prop_assert_eq!(spawned, released);
    }

    #[test]
    fn requests_to_stop_can_be_repeated_in_every_state(
        events in prop::collection::vec(any_event(), 0..100),
    ) {
        let mut machine = Machine::new(policy());
        for (second, event) in (0_u64..).zip(events) {
            let _effects = machine.on(event, at(second));
            for request in [Event::Unwanted, Event::ServerEnds, Event::StopNow] {
                let mut stopped = machine.clone();
                let _first = stopped.on(request.clone(), at(second));
                let state = stopped.state().clone();
                prop_assert_eq!(stopped.on(request, at(second)), REPEAT);
                prop_assert_eq!(stopped.state(), &state);
            }
        }
    }
}
