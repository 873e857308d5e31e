//! The table of the lifecycle, row by row.

use super::super::event::ExitClass;
use super::super::restart::Backoff;
use super::super::state::{Availability, Status};
use super::*;
use crate::exit_kind::ExitPattern;

#[path = "machine_properties.rs"]
mod properties;
#[path = "machine_rest_tests.rs"]
mod rest;

const SECOND: Duration = Duration::from_secs(1);
const RESTARTS_SLOW: &str =
    "restarts after 1s (1 of 2 within 60s): start_timeout: it did not load in time";

fn policy() -> Policy {
    Policy {
        greet_timeout: 25 * SECOND,
        load_timeout: 60 * SECOND,
        drain_timeout: 30 * SECOND,
        stop_grace: 5 * SECOND,
        kill_repeat: 2 * SECOND,
        restart: RestartPolicy {
            max_restarts: 2,
            window: 60 * SECOND,
            backoff: Backoff {
                initial: SECOND,
                factor: 2.0,
                max: 10 * SECOND,
                jitter: 0.0,
                reset_after: 30 * SECOND,
            },
            no_retry_on: vec![ExitPattern::Kind(ExitKind::Code(78))],
        },
        on_oom: OnOom::Restart,
    }
}

fn at(seconds: u64) -> MonotonicNanos {
    MonotonicNanos(0).after(Duration::from_secs(seconds))
}

/// A machine and the clock of its test.
struct Story {
    machine: Machine,
    now: MonotonicNanos,
}

impl Story {
    fn new() -> Self {
        Self { machine: Machine::new(policy()), now: at(0) }
    }

    fn on(&mut self, event: Event) -> Effects {
        self.machine.on(event, self.now).into_effects()
    }

    fn outcome(&mut self, event: Event) -> Outcome {
        self.machine.on(event, self.now)
    }

    fn wait(&mut self, seconds: u64) {
        self.now = self.now.after(Duration::from_secs(seconds));
    }

    fn generation(&self) -> Generation {
        self.machine.state().worker().expect("the state has a worker").generation
    }

    fn ticket(&self) -> Ticket {
        let state = self.machine.state();
        if let State::Reserving { ticket, .. } = state {
            return *ticket;
        }
        state.worker().expect("the state has a worker").ticket
    }

    fn exit(&mut self, class: ExitClass) -> Effects {
        let exit = ExitReport { class, detail: String::new() };
        let generation = self.generation();
        self.on(Event::Exited { generation, exit, jitter: Jitter::NONE })
    }

    fn fire(&mut self) -> Effects {
        let token = self.timer();
        self.on(Event::Timer { token })
    }

    fn timer(&self) -> Token {
        self.machine.state().timer().expect("the state has a timer")
    }

    fn to_starting() -> Self {
        let mut story = Self::new();
        let _reserve = story.on(Event::Wanted);
        let ticket = story.ticket();
        let _spawn = story.on(Event::Granted { ticket });
        story
    }

    fn to_ready() -> Self {
        let mut story = Self::to_starting();
        let generation = story.generation();
        let _publish = story.on(Event::Loaded { generation });
        story
    }

    fn to_draining() -> Self {
        let mut story = Self::to_ready();
        let _withdraw = story.on(Event::Unwanted);
        story
    }

    fn to_backoff() -> Self {
        let mut story = Self::to_starting();
        let _restart = story.exit(ExitClass::Signal(9));
        story
    }

    fn to_quarantined() -> Self {
        let mut story = Self::to_starting();
        let _never = story.exit(ExitClass::Code(78));
        story
    }

    fn load_failed(&mut self, fault: LoadFault) -> Effects {
        let generation = self.generation();
        self.on(Event::LoadFailed { generation, fault, message: "no such file".into() })
    }

    fn name(&self) -> &'static str {
        self.machine.state().name()
    }

    fn availability(&self) -> Availability {
        self.machine.status().availability
    }
}

