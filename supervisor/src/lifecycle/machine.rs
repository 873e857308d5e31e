//! The moves between the states: what each event does, and in which order.
//!
//! Owns the current state, the count of generations and the restart budget of one instance. It
//! carries nothing out. The diagram and a sentence for each edge are in [`super`].
//!
//! Invariants, each tested by simulation: a route is published in Ready alone and withdrawn before
//! any signal; the requests of a generation are failed once; a model rests only with nothing in
//! flight, and a request that waits ends the rest; memory is released once for each grant
//! and only after the exit; what is stale changes nothing; restarts stay within their budget;
//! requests to stop can be repeated.

use std::time::Duration;

use shared::clock::MonotonicNanos;
use shared::id::Generation;

use super::classify::{Phase, classify};
use super::effect::{Effect, Effects, ExitRecord, Record, StopCause};
use super::event::{Event, ExitClass, ExitReport, LoadFault, Ticket, Token};
use super::outcome::{Ignored, IgnoredCounts, NO_EFFECTS, Outcome, REPEAT, STALE, UNLISTED};
use super::restart::{Crash, Jitter, RestartBudget, RestartPolicy, Verdict};
use super::state::{
    Coming, Force, Quarantine, Retry, State, Status, Stopping, Then, Unloaded, Worker,
};
use crate::config::OnOom;
use crate::exit_kind::ExitKind;
use crate::health;

#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// From the spawn to a worker that has been greeted.
    pub greet_timeout: Duration,
    /// From there to a loaded model.
    pub load_timeout: Duration,
    /// For what is in flight when the model becomes unwanted.
    pub drain_timeout: Duration,
    /// From being asked to end to being killed.
    pub stop_grace: Duration,
    /// From one kill to the next, while the exit is not seen.
    pub kill_repeat: Duration,
    pub restart: RestartPolicy,
    pub on_oom: OnOom,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    state: State,
    policy: Policy,
    budget: RestartBudget,
    generation: Generation,
    /// Tokens and tickets given out so far.
    minted: u64,
    ignored: IgnoredCounts,
}

/// A process on its way out.
struct Leaving {
    worker: Worker,
    cause: StopCause,
    healthy_for: Duration,
    then: Then,
    phase: Phase,
    /// What brings the next one up, should this one cost nothing.
    coming: Coming,
}

