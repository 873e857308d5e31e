//! The machine under test, and the ways in which a test may tamper with it.

use std::time::Duration;

use shared::clock::MonotonicNanos;
use shared::id::Generation;
use supervisor::config::OnOom;
use supervisor::exit_kind::{ExitKind, ExitPattern};
use supervisor::lifecycle::{
    Backoff, Effect, Effects, Event, ExitClass, ExitReport, Jitter, Machine, Outcome, Policy,
    RestartPolicy, State,
};

/// One deliberate mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    None,
    /// The route stays when the worker goes.
    KeepRoute,
    /// The signal goes out before the route is withdrawn.
    SignalFirst,
    ForgetInFlight,
    FailTwice,
    /// Memory is released with the signal instead of with the exit.
    ReleaseEarly,
    /// An exit is made up as soon as the signal is sent.
    ForgeExit,
    ForgetRelease,
    /// Facts of older generations are taken for facts of the current one.
    AcceptStale,
    /// The machine may restart three times as often as the checker allows.
    LargeBudget,
    /// No timer follows a kill.
    KillOnce,
    /// Each request to stop sends a signal.
    SignalAgain,
    /// A request that waits is not heard of.
    DeafToDemand,
    /// A model that is denied memory is given up.
    GiveUpWhenDenied,
    /// A worker is called idle while it has requests.
    RestWhileBusy,
}

pub(crate) const MAX_RESTARTS: u32 = 3;
pub(crate) const WINDOW: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub(crate) struct Subject {
    machine: Machine,
    mutation: Mutation,
}

impl Subject {
    pub(crate) fn new(mutation: Mutation) -> Self {
        let more = if mutation == Mutation::LargeBudget { 3 } else { 1 };
        Self { machine: Machine::new(policy(MAX_RESTARTS * more)), mutation }
    }

    pub(crate) fn rests_while_busy(&self) -> bool {
        self.mutation == Mutation::RestWhileBusy
    }

    pub(crate) fn state(&self) -> &State {
        self.machine.state()
    }

    pub(crate) fn on(&mut self, event: Event, now: MonotonicNanos) -> Effects {
        let event = self.tamper_with_event(event);
        let denied = matches!(event, Event::Denied { .. });
        let stop = matches!(event, Event::Unwanted | Event::ServerEnds | Event::StopNow);
        if self.mutation == Mutation::DeafToDemand && event == Event::Demand {
            return Effects::new();
        }
        let mut effects = match self.machine.on(event, now) {
            Outcome::Accepted(effects) => effects,
            Outcome::Ignored(_) if self.mutation == Mutation::SignalAgain && stop => {
                self.signal_again()
            }
            Outcome::Ignored(_) => Effects::new(),
        };
        if self.mutation == Mutation::GiveUpWhenDenied && denied {
            effects.extend(self.machine.on(Event::Unwanted, now).into_effects());
        }
        self.tamper_with_effects(effects, now)
    }

    fn signal_again(&self) -> Effects {
        let worker = self.state().worker();
        worker.map(|worker| Effect::Signal { generation: worker.generation }).into_iter().collect()
    }

    fn tamper_with_event(&self, mut event: Event) -> Event {
        let current = self.state().worker().map(|worker| worker.generation);
        if let (Mutation::AcceptStale, Some(current)) = (self.mutation, current)
            && let Event::Loaded { generation }
            | Event::LoadFailed { generation, .. }
            | Event::Unhealthy { generation, .. }
            | Event::Drained { generation }
            | Event::Idle { generation }
            | Event::Exited { generation, .. } = &mut event
        {
            *generation = current;
        }
        event
    }

    fn tamper_with_effects(&mut self, mut effects: Effects, now: MonotonicNanos) -> Effects {
        match self.mutation {
            Mutation::KeepRoute => {
                effects.retain(|effect| !matches!(effect, Effect::WithdrawRoute { .. }));
            }
            Mutation::SignalFirst => effects.sort_by_key(|effect| !is_signal(effect)),
            Mutation::ForgetInFlight => {
                effects.retain(|effect| !matches!(effect, Effect::FailInFlight { .. }));
            }
            Mutation::FailTwice => double_failures(&mut effects),
            Mutation::ReleaseEarly => self.release_early(&mut effects),
            Mutation::ForgeExit => self.forge_exit(&mut effects, now),
            Mutation::ForgetRelease => {
                effects.retain(|effect| !matches!(effect, Effect::ReleaseQuota { .. }));
            }
            Mutation::KillOnce if effects.iter().any(is_kill) => {
                effects.retain(|effect| !matches!(effect, Effect::ArmTimer { .. }));
            }
            Mutation::None | Mutation::AcceptStale | Mutation::LargeBudget => {}
            Mutation::KillOnce | Mutation::SignalAgain => {}
            Mutation::DeafToDemand | Mutation::GiveUpWhenDenied | Mutation::RestWhileBusy => {}
        }
        effects
    }

    fn release_early(&self, effects: &mut Effects) {
        effects.retain(|effect| !matches!(effect, Effect::ReleaseQuota { .. }));
        if let (true, Some(worker)) = (effects.iter().any(is_signal), self.state().worker()) {
            effects.push(Effect::ReleaseQuota { ticket: worker.ticket });
        }
    }

    fn forge_exit(&mut self, effects: &mut Effects, now: MonotonicNanos) {
        let signalled = effects.iter().any(is_signal);
        if let (true, Some(worker)) = (signalled, self.state().worker()) {
            let exit = exit_event(worker.generation, ExitClass::Signal(15), Jitter::NONE);
            effects.extend(self.machine.on(exit, now).into_effects());
        }
    }
}

pub(crate) fn exit_event(generation: Generation, class: ExitClass, jitter: Jitter) -> Event {
    Event::Exited { generation, exit: ExitReport { class, detail: String::new() }, jitter }
}

fn double_failures(effects: &mut Effects) {
    let failures = effects.iter().filter(|effect| matches!(effect, Effect::FailInFlight { .. }));
    let again: Effects = failures.cloned().collect();
    effects.extend(again);
}

fn is_signal(effect: &Effect) -> bool {
    matches!(effect, Effect::Signal { .. }) || is_kill(effect)
}

fn is_kill(effect: &Effect) -> bool {
    matches!(effect, Effect::KillGroup { .. })
}

fn policy(max_restarts: u32) -> Policy {
    Policy {
        greet_timeout: Duration::from_secs(10),
        load_timeout: Duration::from_secs(20),
        drain_timeout: Duration::from_secs(10),
        stop_grace: Duration::from_secs(2),
        kill_repeat: Duration::from_secs(1),
        restart: RestartPolicy {
            max_restarts,
            window: WINDOW,
            backoff: Backoff {
                initial: Duration::from_millis(100),
                factor: 2.0,
                max: Duration::from_secs(5),
                jitter: 0.5,
                reset_after: Duration::from_secs(30),
            },
            no_retry_on: vec![ExitPattern::Kind(ExitKind::Code(78))],
        },
        on_oom: OnOom::Restart,
    }
}