/// The names of the effects, in order; what they carry is checked where it matters.
fn names(effects: &[Effect]) -> Vec<&'static str> {
    let name = |effect: &Effect| match effect {
        Effect::ReserveQuota { .. } => "reserve",
        Effect::CancelReserve { .. } => "cancel",
        Effect::Spawn { .. } => "spawn",
        Effect::PublishRoute { .. } => "publish",
        Effect::WithdrawRoute { .. } => "withdraw",
        Effect::FailInFlight { .. } => "fail",
        Effect::Signal { .. } => "signal",
        Effect::KillGroup { .. } => "kill",
        Effect::ArmTimer { .. } => "arm",
        Effect::ReleaseQuota { .. } => "release",
        Effect::ReduceBatch => "reduce",
        Effect::Record(_) => "record",
    };
    effects.iter().map(name).collect()
}

#[test]
fn the_way_up() {
    let mut story = Story::new();
    assert_eq!(story.availability(), Availability::Unloaded);
    assert_eq!(names(&story.on(Event::Wanted)), ["reserve"]);
    assert_eq!(story.availability(), Availability::Loading);
    let ticket = story.ticket();
    let (generation, timer) = (Generation(1), Token(2));
    let limit = Effect::ArmTimer { token: timer, after: 25 * SECOND };
    assert_eq!(story.on(Event::Granted { ticket }), [Effect::Spawn { generation }, limit]);
    let limit = Effect::ArmTimer { token: Token(3), after: 60 * SECOND };
    assert_eq!(story.on(Event::Attached { generation }), [limit]);
    assert_eq!(story.on(Event::Timer { token: timer }), []);
    let publish = Effect::PublishRoute { generation };
    assert_eq!(story.on(Event::Loaded { generation }), [publish]);
    assert_eq!(
        story.machine.status(),
        Status { availability: Availability::Ready, reason: String::new() }
    );
}

#[test]
fn a_worker_that_is_greeted_too_late_is_not_given_more_time() {
    let mut story = Story::new();
    let _reserve = story.on(Event::Wanted);
    let _spawn = story.on(Event::Granted { ticket: story.ticket() });
    let generation = story.generation();
    assert_eq!(names(&story.fire()), ["signal", "arm"]);
    assert_eq!(story.on(Event::Attached { generation }), []);
    assert_eq!(names(&story.fire()), ["kill", "arm"]);
}

#[test]
fn the_way_down() {
    let mut story = Story::to_ready();
    assert_eq!(names(&story.on(Event::Unwanted)), ["withdraw", "arm"]);
    assert_eq!(story.availability(), Availability::Unloading);
    let generation = story.generation();
    assert_eq!(names(&story.on(Event::Drained { generation })), ["fail", "signal", "arm"]);
    assert_eq!(names(&story.fire()), ["kill", "arm"]);
    assert_eq!(names(&story.fire()), ["kill", "arm"]);
    assert_eq!(names(&story.exit(ExitClass::Signal(9))), ["release", "record"]);
    assert_eq!(
        story.machine.status(),
        Status { availability: Availability::Unloaded, reason: "unloaded".into() }
    );
}

#[test]
fn a_denial_is_recorded_and_shown() {
    let mut story = Story::new();
    let _reserve = story.on(Event::Wanted);
    let denied = Event::Denied { ticket: story.ticket(), reason: "8 GiB asked, 2 free".into() };
    assert_eq!(names(&story.on(denied)), ["record"]);
    assert_eq!(
        story.machine.status(),
        Status { availability: Availability::Unavailable, reason: "8 GiB asked, 2 free".into() }
    );
    assert_eq!(names(&story.on(Event::Wanted)), ["reserve"]);
}

#[test]
fn a_grant_that_comes_after_the_reservation_was_cancelled_starts_nothing() {
    let mut story = Story::new();
    let _reserve = story.on(Event::Wanted);
    let cancelled = story.ticket();
    assert_eq!(story.on(Event::Unwanted), [Effect::CancelReserve { ticket: cancelled }]);
    let _reserve = story.on(Event::Wanted);
    assert_eq!(story.outcome(Event::Granted { ticket: cancelled }), STALE);
    assert_eq!(story.name(), "reserving");
}

#[test]
fn a_permanent_load_failure_quarantines_and_a_transient_one_restarts() {
    let mut story = Story::to_starting();
    assert_eq!(names(&story.load_failed(LoadFault::Permanent)), ["signal", "arm"]);
    assert_eq!(story.availability(), Availability::Unavailable);
    assert_eq!(names(&story.exit(ExitClass::Code(1))), ["release", "record"]);
    assert_eq!(story.name(), "quarantined");
    let reason = story.machine.status().reason;
    assert!(
        reason.starts_with("load_error: the model cannot be loaded: no such file; "),
        "{reason}"
    );
    assert!(reason.ends_with("(POST /v2/repository/models/NAME/load) clears this"), "{reason}");

    let mut story = Story::to_starting();
    assert_eq!(names(&story.load_failed(LoadFault::Transient)), ["signal", "arm"]);
    assert_eq!(names(&story.exit(ExitClass::Code(1))), ["release", "record", "arm"]);
    assert_eq!(story.name(), "backoff");
}

