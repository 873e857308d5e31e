//! A made-up world around one machine: a process that loads, hangs, crashes, ignores signals and
//! exits; an account that grants, denies and is slow; timers that come late and twice; clients and
//! operators that ask for anything at any time. All of it follows from the seed.

use std::collections::BTreeMap;
use std::time::Duration;

use shared::clock::MonotonicNanos;
use shared::id::Generation;
use supervisor::health::Reason;
use supervisor::lifecycle::{
    Effect, Event, ExitClass, Jitter, LoadFault, Retry, State, Ticket, Token,
};

use crate::checker::{Checked, Checker, ensure};
use crate::subject::{Mutation, Subject, exit_event};

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) tally: Tally,
    subject: Subject,
    checker: Checker,
    dice: Dice,
    now: MonotonicNanos,
    /// What will happen, by time and then by the order in which it was planned.
    agenda: BTreeMap<(u64, u64), Coming>,
    planned: u64,
    /// Events that were delivered, to be delivered again.
    past: Vec<Event>,
    /// The timer that was armed last and has not been served.
    armed: Option<Token>,
    /// The reservation that was asked for last and has no answer.
    asked: Option<Ticket>,
    exits_delivered: Generation,
    signals: Signals,
    told_drained: Option<Generation>,
    /// In calm times once is enough, or a machine that is deaf would keep the world going.
    told_demand: bool,
    requests: u64,
    mood: Mood,
}

/// Whether things still go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Faulty,
    Calm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signals {
    Heeded,
    Ignored,
}

#[derive(Clone, Debug)]
enum Coming {
    Deliver(Event),
    Death(Generation, ExitClass),
}

/// What happened, to show that the properties were put to the test.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    ready: u64,
    failed_requests: u64,
    stale: u64,
    kills: u64,
    restarts: u64,
    quarantined: u64,
    denied: u64,
    denied_again: u64,
    cancelled: u64,
    idle: u64,
    woken: u64,
    starved: u64,
    rest_resting: u64,
    rest_ready: u64,
    rest_unloaded: u64,
    rest_quarantined: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.fields().into_iter().zip(other.clone().fields()) {
            *mine += *theirs;
        }
    }

    pub(crate) fn is_thorough(&self) -> bool {
        self.clone().fields().into_iter().all(|count| *count > 50)
    }

    fn fields(&mut self) -> [&mut u64; 16] {
        [
            &mut self.ready,
            &mut self.failed_requests,
            &mut self.stale,
            &mut self.kills,
            &mut self.restarts,
            &mut self.quarantined,
            &mut self.denied,
            &mut self.denied_again,
            &mut self.cancelled,
            &mut self.idle,
            &mut self.woken,
            &mut self.starved,
            &mut self.rest_resting,
            &mut self.rest_ready,
            &mut self.rest_unloaded,
            &mut self.rest_quarantined,
        ]
    }
}

impl World {
    pub(crate) fn new(seed: u64, mutation: Mutation) -> Self {
        Self {
            tally: Tally::default(),
            subject: Subject::new(mutation),
            checker: Checker::default(),
            dice: Dice::new(seed),
            now: MonotonicNanos(1),
            agenda: BTreeMap::new(),
            planned: 0,
            past: Vec::new(),
            armed: None,
            asked: None,
            exits_delivered: Generation(0),
            signals: Signals::Heeded,
            told_drained: None,
            told_demand: false,
            requests: 0,
            mood: Mood::Faulty,
        }
    }

    /// One thing happens.
    pub(crate) fn step(&mut self) -> Checked {
        match self.dice.below(100) {
            0..45 => self.next_on_agenda()?,
            45..55 => self.ask()?,
            55..70 => self.submit(),
            70..80 => self.complete(),
            80..84 => self.crash(),
            84..87 => self.turn_unhealthy(),
            87..89 => self.grow_idle()?,
            89..93 => self.replay()?,
            _ => self.now = self.now.after(Duration::from_millis(self.dice.below(3000))),
        }
        self.notice_drained();
        self.notice_demand();
        self.checker.standing(self.subject.state())?;
        self.stops_can_be_repeated()
    }

