//! What must be true of the effects, kept apart from the world that carries them out.
//!
//! The checker knows what really happened (which process lives, which requests are open, which
//! grants are held) and compares each effect with it.

use std::collections::{BTreeMap, BTreeSet};

use shared::clock::MonotonicNanos;
use shared::id::Generation;
use supervisor::lifecycle::{Effect, Event, Retry, State, StopCause, Ticket};

use crate::subject::{MAX_RESTARTS, WINDOW};

pub(crate) type Checked = Result<(), String>;

#[derive(Debug, Default)]
pub(crate) struct Checker {
    pub(crate) route: Option<Generation>,
    /// Requests that were sent to a generation and have no answer yet.
    pub(crate) open: BTreeMap<Generation, BTreeSet<u64>>,
    /// The process that really exists.
    pub(crate) alive: Option<Generation>,
    /// Grants, each with the generation that used it.
    held: BTreeMap<Ticket, Option<Generation>>,
    /// Requests that wait for a worker; the transport gives them to the next one.
    pub(crate) waiting: u64,
    failed: BTreeSet<Generation>,
    exits_seen: BTreeSet<Generation>,
    restarts: Vec<MonotonicNanos>,
    /// Whether it has been up, or was told to come back, and nobody has asked it to go since.
    coming_back: bool,
}

impl Checker {
    pub(crate) fn granted(&mut self, ticket: Ticket) {
        self.held.insert(ticket, None);
    }

    pub(crate) fn exit_seen(&mut self, generation: Generation) {
        self.exits_seen.insert(generation);
    }

    /// What was asked of the machine, before it hears it.
    pub(crate) fn told(&mut self, event: &Event) {
        if matches!(event, Event::Unwanted | Event::ServerEnds | Event::StopNow) {
            self.coming_back = false;
        }
    }

    pub(crate) fn expects_a_worker(&self) -> bool {
        self.coming_back
    }

    pub(crate) fn has_open(&self, generation: Generation) -> bool {
        self.open.get(&generation).is_some_and(|open| !open.is_empty())
    }

    /// Checks one effect against the truth and brings the truth up to date. `state` is the
    /// machine's state after the event.
    pub(crate) fn effect(&mut self, effect: &Effect, state: &State) -> Checked {
        match effect {
            Effect::CancelReserve { ticket } => self.cancelled(*ticket),
            Effect::Spawn { generation } => self.spawned(*generation, state),
            Effect::PublishRoute { generation } => self.published(*generation, state),
            Effect::WithdrawRoute { generation } => self.withdrawn(*generation),
            Effect::FailInFlight { generation, .. } => self.in_flight_failed(*generation),
            Effect::Signal { .. } | Effect::KillGroup { .. } => self.signalled(effect),
            Effect::ReleaseQuota { ticket } => self.released(*ticket),
            Effect::ReduceBatch => Ok(()),
            Effect::ReserveQuota { .. } | Effect::ArmTimer { .. } | Effect::Record(_) => Ok(()),
        }
    }

    /// What must hold between any two events.
    pub(crate) fn standing(&mut self, state: &State) -> Checked {
        self.coming_back |= matches!(
            state,
            State::Ready { .. } | State::Backoff { retry: Retry::Paid, .. } | State::Quarantined(_)
        );
        ensure(!self.coming_back || !matches!(state, State::Unloaded(_)), || {
            format!("property 8: nobody asked it to go, and it is {state:?}")
        })?;
        let ready = match state {
            State::Ready { worker, .. } => Some(worker.generation),
            State::Unloaded(_) | State::Reserving { .. } | State::Starting { .. } => None,
            State::Draining { .. } | State::Stopping(_) | State::Backoff { .. } => None,
            State::Resting | State::Quarantined(_) => None,
        };
        self.idle_is_idle(state)?;
        ensure(ready == self.route, || {
            format!("property 1: the route goes to {:?} in {state:?}", self.route)
        })
    }

    pub(crate) fn restarted(&mut self, now: MonotonicNanos) -> Checked {
        self.restarts.push(now);
        let within = self.restarts.iter().filter(|&&restart| now.since(restart) < WINDOW).count();
        ensure(within <= MAX_RESTARTS as usize, || {
            format!("property 5: {within} restarts within {WINDOW:?}")
        })
    }

    pub(crate) fn budget_cleared(&mut self) {
        self.restarts.clear();
    }