#[test]
fn a_slow_load_is_stopped_and_tried_again() {
    let mut story = Story::to_starting();
    assert_eq!(names(&story.fire()), ["signal", "arm"]);
    assert_eq!(story.availability(), Availability::Loading);
    assert_eq!(names(&story.exit(ExitClass::Signal(15))), ["release", "record", "arm"]);
    assert_eq!(story.machine.status().reason, RESTARTS_SLOW);
    assert_eq!(names(&story.fire()), ["reserve"]);
}

#[test]
fn a_crash_withdraws_fails_releases_and_records_in_this_order() {
    let mut story = Story::to_ready();
    let effects = story.exit(ExitClass::Signal(11));
    assert_eq!(names(&effects), ["withdraw", "fail", "release", "record", "arm"]);
    let expected =
        "restarts after 1s (1 of 2 within 60s): SIGSEGV: it was ended by signal 11 (SIGSEGV)";
    assert_eq!(story.machine.status().reason, expected);
}

#[test]
fn an_unhealthy_worker_is_not_waited_for() {
    let mut story = Story::to_ready();
    let generation = story.generation();
    let why = health::Reason::Hung { overdue: SECOND };
    let effects = story.on(Event::Unhealthy { generation, why: why.clone() });
    assert_eq!(names(&effects), ["withdraw", "fail", "signal", "arm"]);
    assert_eq!(story.outcome(Event::Unhealthy { generation, why: why.clone() }), REPEAT);
    let effects = story.exit(ExitClass::Signal(15));
    let Some(Effect::Record(Record::Exited(record))) = effects.get(1) else {
        panic!("{effects:?}");
    };
    assert_eq!(record.cause, StopCause::Unhealthy(why));
}

#[test]
fn a_worker_with_too_much_memory_is_killed_at_once() {
    let mut story = Story::to_ready();
    let generation = story.generation();
    let hung = health::Reason::Hung { overdue: SECOND };
    let why = health::Reason::HostMemory { used: 2, limit: 1 };
    let effects = story.on(Event::Unhealthy { generation, why: why.clone() });
    assert_eq!(names(&effects), ["withdraw", "fail", "kill", "arm"]);
    assert_eq!(story.outcome(Event::Unhealthy { generation, why: why.clone() }), REPEAT);
    // Nor is the patience kept that it had for another reason.
    let mut story = Story::to_ready();
    let _signal = story.on(Event::Unhealthy { generation, why: hung.clone() });
    let effects = story.on(Event::Unhealthy { generation, why });
    assert_eq!(names(&effects), ["kill", "arm"]);
    let effects = story.exit(ExitClass::Signal(9));
    let Some(Effect::Record(Record::Exited(record))) = effects.get(1) else {
        panic!("{effects:?}");
    };
    assert_eq!(record.cause, StopCause::Unhealthy(hung));
}

#[test]
fn unhealthy_while_draining_ends_the_patience_and_keeps_what_follows() {
    let mut story = Story::to_draining();
    let generation = story.generation();
    let why = health::Reason::Hung { overdue: SECOND };
    let effects = story.on(Event::Unhealthy { generation, why });
    assert_eq!(names(&effects), ["fail", "signal", "arm"]);
    let _gone = story.exit(ExitClass::Signal(15));
    assert_eq!(story.name(), "unloaded");
}

#[test]
fn an_exit_while_draining_fails_what_remains() {
    let mut story = Story::to_draining();
    assert_eq!(names(&story.exit(ExitClass::Signal(11))), ["fail", "release", "record"]);
    assert_eq!(story.name(), "unloaded");
}