    /// Faults stop, nobody asks for anything any more, and everything on the agenda happens. Some
    /// worlds are idle then, and some of those are woken once more.
    pub(crate) fn come_to_rest(&mut self) -> Checked {
        self.mood = Mood::Calm;
        self.settle()?;
        if self.dice.one_in(2) {
            self.grow_idle()?;
            if self.dice.one_in(2) {
                self.submit();
            }
            self.settle()?;
        }
        match self.subject.state() {
            State::Ready { .. } => self.tally.rest_ready += 1,
            State::Unloaded(_) => self.tally.rest_unloaded += 1,
            State::Resting => self.tally.rest_resting += 1,
            State::Quarantined(_) => self.tally.rest_quarantined += 1,
            State::Reserving { .. } | State::Starting { .. } | State::Draining { .. } => {}
            State::Stopping(_) | State::Backoff { .. } => {}
        }
        self.checker.at_rest(self.subject.state())
    }

    fn settle(&mut self) -> Checked {
        self.notice_demand();
        for _ in 0..2000 {
            if self.agenda.is_empty() {
                return Ok(());
            }
            self.next_on_agenda()?;
            self.notice_drained();
            self.notice_demand();
            self.checker.standing(self.subject.state())?;
        }
        Err("property 5: it never comes to rest".into())
    }

    fn next_on_agenda(&mut self) -> Checked {
        let Some(((at, _), coming)) = self.agenda.pop_first() else { return Ok(()) };
        self.now = self.now.max(MonotonicNanos(at));
        match coming {
            Coming::Deliver(event) => self.deliver(event),
            Coming::Death(generation, class) => {
                if self.checker.alive == Some(generation) {
                    self.checker.alive = None;
                    let jitter = Jitter::new(self.dice.fraction());
                    self.plan(100, Coming::Deliver(exit_event(generation, class, jitter)));
                }
                Ok(())
            }
        }
    }

    fn ask(&mut self) -> Checked {
        let event = match self.dice.below(20) {
            0..11 => Event::Wanted,
            11..15 => Event::Unwanted,
            15 => Event::ServerEnds,
            16..18 => Event::StopNow,
            18 => Event::OperatorReset,
            _ => Event::Renew,
        };
        if event == Event::OperatorReset {
            self.checker.budget_cleared();
        }
        self.deliver(event)
    }

    fn submit(&mut self) {
        if let Some(generation) = self.checker.route {
            self.requests += 1;
            self.checker.open.entry(generation).or_default().insert(self.requests);
        } else if matches!(self.subject.state(), State::Unloaded(_) | State::Quarantined(_)) {
            // It is refused.
        } else {
            self.checker.waiting += 1;
        }
    }

    /// The transport takes an unused lane out of service, and says so, in one step.
    fn grow_idle(&mut self) -> Checked {
        let Some(generation) = self.checker.route else { return Ok(()) };
        if self.checker.has_open(generation) && !self.subject.rests_while_busy() {
            return Ok(());
        }
        self.tally.idle += 1;
        self.deliver(Event::Idle { generation })
    }

    /// As long as somebody waits, who rests is told.
    fn notice_demand(&mut self) {
        let state = self.subject.state();
        match state {
            State::Unloaded(_) | State::Quarantined(_) => self.checker.waiting = 0,
            State::Resting | State::Draining { .. } | State::Stopping(_) => {}
            State::Reserving { .. } | State::Starting { .. } => {}
            State::Ready { .. } | State::Backoff { .. } => {}
        }
        let told = self.agenda.values().any(|c| matches!(c, Coming::Deliver(Event::Demand)));
        if state.heeds_demand() && self.checker.waiting > 0 && !told && !self.told_demand {
            self.told_demand = self.mood == Mood::Calm;
            self.tally.woken += 1;
            self.plan(20, Coming::Deliver(Event::Demand));
        }
    }

    fn complete(&mut self) {
        let open = self.checker.alive.and_then(|alive| self.checker.open.get_mut(&alive));
        let _answered = open.and_then(std::collections::BTreeSet::pop_first);
    }

    fn crash(&mut self) {
        if let Some(generation) = self.checker.alive {
            let class = if self.dice.one_in(10) { 78 } else { 1 };
            self.plan(0, Coming::Death(generation, ExitClass::Code(class)));
        }
    }

