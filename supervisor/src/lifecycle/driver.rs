//! The task that owns one instance: it waits for the next event, asks the machine, and carries out
//! what the machine wants. It waits nowhere else: what takes time is done by tasks that report.

mod devices;
mod judge;

use std::collections::VecDeque;
use std::sync::Arc;

use proto::control::{Command, Fact, Level, Loaded, Measure};
use shared::clock::MonotonicNanos;
use shared::id::{Generation, WorkerId};
use shared::limits::MAX_ERROR_BYTES;
use shared::text::{chain, clean};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::debug;

use super::history::LastWords;
use super::instance::{Asked, Gone, InstanceSpec, InstanceView, Kit, WorkerView};
use super::live::Live;
use super::reservation::Reservation;
use super::tenancy::Tenancy;
use super::worker::{Report, Worker};
use super::{
    Effect, Event, ExitClass, ExitReport, Jitter, LoadFault, Machine, Outcome, Record, State,
    StopCause, Token, Unloaded,
};
use super::{confinement, events_log, facts, launch, seating};
use crate::health::{Reason, Vigil};
use crate::lane::{Ending, LaneEvent};
use crate::quota::{Grant, Refused};
use crate::request::{RequestError, What};
use crate::schedule::SlotQueue;

use judge::JUDGE_EVERY;

#[derive(Debug)]
pub(super) struct Driver {
    spec: Arc<InstanceSpec>,
    /// What of the settings changes meanwhile.
    live: watch::Receiver<Live>,
    kit: Kit,
    queue: Arc<SlotQueue>,
    machine: Machine,
    /// `None` once nobody holds the handle.
    inbox: Option<mpsc::Receiver<Asked>>,
    view: watch::Sender<InstanceView>,
    worker: Option<Box<Worker>>,
    vigil: Vigil,
    /// How often the memory of the worker had been looked at when it was ready, until that is told.
    untold_memory: Option<u32>,
    /// The worker that is being started; then there is no other.
    launch: Option<Launch>,
    timer: Option<(Token, Instant)>,
    /// What effects brought about at once.
    pending: VecDeque<Event>,
    loaded: Option<Arc<Loaded>>,
    confinement: Option<Arc<Vec<Measure>>>,
    /// What is asked for, or what was granted to the worker that is there or comes.
    reservation: Reservation,
    /// What former workers had of their devices, on its way back.
    leaving: JoinSet<()>,
}

/// The start of a process, which a zygote that starts or hangs can hold up for some seconds.
#[derive(Debug)]
struct Launch {
    generation: Generation,
    task: JoinHandle<Result<Box<Worker>, ExitReport>>,
}

/// What the task was woken by.
enum Woken {
    /// The start of a process has come to its end.
    Launched(Result<Box<Worker>, ExitReport>),
    Asked(Option<Asked>),
    Reported(Report),
    Lane(LaneEvent),
    Timer(Token),
    /// A request waits for a worker.
    Demand,
    Judge,
    /// Somebody has looked at what the worker has.
    Measured,
    /// The same, on its devices.
    Looked,
    /// What was asked for is granted, or not.
    Reserved(Result<Grant, Refused>),
    /// What a former worker had of its devices is back, or overdue.
    Returned,
}

impl Driver {
    pub(super) fn new(
        spec: InstanceSpec,
        kit: Kit,
        queue: Arc<SlotQueue>,
        inbox: mpsc::Receiver<Asked>,
    ) -> Self {
        let mut live = spec.live.clone();
        let machine = Machine::new(live.borrow_and_update().policy.clone());
        let (state, status) = (machine.state().name(), machine.status());
        let history = kit.archive.of(&spec.id);
        let (view, _) = watch::channel(InstanceView {
            state,
            status,
            gone: Gone::Yes,
            denied: false,
            loaded: None,
            history,
            worker: None,
            confinement: None,
        });
        Self {
            spec: Arc::new(spec),
            live,
            kit,
            queue,
            machine,
            inbox: Some(inbox),
            view,
            worker: None,
            vigil: Vigil::new(JUDGE_EVERY),
            untold_memory: None,
            launch: None,
            timer: None,
            pending: VecDeque::new(),
            loaded: None,
            confinement: None,
            reservation: Reservation::None,
            leaving: JoinSet::new(),
        }
    }