#[test]
fn wanted_on_the_way_down_comes_back_after_the_exit() {
    let mut story = Story::to_draining();
    assert_eq!(story.outcome(Event::Wanted), NO_EFFECTS);
    assert_eq!(story.outcome(Event::Wanted), REPEAT);
    let _signal = story.fire();
    assert_eq!(story.outcome(Event::Unwanted), NO_EFFECTS);
    assert_eq!(story.outcome(Event::Wanted), NO_EFFECTS);
    assert_eq!(names(&story.exit(ExitClass::Code(0))), ["release", "record", "reserve"]);
    assert_eq!(story.name(), "reserving");
}

#[test]
fn a_crash_loop_ends_in_quarantine_until_an_operator_acts() {
    let mut story = Story::to_backoff();
    for _restart in 0..2 {
        let _reserve = story.fire();
        let ticket = story.ticket();
        let _spawn = story.on(Event::Granted { ticket });
        let _crash = story.exit(ExitClass::Signal(6));
    }
    let expected = "gave up after 2 restarts within 60s; last: SIGABRT: it was ended by signal 6";
    let reason = story.machine.status().reason;
    assert!(reason.starts_with(expected), "{reason}");
    let refused = Outcome::Ignored(Ignored::Quarantined);
    assert_eq!(story.outcome(Event::Wanted), refused);
    assert_eq!(names(&story.on(Event::OperatorReset)), ["reserve"]);
    let ticket = story.ticket();
    let _spawn = story.on(Event::Granted { ticket });
    let _crash = story.exit(ExitClass::Signal(6));
    assert_eq!(story.name(), "backoff", "the budget was cleared");
}

#[test]
fn the_first_crash_after_a_long_healthy_run_restarts_at_once() {
    let mut story = Story::to_ready();
    story.wait(30);
    let effects = story.exit(ExitClass::Signal(11));
    let Some(Effect::ArmTimer { after, .. }) = effects.last() else { panic!("{effects:?}") };
    assert_eq!(*after, Duration::ZERO);
}

#[test]
fn a_worker_that_hung_after_a_long_healthy_run_restarts_at_once_too() {
    let mut story = Story::to_ready();
    story.wait(30);
    let generation = story.generation();
    let why = health::Reason::Hung { overdue: SECOND };
    let _signal = story.on(Event::Unhealthy { generation, why });
    story.wait(5);
    let effects = story.exit(ExitClass::Code(78));
    let Some(Effect::ArmTimer { after, .. }) = effects.last() else { panic!("{effects:?}") };
    assert_eq!(*after, Duration::ZERO);
}

#[test]
fn a_reset_while_a_bad_worker_ends_gives_it_another_chance() {
    let mut story = Story::to_starting();
    let _signal = story.load_failed(LoadFault::Permanent);
    assert_eq!(story.outcome(Event::Wanted), Outcome::Ignored(Ignored::Quarantined));
    assert_eq!(story.outcome(Event::OperatorReset), NO_EFFECTS);
    assert_eq!(names(&story.exit(ExitClass::Code(1))), ["release", "record", "reserve"]);
}

#[test]
fn a_reset_cuts_a_delay_short() {
    let mut story = Story::to_backoff();
    let delay = story.timer();
    assert_eq!(names(&story.on(Event::OperatorReset)), ["reserve"]);
    assert_eq!(story.outcome(Event::Timer { token: delay }), STALE);
}

#[test]
fn a_worker_is_renewed_when_what_it_had_is_answered() {
    let mut story = Story::to_ready();
    let generation = story.generation();
    assert_eq!(names(&story.on(Event::Renew)), ["withdraw", "arm"]);
    assert_eq!(story.outcome(Event::Renew), REPEAT);
    assert_eq!(story.machine.status().availability, Availability::Loading, "requests wait");
    assert_eq!(names(&story.on(Event::Drained { generation })), ["fail", "signal", "arm"]);
    assert_eq!(names(&story.exit(ExitClass::Code(0))), ["release", "record", "reserve"]);
    assert_eq!(names(&Story::to_backoff().on(Event::Renew)), ["reserve"]);
    for mut fresh in [Story::to_starting(), Story::to_draining()] {
        assert_eq!(fresh.outcome(Event::Renew), REPEAT);
    }
    let refused = Outcome::Ignored(Ignored::Quarantined);
    assert_eq!(Story::to_quarantined().outcome(Event::Renew), refused);
}

#[test]
fn unwanted_ends_backoff_and_quarantine() {
    for mut story in [Story::to_backoff(), Story::to_quarantined()] {
        assert_eq!(story.outcome(Event::Unwanted), NO_EFFECTS);
        assert_eq!(story.name(), "unloaded");
    }
}