    fn turn_unhealthy(&mut self) {
        if let Some(generation) = self.checker.alive {
            let why = match self.dice.one_in(3) {
                true => Reason::HostMemory { used: 2, limit: 1 },
                false => Reason::Violation("made up".into()),
            };
            self.plan(50, Coming::Deliver(Event::Unhealthy { generation, why }));
        }
    }

    /// Something from the past comes again: a duplicate, or of an older generation. An exit is seen
    /// once, because it is not told by the worker, so only one that was delivered comes again.
    fn replay(&mut self) -> Checked {
        let Ok(length) = u64::try_from(self.past.len()) else { return Ok(()) };
        let Some(pick) = usize::try_from(self.dice.below(length.max(1))).ok() else {
            return Ok(());
        };
        match self.past.get(pick).cloned() {
            Some(event) if self.is_stale(&event) => self.deliver(event),
            Some(_) | None => Ok(()),
        }
    }

    /// Hands one event to the machine and carries out what it asks for.
    fn deliver(&mut self, event: Event) -> Checked {
        let stale = self.is_stale(&event);
        let before = self.subject.state().clone();
        self.checker.told(&event);
        if let Event::Exited { generation, .. } = event {
            self.checker.exit_seen(generation);
            self.exits_delivered = self.exits_delivered.max(generation);
        }
        let effects = self.subject.on(event.clone(), self.now);
        if stale {
            self.tally.stale += 1;
            ensure(effects.is_empty() && before == *self.subject.state(), || {
                format!("property 4: {event:?} moved {before:?} to {:?}", self.subject.state())
            })?;
        }
        if let (false, Event::Timer { .. }) = (stale, &event) {
            self.armed = None;
        }
        if let (false, Event::Granted { .. } | Event::Denied { .. }) = (stale, &event) {
            self.asked = None;
        }
        let timer = matches!(event, Event::Timer { .. });
        let paid = matches!(before, State::Backoff { retry: Retry::Paid, .. });
        if timer && paid && before != *self.subject.state() {
            self.tally.restarts += 1;
            self.checker.restarted(self.now)?;
        }
        self.past.push(event);
        for effect in effects {
            self.checker.effect(&effect, self.subject.state())?;
            self.carry_out(effect);
        }
        self.count(&before);
        Ok(())
    }

    fn count(&mut self, before: &State) {
        let now = self.subject.state();
        if before.name() != now.name() {
            self.tally.ready += u64::from(matches!(now, State::Ready { .. }));
            self.tally.quarantined += u64::from(matches!(now, State::Quarantined(_)));
        }
    }

    /// Whether the event speaks of something that is over, by what the world knows.
    fn is_stale(&self, event: &Event) -> bool {
        match event {
            Event::Attached { generation }
            | Event::Loaded { generation }
            | Event::LoadFailed { generation, .. }
            | Event::Unhealthy { generation, .. }
            | Event::Drained { generation }
            | Event::Idle { generation }
            | Event::Exited { generation, .. } => *generation <= self.exits_delivered,
            Event::Timer { token } => Some(*token) != self.armed,
            Event::Granted { ticket } | Event::Denied { ticket, .. } => Some(*ticket) != self.asked,
            Event::Wanted | Event::Unwanted | Event::ServerEnds | Event::Demand => false,
            Event::StopNow | Event::OperatorReset | Event::Renew => false,
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::ReserveQuota { ticket } => self.reserve(ticket),
            Effect::Spawn { generation } => self.spawn(generation),
            Effect::Signal { generation } => self.signal(generation),
            Effect::KillGroup { generation } => self.kill(generation),
            Effect::ArmTimer { token, after } => self.arm(token, after),
            Effect::CancelReserve { .. } => {
                self.asked = None;
                self.tally.cancelled += 1;
            }
            Effect::FailInFlight { .. } => self.tally.failed_requests += 1,
            Effect::ReduceBatch => {}
            Effect::PublishRoute { .. } | Effect::WithdrawRoute { .. } => {}
            Effect::ReleaseQuota { .. } | Effect::Record(_) => {}
        }
    }

    /// The account decides at once, and its answer takes a while.
    fn reserve(&mut self, ticket: Ticket) {
        self.asked = Some(ticket);
        let answer = if self.goes_wrong(8) {
            self.tally.denied += 1;
            self.tally.denied_again += u64::from(self.checker.expects_a_worker());
            Event::Denied { ticket, reason: "full".to_owned() }
        } else {
            self.checker.granted(ticket);
            Event::Granted { ticket }
        };
        self.plan(2000, Coming::Deliver(answer));
    }