    pub(super) fn view(&self) -> watch::Receiver<InstanceView> {
        self.view.subscribe()
    }

    /// Runs until nobody holds the handle and the instance is at rest.
    pub(super) async fn run(mut self, changed: Arc<Notify>) {
        let mut judge = interval(JUDGE_EVERY);
        judge.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.is_needed() {
            let woken = self.next(&mut judge).await;
            match woken {
                Woken::Asked(Some(Asked { event, heard })) => {
                    self.handle(event).await;
                    self.publish(&changed);
                    drop(heard);
                }
                Woken::Asked(None) => self.handle(Event::Unwanted).await,
                Woken::Launched(outcome) => self.launched(outcome).await,
                Woken::Reported(report) => self.report(report).await,
                Woken::Lane(event) => self.lane_event(event).await,
                Woken::Timer(token) => self.time_is_up(token).await,
                Woken::Demand => self.handle(Event::Demand).await,
                Woken::Judge => self.judge().await,
                Woken::Measured => self.judge_usage().await,
                Woken::Looked => self.judge_devices().await,
                Woken::Reserved(outcome) => self.reserved(outcome).await,
                Woken::Returned => {}
            }
            self.publish(&changed);
        }
    }

    fn is_needed(&self) -> bool {
        let has_process = self.worker.is_some() || self.launch.is_some();
        self.inbox.is_some() || has_process || !self.leaving.is_empty()
    }

    async fn next(&mut self, judge: &mut tokio::time::Interval) -> Woken {
        let timer = self.timer;
        let alarm = async {
            match timer {
                Some((token, at)) => {
                    sleep_until(at).await;
                    token
                }
                None => std::future::pending().await,
            }
        };
        // Whoever waits ends a rest, and nothing else.
        let heeds_demand = self.machine.state().heeds_demand();
        let demand = self.queue.demand();
        let launched = async {
            match &mut self.launch {
                Some(launch) => ended(&mut launch.task).await,
                None => std::future::pending().await,
            }
        };
        match &mut self.worker {
            Some(worker) => tokio::select! {
                // Facts before exits: what a worker said counts, also if it has died since.
                biased;
                Some(event) = worker.lane_events.recv() => Woken::Lane(event),
                Some(report) = worker.reports.recv() => Woken::Reported(report),
                Ok(()) = worker.usage.changed() => Woken::Measured,
                () = devices::looked(&mut worker.tenancy) => Woken::Looked,
                Some(_) = self.leaving.join_next() => Woken::Returned,
                token = alarm => Woken::Timer(token),
                event = asked(&mut self.inbox), if self.inbox.is_some() => Woken::Asked(event),
                () = demand, if heeds_demand => Woken::Demand,
                _ = judge.tick() => Woken::Judge,
            },
            None => tokio::select! {
                outcome = launched => Woken::Launched(outcome),
                outcome = self.reservation.answer() => Woken::Reserved(outcome),
                Some(_) = self.leaving.join_next() => Woken::Returned,
                token = alarm => Woken::Timer(token),
                event = asked(&mut self.inbox), if self.inbox.is_some() => Woken::Asked(event),
                () = demand, if heeds_demand => Woken::Demand,
            },
        }
    }

    async fn handle(&mut self, event: Event) {
        // Looked at only now: until something happens, nothing depends on it.
        if self.live.has_changed().unwrap_or(false) {
            let policy = self.live.borrow_and_update().policy.clone();
            self.machine.set_policy(policy);
        }
        self.pending.push_back(event);
        while let Some(event) = self.pending.pop_front() {
            debug!(instance = %self.spec.id, state = self.machine.state().name(), ?event);
            match self.machine.on(event, MonotonicNanos::now()) {
                Outcome::Accepted(effects) => {
                    for effect in effects {
                        self.carry_out(effect).await;
                    }
                }
                Outcome::Ignored(why) => debug!(instance = %self.spec.id, ?why, "ignored"),
            }
        }
    }