#[test]
fn a_second_request_to_stop_skips_to_the_kill() {
    let stop_now = |story: &mut Story| names(&story.on(Event::StopNow));
    assert_eq!(stop_now(&mut Story::to_starting()), ["kill", "arm"]);
    assert_eq!(stop_now(&mut Story::to_ready()), ["withdraw", "fail", "kill", "arm"]);
    let mut story = Story::to_draining();
    assert_eq!(stop_now(&mut story), ["fail", "kill", "arm"]);
    assert_eq!(story.outcome(Event::StopNow), REPEAT);
    let mut story = Story::to_draining();
    let _signal = story.fire();
    assert_eq!(stop_now(&mut story), ["kill", "arm"]);
    assert_eq!(names(&story.exit(ExitClass::Signal(9))), ["release", "record"]);
    assert_eq!(story.name(), "unloaded");
}

#[test]
fn what_is_stale_or_has_no_meaning_is_counted() {
    let mut story = Story::to_ready();
    let old = Generation(0);
    assert_eq!(story.outcome(Event::Drained { generation: old }), STALE);
    assert_eq!(story.outcome(Event::Timer { token: Token(2) }), STALE);
    assert_eq!(story.outcome(Event::Loaded { generation: Generation(1) }), UNLISTED);
    assert_eq!(story.outcome(Event::Wanted), REPEAT);
    let expected = IgnoredCounts { repeats: 1, stale: 2, quarantined: 0, unlisted: 1 };
    assert_eq!(story.machine.ignored(), expected);
}

#[test]
fn a_new_policy_counts_from_the_next_timer_on() {
    let mut story = Story::to_ready();
    story.machine.set_policy(Policy { drain_timeout: 7 * SECOND, ..policy() });
    let effects = story.on(Event::Unwanted);
    let Some(Effect::ArmTimer { after, .. }) = effects.last() else { panic!("{effects:?}") };
    assert_eq!(*after, 7 * SECOND);
}

fn oom_policy(on_oom: OnOom) -> Policy {
    Policy { on_oom, ..policy() }
}

fn ready_with(policy: Policy) -> Story {
    let mut story = Story::to_ready();
    story.machine.set_policy(policy);
    story
}

#[test]
fn memory_that_ran_out_is_followed_by_what_the_policy_says() {
    for class in [ExitClass::HostOutOfMemory, ExitClass::DeviceOutOfMemory] {
        let mut story = ready_with(oom_policy(OnOom::Restart));
        assert_eq!(names(&story.exit(class)), ["withdraw", "fail", "release", "record", "arm"]);
        let mut story = ready_with(oom_policy(OnOom::RestartWithSmallerBatch));
        let effects = story.exit(class);
        assert_eq!(names(&effects), ["withdraw", "fail", "release", "record", "reduce", "arm"]);
        let mut story = ready_with(oom_policy(OnOom::Stop));
        assert_eq!(names(&story.exit(class)), ["withdraw", "fail", "release", "record"]);
        assert_eq!(story.name(), "quarantined");
        assert!(story.machine.status().reason.contains("on_oom"), "{:?}", story.machine.status());
        assert_eq!(names(&story.on(Event::OperatorReset)), ["reserve"]);
    }
    let mut story = Story::to_starting();
    story.machine.set_policy(oom_policy(OnOom::RestartWithSmallerBatch));
    let effects = story.exit(ExitClass::HostOutOfMemory);
    assert_eq!(names(&effects), ["release", "record", "arm"], "there was no batch yet");
    let mut story = Story::to_starting();
    story.machine.set_policy(oom_policy(OnOom::Stop));
    assert_eq!(names(&story.exit(ExitClass::DeviceOutOfMemory)), ["release", "record"]);
    assert_eq!(story.name(), "quarantined", "a model that does not fit its device");
    let mut story = ready_with(oom_policy(OnOom::Stop));
    let _other = story.exit(ExitClass::Signal(9));
    assert_eq!(story.name(), "backoff", "a kill may have many causes");
}

