//! Models that nobody uses: how they rest, and what brings them back.

use super::*;

#[test]
fn a_model_that_nobody_uses_rests_until_somebody_does() {
    let mut story = Story::to_ready();
    let generation = story.generation();
    assert_eq!(names(&story.on(Event::Idle { generation })), ["withdraw", "arm"]);
    assert_eq!(story.availability(), Availability::Ready);
    assert_eq!(names(&story.on(Event::Drained { generation })), ["fail", "signal", "arm"]);
    let effects = story.exit(ExitClass::Code(0));
    assert_eq!(names(&effects), ["release", "record"]);
    let Some(Effect::Record(Record::Exited(record))) = effects.get(1) else { panic!() };
    assert_eq!(record.kind, ExitKind::Retired);
    assert_eq!(
        story.machine.status(),
        Status {
            availability: Availability::Ready,
            reason: "idle: the next request starts a worker".into()
        }
    );
    assert_eq!(story.outcome(Event::Wanted), REPEAT);
    assert_eq!(names(&story.on(Event::Demand)), ["reserve"]);
    assert_eq!(story.outcome(Event::Demand), REPEAT);
    let ticket = story.ticket();
    let _spawn = story.on(Event::Granted { ticket });
    assert_eq!(story.availability(), Availability::Ready, "it was, and will be in a moment");
    let generation = story.generation();
    assert_eq!(names(&story.on(Event::Loaded { generation })), ["publish"]);
}

#[test]
fn demand_on_the_way_to_rest_brings_a_worker_up_again() {
    for drained in [false, true] {
        let mut story = Story::to_ready();
        let generation = story.generation();
        let _withdraw = story.on(Event::Idle { generation });
        if drained {
            let _signal = story.on(Event::Drained { generation });
        }
        assert!(story.machine.state().heeds_demand());
        assert_eq!(story.outcome(Event::Demand), NO_EFFECTS);
        assert!(!story.machine.state().heeds_demand());
        assert_eq!(story.availability(), Availability::Ready);
        let effects = names(&story.exit(ExitClass::Code(0)));
        assert_eq!(effects.last(), Some(&"reserve"), "{effects:?}");
    }
}

#[test]
fn a_model_at_rest_can_be_unloaded_and_forgets_no_request_for_memory() {
    let rest = || {
        let mut story = Story::to_ready();
        let generation = story.generation();
        let _withdraw = story.on(Event::Idle { generation });
        let _gone = story.exit(ExitClass::Code(0));
        story
    };
    for event in [Event::Unwanted, Event::ServerEnds, Event::StopNow] {
        let mut story = rest();
        assert_eq!(story.outcome(event), NO_EFFECTS);
        assert_eq!(story.name(), "unloaded");
        assert_eq!(story.outcome(Event::Demand), REPEAT);
    }
    let mut story = rest();
    let _reserve = story.on(Event::Demand);
    let denied = Event::Denied { ticket: story.ticket(), reason: "full".into() };
    assert_eq!(names(&story.on(denied)), ["record", "arm"]);
    assert_eq!(story.machine.status().reason, "tries again after 1s: full");
    assert_eq!(names(&story.fire()), ["reserve"]);
    let denied = Event::Denied { ticket: story.ticket(), reason: "full".into() };
    assert_eq!(names(&story.on(denied)), ["record", "arm"], "it is still wanted by a request");
}