    async fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::ReserveQuota { ticket } => self.reserve(ticket),
            Effect::CancelReserve { .. } => self.reservation = Reservation::None,
            Effect::ReleaseQuota { .. } => self.release(),
            Effect::Spawn { generation } => self.spawn(generation),
            Effect::PublishRoute { .. } => {
                if let Some(worker) = &self.worker {
                    worker.join(&self.queue);
                    events_log::route(&self.spec.id, worker.generation(), "route published");
                }
            }
            Effect::WithdrawRoute { .. } => {
                if let Some(worker) = &self.worker {
                    worker.leave(&self.queue);
                    events_log::route(&self.spec.id, worker.generation(), "route withdrawn");
                }
            }
            Effect::FailInFlight { cause, .. } => self.fail_in_flight(&cause),
            Effect::Signal { .. } => {
                let patience = self.patience();
                if let Some(worker) = &mut self.worker {
                    worker.ask_to_end(patience);
                }
            }
            Effect::KillGroup { .. } => {
                if let Some(worker) = &self.worker {
                    worker.kill();
                }
            }
            Effect::ReduceBatch => {
                self.spec.batch_cap.reduce();
                events_log::batch_reduced(&self.spec.id, self.spec.batch_cap.reduced());
            }
            Effect::ArmTimer { token, after } => self.timer = Some((token, Instant::now() + after)),
            Effect::Record(record) => self.record(record),
        }
    }

    /// None for a worker that is on its way out because it cannot be talked to.
    fn patience(&self) -> Patience {
        let State::Stopping(stopping) = self.machine.state() else { return Patience::Some };
        match stopping.cause {
            StopCause::Unhealthy(_) | StopCause::LoadTimeout => Patience::None,
            StopCause::Unasked
            | StopCause::Unwanted
            | StopCause::Idle
            | StopCause::Renewed
            | StopCause::ServerEnds
            | StopCause::LoadFailed { .. } => Patience::Some,
        }
    }

    fn spawn(&mut self, generation: Generation) {
        if let Some(last) = self.worker.as_deref().map(Worker::generation) {
            self.bury(last);
        }
        let id = WorkerId { instance: self.spec.id.clone(), generation };
        let (spec, kit) = (Arc::clone(&self.spec), self.kit.clone());
        let queue = Arc::clone(&self.queue);
        let place = self.reservation.place().cloned();
        let start =
            async move { Worker::start(&spec, &kit, &queue, (id, place)).await.map(Box::new) };
        self.launch = Some(Launch { generation, task: tokio::spawn(start) });
    }

    /// What the worker has said in time counts, also if this process is late to hear it.
    async fn time_is_up(&mut self, token: Token) {
        self.timer.take_if(|(armed, _)| *armed == token);
        if let Some(worker) = &self.worker {
            worker.lane.catch_up();
        }
        while let Some(event) = self.worker.as_deref_mut().and_then(Worker::next_lane_event) {
            self.lane_event(event).await;
        }
        self.handle(Event::Timer { token }).await;
    }

    /// A process is there, or there is none.
    async fn launched(&mut self, outcome: Result<Box<Worker>, ExitReport>) {
        let Some(Launch { generation, .. }) = self.launch.take() else { return };
        match outcome {
            Ok(mut worker) => {
                events_log::started(&self.spec.id, generation, worker.pid(), worker.limits());
                if let Reservation::Granted(grant) = &self.reservation {
                    let soft = self.spec.gpu.soft;
                    worker.tenancy = Tenancy::under(grant, worker.pid(), soft, worker.hard.clone());
                }
                // Nobody wanted it any more while it was being made.
                if !self.is_starting() {
                    worker.kill();
                }
                self.worker = Some(worker);
                self.vigil = Vigil::new(JUDGE_EVERY);
                self.untold_memory = None;
            }
            Err(exit) => {
                let jitter = Jitter::new(rand::random());
                self.handle(Event::Exited { generation, exit, jitter }).await;
            }
        }
    }

    fn fail_in_flight(&mut self, cause: &StopCause) {
        if let Some(worker) = &mut self.worker {
            let message = format!(
                "the worker of model '{}' ended while it had the request",
                self.spec.id.model
            );
            let why = RequestError::new(What::WorkerDied, message);
            worker.blamed.extend(worker.lane.close(ending(cause, worker.ended), &why));
        }
    }

    async fn report(&mut self, report: Report) {
        let Some(worker) = &mut self.worker else { return };
        let generation = worker.generation();
        match report {
            Report::Attached(session) => {
                let place = self.reservation.place();
                let load = seating::load_spec(&self.spec.load, place, &self.spec.gpu);
                session.send(Command::Load(load));
                worker.session = Some(session);
                self.handle(Event::Attached { generation }).await;
            }
            Report::NoHandshake(error) => {
                let (fault, message) = (launch::fault_of(&error), chain(&error));
                self.handle(Event::LoadFailed { generation, fault, message }).await;
            }
            Report::Drained => self.handle(Event::Drained { generation }).await,
            Report::Exited(exit) => {
                // What it said before it died is still in the channel.
                while let Some(event) = self.worker.as_deref_mut().and_then(Worker::next_lane_event)
                {
                    self.lane_event(event).await;
                }
                if let Some(worker) = &mut self.worker {
                    worker.ended = Some(exit.class);
                }
                let jitter = Jitter::new(rand::random());
                self.handle(Event::Exited { generation, exit, jitter }).await;
                self.bury(generation);
            }
        }
    }

    /// Forgets the worker of that generation, unless the next one has taken its place already.
    fn bury(&mut self, generation: Generation) {
        if let Some(worker) = self.worker.take_if(|worker| worker.generation() == generation) {
            worker.bury(&self.kit.bells, &self.queue);
        }
    }

    async fn lane_event(&mut self, event: LaneEvent) {
        let Some(worker) = &self.worker else { return };
        let generation = worker.generation();
        let event = match event {
            // Once is enough; a worker that repeats itself is only counted.
            LaneEvent::Fact(Fact::Loaded(_)) if !self.is_starting() => return,
            LaneEvent::Fact(Fact::Loaded(loaded)) => match self.check_loaded(&loaded) {
                Ok(()) => self.note_loaded(loaded, generation),
                Err(message) => Event::Unhealthy { generation, why: Reason::Violation(message) },
            },
            LaneEvent::Fact(Fact::Confined(measures)) => match self.note_confined(measures) {
                Ok(()) => return,
                Err(message) => Event::Unhealthy { generation, why: Reason::Violation(message) },
            },
            LaneEvent::Fact(Fact::LoadFailed { message, permanent }) => {
                let fault = if permanent { LoadFault::Permanent } else { LoadFault::Transient };
                Event::LoadFailed { generation, fault, message: clean(&message, MAX_ERROR_BYTES) }
            }
            LaneEvent::Fact(Fact::Trimmed { .. }) => match self.trimmed() {
                Ok(()) => return,
                Err(message) => Event::Unhealthy { generation, why: Reason::Violation(message) },
            },
            LaneEvent::Fact(Fact::LargeOutput { .. }) => return,
            LaneEvent::Violation(violation) => {
                Event::Unhealthy { generation, why: Reason::Violation(violation.to_string()) }
            }
            // The exit follows; if it does not, the lane's activity tells.
            LaneEvent::Closed => return,
        };
        self.handle(event).await;
    }

    fn is_starting(&self) -> bool {
        matches!(self.machine.state(), State::Starting { .. })
    }

    fn check_loaded(&self, loaded: &Loaded) -> Result<(), String> {
        let confined = self.worker.as_ref().is_some_and(|worker| worker.confined);
        if !confined && self.spec.confinement.level != Level::None {
            return Err("the model was loaded before anything was said of a confinement".into());
        }
        let place = self.reservation.place();
        facts::check(&seating::load_spec(&self.spec.load, place, &self.spec.gpu), loaded)
    }

    /// Once in a generation, before the model was read: later it is the model that speaks.
    fn note_confined(&mut self, told: Vec<Measure>) -> Result<(), String> {
        let measures = facts::measures(told)?;
        let Some(worker) = &mut self.worker else { return Ok(()) };
        if worker.confined || worker.listens {
            return Err("a confinement was reported twice, or late".into());
        }
        worker.confined = true;
        let (instance, generation) = (&self.spec.id, worker.generation());
        let before = self.confinement.as_deref().map_or(&[][..], Vec::as_slice);
        confinement::log(instance, generation, &measures, before);
        self.confinement = Some(Arc::new(measures));
        Ok(())
    }

    fn note_loaded(&mut self, loaded: Loaded, generation: Generation) -> Event {
        events_log::ready(&self.spec.id, generation, &loaded);
        if let Some(worker) = &mut self.worker {
            worker.has_loaded();
            self.untold_memory = Some(worker.usage.borrow().private_looks);
            if let Some(tenancy) = &mut worker.tenancy {
                tenancy.has_loaded(&loaded, MonotonicNanos::now());
            }
        }
        self.tell_enforcement();
        self.loaded = Some(Arc::new(loaded));
        Event::Loaded { generation }
    }

    fn record(&self, record: Record) {
        match record {
            Record::Denied { reason } => events_log::denied(&self.spec.id, &reason),
            Record::Exited(exit) => {
                // One that could not be started leaves no words.
                let words = self.worker.as_ref().filter(|w| w.generation() == exit.generation);
                let words = words.map_or_else(LastWords::default, |worker| worker.last_words());
                self.refute_peak(&exit);
                events_log::exited(&self.spec.id, &exit, &words);
                self.kit.archive.add(&self.spec.id, &exit, words);
            }
        }
    }

    fn publish(&self, changed: &Notify) {
        let (state, status) = (self.machine.state().name(), self.machine.status());
        let (loaded, confinement) = (self.loaded.clone(), self.confinement.clone());
        // Nothing is gone for good while a device still has some of it.
        let gone = if self.leaving.is_empty() { Gone::of(self.machine.state()) } else { Gone::No };
        let denied = matches!(self.machine.state(), State::Unloaded(Unloaded::Denied { .. }));
        let history = self.kit.archive.of(&self.spec.id);
        let worker = self.worker.as_deref().map(Worker::view);
        let new = self.view.send_if_modified(|view| {
            let same_load = match (&view.loaded, &loaded) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            let same_past = Arc::ptr_eq(&view.history, &history);
            let same = view.state == state
                && view.gone == gone
                && view.status == status
                && same_load
                && same_past
                && generation_of(view.worker.as_ref()) == generation_of(worker.as_ref())
                && view.confinement == confinement;
            *view =
                InstanceView { state, status, gone, denied, loaded, history, worker, confinement };
            !same
        });
        if new {
            changed.notify_one();
        }
    }
}