#[test]
fn a_kind_that_the_policy_names_is_quarantined_at_once() {
    let mut policy = policy();
    policy.restart.no_retry_on = vec![ExitPattern::Kind(ExitKind::Hang), ExitPattern::AnySignal];
    let mut story = ready_with(policy.clone());
    let _crash = story.exit(ExitClass::Signal(11));
    let expected = "not restarted, as no_retry_on says for SIGSEGV; last: SIGSEGV: it was ended";
    let reason = story.machine.status().reason;
    assert!(reason.starts_with(expected), "{reason}");
    let mut story = ready_with(policy);
    let generation = story.generation();
    let why = health::Reason::Hung { overdue: SECOND };
    let _signal = story.on(Event::Unhealthy { generation, why });
    let _gone = story.exit(ExitClass::Signal(15));
    assert!(story.machine.status().reason.contains("no_retry_on says for hang"));
}

#[test]
fn what_the_server_lacks_costs_the_model_nothing() {
    let mut story = Story::to_starting();
    for after in [1, 2, 4, 8, 10, 10] {
        let effects = story.exit(ExitClass::SpawnStarved);
        assert_eq!(names(&effects), ["release", "record", "arm"]);
        let Some(Effect::ArmTimer { after: delay, .. }) = effects.last() else { panic!() };
        assert_eq!(*delay, after * SECOND);
        let reason = story.machine.status().reason;
        assert!(
            reason.starts_with(&format!("tries again after {after}s: spawn_failed")),
            "{reason}"
        );
        let _reserve = story.fire();
        let ticket = story.ticket();
        let _spawn = story.on(Event::Granted { ticket });
    }
    let _crash = story.exit(ExitClass::Signal(11));
    assert!(story.machine.status().reason.contains("(1 of 2 within 60s)"), "nothing was spent");
}

#[test]
fn a_handshake_that_the_server_could_not_begin_costs_the_model_nothing() {
    let mut story = Story::to_starting();
    for _ in 0..5 {
        assert_eq!(names(&story.load_failed(LoadFault::Starved)), ["signal", "arm"]);
        let effects = story.exit(ExitClass::Signal(15));
        assert_eq!(names(&effects), ["release", "record", "arm"]);
        let reason = story.machine.status().reason;
        assert!(reason.contains(": spawn_failed: the server lacks"), "{reason}");
        let _reserve = story.fire();
        let ticket = story.ticket();
        let _spawn = story.on(Event::Granted { ticket });
    }
    let _crash = story.exit(ExitClass::Signal(11));
    assert!(story.machine.status().reason.contains("(1 of 2 within 60s)"), "nothing was spent");
}

fn deny(story: &mut Story) -> Vec<&'static str> {
    let denied = Event::Denied { ticket: story.ticket(), reason: "full".into() };
    names(&story.on(denied))
}

#[test]
fn a_worker_that_is_to_come_back_is_not_forgotten_when_memory_is_denied() {
    let restart = || {
        let mut story = Story::to_backoff();
        let _reserve = story.fire();
        story
    };
    let reset = || {
        let mut story = Story::to_quarantined();
        let _reserve = story.on(Event::OperatorReset);
        story
    };
    let reset_while_it_ends = || {
        let mut story = Story::to_starting();
        let _signal = story.load_failed(LoadFault::Permanent);
        let _noted = story.on(Event::OperatorReset);
        let _reserve = story.exit(ExitClass::Code(1));
        story
    };
    for mut story in [restart(), reset(), reset_while_it_ends()] {
        for _ in 0..5 {
            assert_eq!(story.availability(), Availability::Loading);
            assert_eq!(deny(&mut story), ["record", "arm"]);
            assert_eq!(story.availability(), Availability::Loading, "requests wait");
            assert_eq!(names(&story.fire()), ["reserve"]);
        }
        let ticket = story.ticket();
        assert_eq!(names(&story.on(Event::Granted { ticket })), ["spawn", "arm"]);
        let _crash = story.exit(ExitClass::Signal(11));
        assert_eq!(story.name(), "backoff", "denials cost nothing");
    }
}

#[test]
fn the_end_of_the_server_ends_its_workers_cleanly() {
    let mut story = Story::to_ready();
    let _withdraw = story.on(Event::ServerEnds);
    let effects = story.exit(ExitClass::Code(0));
    let Some(Effect::Record(Record::Exited(record))) = effects.last() else {
        panic!("{effects:?}")
    };
    assert_eq!(record.kind, ExitKind::Clean);
}