impl Machine {
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            state: State::Unloaded(Unloaded::NeverWanted),
            budget: RestartBudget::new(policy.restart.clone()),
            policy,
            generation: Generation::default(),
            minted: 0,
            ignored: IgnoredCounts::default(),
        }
    }

    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    #[must_use]
    pub fn status(&self) -> Status {
        self.state.status()
    }

    #[must_use]
    pub fn ignored(&self) -> IgnoredCounts {
        self.ignored
    }

    /// Takes effect from the next timer and the next crash on.
    pub fn set_policy(&mut self, policy: Policy) {
        self.budget.set_policy(policy.restart.clone());
        self.policy = policy;
    }

    pub fn on(&mut self, event: Event, now: MonotonicNanos) -> Outcome {
        let outcome = if self.is_stale(&event) { STALE } else { self.handle(event, now) };
        if let Outcome::Ignored(why) = outcome {
            self.ignored.count(why);
        }
        outcome
    }

    /// The one place where what speaks of the past is dropped.
    fn is_stale(&self, event: &Event) -> bool {
        let current = self.state.worker().map(|worker| worker.generation);
        match event {
            Event::Timer { token } => self.state.timer() != Some(*token),
            Event::Granted { ticket } | Event::Denied { ticket, .. } => {
                !matches!(&self.state, State::Reserving { ticket: asked, .. } if asked == ticket)
            }
            Event::Wanted | Event::Unwanted | Event::ServerEnds | Event::Demand => false,
            Event::StopNow | Event::OperatorReset | Event::Renew => false,
            fact @ (Event::Loaded { .. }
            | Event::Attached { .. }
            | Event::LoadFailed { .. }
            | Event::Unhealthy { .. }
            | Event::Drained { .. }
            | Event::Idle { .. }
            | Event::Exited { .. }) => fact.generation() != current,
        }
    }

    fn handle(&mut self, event: Event, now: MonotonicNanos) -> Outcome {
        match event {
            Event::Wanted => self.wanted(),
            Event::Unwanted => self.unwanted(StopCause::Unwanted, now),
            Event::ServerEnds => self.unwanted(StopCause::ServerEnds, now),
            Event::Idle { .. } => self.idle(now),
            Event::Demand => self.demand(),
            Event::StopNow => self.stop_now(now),
            Event::OperatorReset => self.operator_reset(),
            Event::Renew => self.renew(now),
            Event::Granted { ticket } => self.granted(ticket),
            Event::Denied { reason, .. } => self.denied(reason),
            Event::Attached { .. } => self.attached(),
            Event::Loaded { .. } => self.loaded(now),
            Event::LoadFailed { fault, message, .. } => self.load_failed(fault, message, now),
            Event::Unhealthy { why, .. } => self.unhealthy(why, now),
            Event::Drained { .. } => self.drained(now),
            Event::Exited { exit, jitter, .. } => self.exited(exit, jitter, now),
            Event::Timer { .. } => self.timer(now),
        }
    }

    fn wanted(&mut self) -> Outcome {
        match &mut self.state {
            State::Unloaded(_) => Outcome::Accepted(self.reserve(Coming::Load, Effects::new())),
            State::Draining { then, .. } | State::Stopping(Stopping { then, .. }) => match then {
                Then::Unloaded => {
                    *then = Then::Reserving(Coming::Load);
                    NO_EFFECTS
                }
                Then::Reserving(_) | Then::Resting | Then::Backoff => REPEAT,
                Then::Quarantined(_) => Outcome::Ignored(Ignored::Quarantined),
            },
            State::Quarantined(_) => Outcome::Ignored(Ignored::Quarantined),
            State::Reserving { .. } | State::Starting { .. } | State::Ready { .. } => REPEAT,
            State::Resting | State::Backoff { .. } => REPEAT,
        }
    }

    fn unwanted(&mut self, cause: StopCause, now: MonotonicNanos) -> Outcome {
        match &mut self.state {
            State::Unloaded(_) => REPEAT,
            State::Reserving { ticket, .. } => {
                let ticket = *ticket;
                self.state = State::Unloaded(Unloaded::Unwanted);
                Outcome::Accepted(vec![Effect::CancelReserve { ticket }])
            }
            State::Starting { .. } => self.stop(cause, Then::Unloaded, now),
            State::Ready { worker, since } => {
                let (worker, healthy_for) = (*worker, now.since(*since));
                self.drain(worker, healthy_for, (cause, Then::Unloaded))
            }
            State::Draining { then, .. } | State::Stopping(Stopping { then, .. }) => {
                if *then == Then::Unloaded {
                    return REPEAT;
                }
                *then = Then::Unloaded;
                NO_EFFECTS
            }
            State::Resting | State::Backoff { .. } | State::Quarantined(_) => {
                self.state = State::Unloaded(Unloaded::Unwanted);
                NO_EFFECTS
            }
        }
    }

    fn idle(&mut self, now: MonotonicNanos) -> Outcome {
        let State::Ready { worker, since } = self.state else { return UNLISTED };
        self.drain(worker, now.since(since), (StopCause::Idle, Then::Resting))
    }

    fn demand(&mut self) -> Outcome {
        match &mut self.state {
            State::Resting => Outcome::Accepted(self.reserve(Coming::Demand, Effects::new())),
            State::Draining { then, .. } | State::Stopping(Stopping { then, .. }) => {
                if *then != Then::Resting {
                    return REPEAT;
                }
                *then = Then::Reserving(Coming::Demand);
                NO_EFFECTS
            }
            State::Unloaded(_) | State::Reserving { .. } | State::Starting { .. } => REPEAT,
            State::Ready { .. } | State::Backoff { .. } | State::Quarantined(_) => REPEAT,
        }
    }

    fn stop_now(&mut self, now: MonotonicNanos) -> Outcome {
        match &self.state {
            State::Starting { .. } | State::Ready { .. } | State::Draining { .. } => {
                self.go_down(StopCause::Unwanted, Then::Unloaded, Force::Killed, now)
            }
            State::Stopping(stopping) if stopping.force == Force::Asked => {
                let cause = stopping.cause.clone();
                self.go_down(cause, Then::Unloaded, Force::Killed, now)
            }
            State::Stopping(_) | State::Unloaded(_) | State::Reserving { .. } => {
                self.unwanted(StopCause::Unwanted, now)
            }
            State::Resting | State::Backoff { .. } | State::Quarantined(_) => {
                self.unwanted(StopCause::Unwanted, now)
            }
        }
    }

    fn operator_reset(&mut self) -> Outcome {
        self.budget.reset();
        match &mut self.state {
            State::Backoff { .. } | State::Quarantined(_) => {
                Outcome::Accepted(self.reserve(Coming::Restart, Effects::new()))
            }
            State::Draining { then, .. } | State::Stopping(Stopping { then, .. }) => {
                match then {
                    Then::Backoff | Then::Quarantined(_) => {
                        *then = Then::Reserving(Coming::Restart);
                    }
                    Then::Unloaded | Then::Reserving(_) | Then::Resting => {}
                }
                NO_EFFECTS
            }
            State::Unloaded(_) | State::Reserving { .. } | State::Resting => NO_EFFECTS,
            State::Starting { .. } | State::Ready { .. } => NO_EFFECTS,
        }
    }

    /// Where there is no process, or it is on its way out, the next one is new in any case.
    fn renew(&mut self, now: MonotonicNanos) -> Outcome {
        match &self.state {
            State::Ready { worker, since } => {
                let (worker, healthy_for) = (*worker, now.since(*since));
                let then = Then::Reserving(Coming::Restart);
                self.drain(worker, healthy_for, (StopCause::Renewed, then))
            }
            State::Backoff { .. } => self.timer(now),
            State::Quarantined(_) => Outcome::Ignored(Ignored::Quarantined),
            State::Unloaded(_) | State::Reserving { .. } | State::Starting { .. } => REPEAT,
            State::Draining { .. } | State::Stopping(_) | State::Resting => REPEAT,
        }
    }

    fn granted(&mut self, ticket: Ticket) -> Outcome {
        let State::Reserving { coming, .. } = self.state else { return UNLISTED };
        self.generation = self.generation.next();
        let (generation, timer) = (self.generation, self.token());
        self.state = State::Starting { worker: Worker { generation, ticket }, timer, coming };
        let limit = Effect::ArmTimer { token: timer, after: self.policy.greet_timeout };
        Outcome::Accepted(vec![Effect::Spawn { generation }, limit])
    }

    /// It is told what to load, and has its time for that from now on. Whoever says it does so once.
    fn attached(&mut self) -> Outcome {
        let State::Starting { worker, coming, .. } = self.state else { return UNLISTED };
        let timer = self.token();
        self.state = State::Starting { worker, timer, coming };
        let limit = Effect::ArmTimer { token: timer, after: self.policy.load_timeout };
        Outcome::Accepted(vec![limit])
    }

    /// Whoever asked for a load is told that there is no memory. A request that woke a model can
    /// wait for it, and nobody asks again for a worker that is to come back, so those are tried again.
    fn denied(&mut self, reason: String) -> Outcome {
        let State::Reserving { coming, .. } = self.state else { return UNLISTED };
        let mut effects = vec![Effect::Record(Record::Denied { reason: reason.clone() })];
        match coming {
            Coming::Load => self.state = State::Unloaded(Unloaded::Denied { reason }),
            Coming::Restart | Coming::Demand => {
                let after = self.budget.free_delay(Jitter::NONE);
                effects.push(self.back_off(after, reason, Retry::Free(coming)));
            }
        }
        Outcome::Accepted(effects)
    }

    fn loaded(&mut self, now: MonotonicNanos) -> Outcome {
        let State::Starting { worker, .. } = self.state else { return UNLISTED };
        self.state = State::Ready { worker, since: now };
        self.budget.ready();
        Outcome::Accepted(vec![Effect::PublishRoute { generation: worker.generation }])
    }

    fn load_failed(&mut self, fault: LoadFault, message: String, now: MonotonicNanos) -> Outcome {
        let State::Starting { .. } = self.state else { return UNLISTED };
        let then = match fault {
            LoadFault::Starved | LoadFault::NoHandshake | LoadFault::Transient => Then::Backoff,
            LoadFault::Permanent => {
                Then::Quarantined(Quarantine::CannotLoad { message: message.clone() })
            }
        };
        self.stop(StopCause::LoadFailed { fault, message }, then, now)
    }

    fn unhealthy(&mut self, why: health::Reason, now: MonotonicNanos) -> Outcome {
        let force = force(&why);
        match &self.state {
            State::Starting { .. } | State::Ready { .. } => {
                self.go_down(StopCause::Unhealthy(why), Then::Backoff, force, now)
            }
            State::Draining { then, .. } => {
                let then = then.clone();
                self.go_down(StopCause::Unhealthy(why), then, force, now)
            }
            State::Stopping(Stopping { force: Force::Asked, cause, then, .. })
                if force == Force::Killed =>
            {
                let (cause, then) = (cause.clone(), then.clone());
                self.go_down(cause, then, force, now)
            }
            State::Stopping(_) => REPEAT,
            State::Unloaded(_) | State::Reserving { .. } | State::Resting => UNLISTED,
            State::Backoff { .. } | State::Quarantined(_) => UNLISTED,
        }
    }

    fn drained(&mut self, now: MonotonicNanos) -> Outcome {
        let State::Draining { cause, then, .. } = &self.state else { return UNLISTED };
        let (cause, then) = (cause.clone(), then.clone());
        self.stop(cause, then, now)
    }

    fn timer(&mut self, now: MonotonicNanos) -> Outcome {
        match &self.state {
            State::Starting { .. } => self.stop(StopCause::LoadTimeout, Then::Backoff, now),
            State::Draining { .. } => self.drained(now),
            State::Stopping(Stopping { cause, then, .. }) => {
                let (cause, then) = (cause.clone(), then.clone());
                self.go_down(cause, then, Force::Killed, now)
            }
            State::Backoff { retry: Retry::Paid, .. } => {
                self.budget.restarted(now);
                Outcome::Accepted(self.reserve(Coming::Restart, Effects::new()))
            }
            State::Backoff { retry: Retry::Free(coming), .. } => {
                let coming = *coming;
                Outcome::Accepted(self.reserve(coming, Effects::new()))
            }
            State::Unloaded(_) | State::Reserving { .. } | State::Resting => UNLISTED,
            State::Ready { .. } | State::Quarantined(_) => UNLISTED,
        }
    }

    fn exited(&mut self, exit: ExitReport, jitter: Jitter, now: MonotonicNanos) -> Outcome {
        let Some(leaving) = self.leaving(now) else { return UNLISTED };
        let Leaving { worker, cause, healthy_for, then, phase, coming } = leaving;
        let (generation, during) = (worker.generation, self.state.name());
        let starved = is_starved(&cause, exit.class);
        let kind = classify(&cause, exit.class, phase);
        let mut effects = self.farewell(&cause);
        let record = ExitRecord { generation, during, kind, cause, exit, healthy_for };
        let last = record.reason();
        effects.push(Effect::ReleaseQuota { ticket: worker.ticket });
        effects.push(Effect::Record(Record::Exited(record)));
        match then {
            Then::Unloaded => self.state = State::Unloaded(Unloaded::Unwanted),
            Then::Resting => self.state = State::Resting,
            Then::Quarantined(why) => self.state = State::Quarantined(why),
            Then::Reserving(coming) => effects = self.reserve(coming, effects),
            Then::Backoff if starved => {
                let after = self.budget.free_delay(jitter);
                effects.push(self.back_off(after, last, Retry::Free(coming)));
            }
            Then::Backoff => {
                let verdict = self.budget.after_exit(Crash { healthy_for, kind }, jitter, now);
                effects.extend(self.crashed((kind, phase), verdict, last));
            }
        }
        Outcome::Accepted(effects)
    }

    /// What follows the end of a worker that is still wanted.
    fn crashed(
        &mut self,
        (kind, phase): (ExitKind, Phase),
        verdict: Verdict,
        last: String,
    ) -> Effects {
        let mut effects = Effects::new();
        match (self.policy.on_oom, verdict) {
            (OnOom::Stop, _) if kind.is_out_of_memory() => {
                self.state = State::Quarantined(Quarantine::OutOfMemory { last });
            }
            (_, Verdict::GiveUp(why)) => {
                self.state = State::Quarantined(Quarantine::NoRestart { why, last });
            }
            (on_oom, Verdict::Restart { after }) => {
                // One that was still loading had no batch that could have been too large.
                let by_a_batch = kind.is_out_of_memory() && phase == Phase::Serving;
                if on_oom == OnOom::RestartWithSmallerBatch && by_a_batch {
                    effects.push(Effect::ReduceBatch);
                }
                let why = format!("({}): {last}", self.budget.spent());
                effects.push(self.back_off(after, why, Retry::Paid));
            }
        }
        effects
    }

    /// What an exit would mean if it came now; `None` where there is no process.
    fn leaving(&self, now: MonotonicNanos) -> Option<Leaving> {
        let serving = (Phase::Serving, Coming::Restart);
        let (worker, cause, healthy_for, then, (phase, coming)) = match &self.state {
            State::Starting { worker, coming, .. } => {
                let starting = (Phase::Starting, *coming);
                (worker, StopCause::Unasked, Duration::ZERO, Then::Backoff, starting)
            }
            State::Ready { worker, since } => {
                (worker, StopCause::Unasked, now.since(*since), Then::Backoff, serving)
            }
            State::Draining { worker, healthy_for, cause, then, .. } => {
                (worker, cause.clone(), *healthy_for, then.clone(), serving)
            }
            State::Stopping(Stopping { worker, cause, healthy_for, then, phase, .. }) => {
                let stopping = (*phase, Coming::Restart);
                (worker, cause.clone(), *healthy_for, then.clone(), stopping)
            }
            State::Unloaded(_) | State::Reserving { .. } | State::Resting => return None,
            State::Backoff { .. } | State::Quarantined(_) => return None,
        };
        Some(Leaving { worker: *worker, cause, healthy_for, then, phase, coming })
    }

    fn back_off(&mut self, after: Duration, why: String, retry: Retry) -> Effect {
        let timer = self.token();
        self.state = State::Backoff { timer, after, why, retry };
        Effect::ArmTimer { token: timer, after }
    }

    fn reserve(&mut self, coming: Coming, mut effects: Effects) -> Effects {
        let ticket = Ticket(self.mint());
        self.state = State::Reserving { ticket, coming };
        effects.push(Effect::ReserveQuota { ticket });
        effects
    }

    fn drain(
        &mut self,
        worker: Worker,
        healthy_for: Duration,
        (cause, then): (StopCause, Then),
    ) -> Outcome {
        let timer = self.token();
        self.state = State::Draining { worker, timer, healthy_for, cause, then };
        Outcome::Accepted(vec![
            Effect::WithdrawRoute { generation: worker.generation },
            Effect::ArmTimer { token: timer, after: self.policy.drain_timeout },
        ])
    }

    fn stop(&mut self, cause: StopCause, then: Then, now: MonotonicNanos) -> Outcome {
        self.go_down(cause, then, Force::Asked, now)
    }

    /// One step down the ladder: no route, nothing in flight, and then the signal.
    fn go_down(
        &mut self,
        cause: StopCause,
        then: Then,
        force: Force,
        now: MonotonicNanos,
    ) -> Outcome {
        let Some(leaving) = self.leaving(now) else { return UNLISTED };
        let Leaving { worker, healthy_for, phase, .. } = leaving;
        let generation = worker.generation;
        let mut effects = self.farewell(&cause);
        let (signal, after) = match force {
            Force::Asked => (Effect::Signal { generation }, self.policy.stop_grace),
            Force::Killed => (Effect::KillGroup { generation }, self.policy.kill_repeat),
        };
        let timer = self.token();
        effects.extend([signal, Effect::ArmTimer { token: timer, after }]);
        self.state =
            State::Stopping(Stopping { worker, timer, force, cause, healthy_for, then, phase });
        Outcome::Accepted(effects)
    }

    /// What must come before this state's process is signalled or forgotten.
    fn farewell(&self, cause: &StopCause) -> Effects {
        let fail = |generation: Generation| {
            let cause = cause.clone();
            Effect::FailInFlight { generation, cause }
        };
        match &self.state {
            State::Ready { worker: Worker { generation, .. }, .. } => {
                vec![Effect::WithdrawRoute { generation: *generation }, fail(*generation)]
            }
            State::Draining { worker: Worker { generation, .. }, .. } => {
                vec![fail(*generation)]
            }
            State::Unloaded(_) | State::Reserving { .. } | State::Starting { .. } => Effects::new(),
            State::Stopping(_) | State::Resting => Effects::new(),
            State::Backoff { .. } | State::Quarantined(_) => Effects::new(),
        }
    }

    fn token(&mut self) -> Token {
        Token(self.mint())
    }

    fn mint(&mut self) -> u64 {
        self.minted += 1;
        self.minted
    }
}

/// Whether the worker had no chance, because the supervisor itself was short of something, or its device
/// was lost.
fn is_starved(cause: &StopCause, class: ExitClass) -> bool {
    let greeting = matches!(cause, StopCause::LoadFailed { fault: LoadFault::Starved, .. });
    let device = matches!(cause, StopCause::Unhealthy(health::Reason::DeviceLost(_)));
    greeting || device || class == ExitClass::SpawnStarved
}

/// Whether there is time to ask. Memory, threads and disk are taken from others while a worker makes
/// up its mind, and one that breaks the protocol is owed no grace in which to go on.
fn force(why: &health::Reason) -> Force {
    match why {
        health::Reason::HostMemory { .. }
        | health::Reason::Threads { .. }
        | health::Reason::Scratch { .. }
        | health::Reason::Violation(_)
        | health::Reason::Flood { .. } => Force::Killed,
        // A driver takes long to tidy up after a process that was killed in the middle of its work.
        health::Reason::DeviceMemory { .. }
        | health::Reason::DeviceLost(_)
        | health::Reason::Hung { .. } => Force::Asked,
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