    fn spawn(&mut self, generation: Generation) {
        if self.goes_wrong(10) {
            let starved = self.dice.one_in(2);
            self.tally.starved += u64::from(starved);
            let class = if starved { ExitClass::SpawnStarved } else { ExitClass::SpawnFailed };
            let exit = exit_event(generation, class, Jitter::NONE);
            return self.plan(100, Coming::Deliver(exit));
        }
        self.checker.alive = Some(generation);
        self.signals = if self.goes_wrong(4) { Signals::Ignored } else { Signals::Heeded };
        let fate = if self.mood == Mood::Calm { 0 } else { self.dice.below(20) };
        let failed = |fault| {
            let message = "made up".to_owned();
            Coming::Deliver(Event::LoadFailed { generation, fault, message })
        };
        match fate {
            0..13 => {
                self.plan(2000, Coming::Deliver(Event::Attached { generation }));
                self.plan(5000, Coming::Deliver(Event::Loaded { generation }));
            }
            13 => self.plan(5000, failed(LoadFault::Transient)),
            14 => self.plan(5000, failed(LoadFault::Starved)),
            15 => self.plan(5000, failed(LoadFault::Permanent)),
            16..19 => self.plan(5000, Coming::Death(generation, ExitClass::Signal(11))),
            // It hangs.
            _ => {}
        }
    }

    fn signal(&mut self, generation: Generation) {
        if self.signals == Signals::Heeded {
            self.plan(3000, Coming::Death(generation, ExitClass::Signal(15)));
        }
    }

    /// A kill may be in vain while the process sits in the kernel.
    fn kill(&mut self, generation: Generation) {
        self.tally.kills += 1;
        if !self.goes_wrong(3) {
            self.plan(200, Coming::Death(generation, ExitClass::Signal(9)));
        }
    }

    /// Timers come late, and some come twice.
    fn arm(&mut self, token: Token, after: Duration) {
        self.armed = Some(token);
        let due = self.now.after(after);
        let late = if self.goes_wrong(5) { 10_000 } else { 10 };
        self.plan_from(due, late, Coming::Deliver(Event::Timer { token }));
        if self.goes_wrong(5) {
            self.plan_from(due, 20_000, Coming::Deliver(Event::Timer { token }));
        }
    }

    /// The transport tells once that nothing of a withdrawn generation is in flight.
    fn notice_drained(&mut self) {
        let State::Draining { worker, .. } = self.subject.state() else { return };
        let generation = worker.generation;
        if !self.checker.has_open(generation) && self.told_drained != Some(generation) {
            self.told_drained = Some(generation);
            self.plan(50, Coming::Deliver(Event::Drained { generation }));
        }
    }

    fn stops_can_be_repeated(&self) -> Checked {
        for request in [Event::Unwanted, Event::ServerEnds, Event::StopNow] {
            let mut stopped = self.subject.clone();
            let _first = stopped.on(request.clone(), self.now);
            let state = stopped.state().clone();
            let second = stopped.on(request.clone(), self.now);
            ensure(second.is_empty() && state == *stopped.state(), || {
                format!("property 6: {request:?} again in {state:?} had effects {second:?}")
            })?;
        }
        Ok(())
    }

    /// Plans something for a random moment within so many milliseconds.
    fn plan(&mut self, within_ms: u64, coming: Coming) {
        self.plan_from(self.now, within_ms, coming);
    }

    fn plan_from(&mut self, start: MonotonicNanos, within_ms: u64, coming: Coming) {
        let at = start.after(Duration::from_millis(self.dice.below(within_ms + 1)));
        self.planned += 1;
        self.agenda.insert((at.0, self.planned), coming);
    }

    fn goes_wrong(&mut self, one_in: u64) -> bool {
        self.mood == Mood::Faulty && self.dice.one_in(one_in)
    }
}

/// Xorshift64*: enough for a test, the same everywhere, nothing to depend on.
#[derive(Clone, Debug)]
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        // Neighbouring seeds must not start with neighbouring numbers, and never with zero.
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    fn fraction(&mut self) -> f64 {
        f64::from(u32::try_from(self.below(1001)).unwrap_or(0)) / 1000.0
    }
}