    /// What must hold when nothing more will happen.
    pub(crate) fn at_rest(&self, state: &State) -> Checked {
        let rests = matches!(
            state,
            State::Unloaded(_) | State::Ready { .. } | State::Quarantined(_) | State::Resting
        );
        ensure(rests, || format!("property 5: it came to rest in {state:?}"))?;
        ensure(*state != State::Resting || self.waiting == 0, || {
            format!("property 7: {} requests wait for a model that rests", self.waiting)
        })?;
        let worker = state.worker();
        ensure(self.alive == worker.map(|worker| worker.generation), || {
            format!("property 5: {:?} lives on in {state:?}", self.alive)
        })?;
        let held: Vec<Ticket> = self.held.keys().copied().collect();
        let expected: Vec<Ticket> = worker.map(|worker| worker.ticket).into_iter().collect();
        ensure(held == expected, || format!("property 3: {held:?} are held in {state:?}"))?;
        let forgotten = self.open.iter().find(|(generation, open)| {
            !open.is_empty() && Some(**generation) != worker.map(|worker| worker.generation)
        });
        ensure(forgotten.is_none(), || format!("property 2: {forgotten:?} never got an answer"))
    }

    /// A worker that goes because nobody used it has nothing in flight.
    fn idle_is_idle(&self, state: &State) -> Checked {
        let going = match state {
            State::Draining { worker, cause: StopCause::Idle, .. } => Some(worker.generation),
            State::Stopping(stopping) if stopping.cause == StopCause::Idle => {
                Some(stopping.worker.generation)
            }
            State::Draining { .. } | State::Stopping(_) | State::Resting => None,
            State::Unloaded(_) | State::Reserving { .. } | State::Starting { .. } => None,
            State::Ready { .. } | State::Backoff { .. } | State::Quarantined(_) => None,
        };
        let open = going.filter(|generation| self.has_open(*generation));
        ensure(open.is_none(), || format!("property 7: {open:?} rests with requests in flight"))
    }

    fn cancelled(&mut self, ticket: Ticket) -> Checked {
        let used = self.held.remove(&ticket).flatten();
        ensure(used.is_none(), || {
            format!("property 3: {ticket:?} was cancelled while {used:?} used it")
        })
    }

    fn spawned(&mut self, generation: Generation, state: &State) -> Checked {
        let ticket = state.worker().map(|worker| worker.ticket);
        let grant = ticket.and_then(|ticket| self.held.get_mut(&ticket));
        let Some(used @ None) = grant else {
            return Err(format!("property 3: {generation:?} has no grant of its own"));
        };
        *used = Some(generation);
        ensure(self.alive.is_none(), || {
            format!("property 3: {generation:?} was spawned beside {:?}", self.alive)
        })
    }

    fn published(&mut self, generation: Generation, state: &State) -> Checked {
        let ready = matches!(state, State::Ready { worker, .. } if worker.generation == generation);
        self.route = Some(generation);
        let first = 1_000_000 * generation.0;
        self.open.entry(generation).or_default().extend(first..first + self.waiting);
        self.waiting = 0;
        ensure(ready, || format!("property 1: a route was published in {state:?}"))
    }

    fn withdrawn(&mut self, generation: Generation) -> Checked {
        let route = self.route.take();
        ensure(route == Some(generation), || {
            format!("property 1: {generation:?} was withdrawn, the route went to {route:?}")
        })
    }

    fn in_flight_failed(&mut self, generation: Generation) -> Checked {
        self.open.remove(&generation);
        ensure(self.route != Some(generation), || {
            format!("property 1: {generation:?} still gets requests while they are failed")
        })?;
        ensure(self.failed.insert(generation), || {
            format!("property 2: the requests of {generation:?} were failed twice")
        })
    }

    fn signalled(&self, effect: &Effect) -> Checked {
        ensure(self.route.is_none(), || format!("property 1: {effect:?} before the withdrawal"))
    }

    fn released(&mut self, ticket: Ticket) -> Checked {
        let Some(Some(generation)) = self.held.remove(&ticket) else {
            return Err(format!("property 3: {ticket:?} was released, but no worker held it"));
        };
        ensure(self.exits_seen.contains(&generation) && self.alive != Some(generation), || {
            format!("property 3: {ticket:?} was released while {generation:?} lives")
        })?;
        ensure(!self.has_open(generation), || {
            format!("property 2: {generation:?} is gone and has requests without an answer")
        })
    }
}

pub(crate) fn ensure(holds: bool, broken: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(broken()) }
}