/// What came of a start. One that has failed in a way of its own had no thread to run on.
async fn ended(
    start: &mut JoinHandle<Result<Box<Worker>, ExitReport>>,
) -> Result<Box<Worker>, ExitReport> {
    start.await.unwrap_or_else(|error| {
        let detail = format!("the task that starts it has failed: {error}");
        Err(ExitReport { class: ExitClass::SpawnStarved, detail })
    })
}

fn generation_of(worker: Option<&WorkerView>) -> Option<Generation> {
    worker.map(|worker| worker.generation)
}

/// The next thing asked; `None` when nobody can ask any more.
async fn asked(inbox: &mut Option<mpsc::Receiver<Asked>>) -> Option<Asked> {
    let next = inbox.as_mut()?.recv().await;
    if next.is_none() {
        *inbox = None;
    }
    next
}

/// Whether what is in flight may be why a worker ends.
fn ending(cause: &StopCause, ended: Option<ExitClass>) -> Ending {
    match cause {
        // It had answered the request for which there was no memory, and began no other.
        StopCause::Unasked if ended == Some(ExitClass::DeviceOutOfMemory) => Ending::Intended,
        StopCause::Unasked
        | StopCause::Unhealthy(
            Reason::Violation(_)
            | Reason::Flood { .. }
            | Reason::HostMemory { .. }
            | Reason::Threads { .. }
            | Reason::Scratch { .. }
            | Reason::DeviceMemory { .. },
        ) => Ending::Crashed,
        StopCause::Unhealthy(Reason::Hung { .. }) => Ending::Hung,
        StopCause::Unwanted
        | StopCause::Idle
        | StopCause::Renewed
        | StopCause::ServerEnds
        | StopCause::LoadTimeout
        | StopCause::LoadFailed { .. }
        // No request is why a device is lost.
        | StopCause::Unhealthy(Reason::DeviceLost(_)) => Ending::Intended,
    }
}

/// Whether a worker gets the time to end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    Some,
    None,
}
