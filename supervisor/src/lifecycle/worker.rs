//! One live worker: its process, its lane, its session, and the tasks that wait for them.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use proto::control::{Command, Confinement};
use shared::clock::MonotonicNanos;
use shared::id::{Generation, WorkerId};
use shared::sys::socket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::driver::Patience;
use super::hard_limits::{Hard, HardLimits};
use super::history::{LastWords, Moment};
use super::instance::{InstanceSpec, Kit, WorkerView};
use super::launch::{self, Launched};
use super::tenancy::Tenancy;
use super::usage::{self, Usage, Who};
use super::{ExitClass, ExitReport, archive};
use crate::config;
use crate::enclosure::report::TreeKill;
use crate::enclosure::{Enclosure, Evidence, LimitsReport};
use crate::health::{Fingerprint, Incarnation};
use crate::lane::{Bells, Lane, LaneEvent, LaneParts, listen};
use crate::process::child::Group;
use crate::process::turns::Turns;
use crate::process::{
    Child, Exit, Family, Guest, HandshakeError, Household, Roster, Session, Starts, Tail, output,
};
use crate::quota::Place;
use crate::schedule::pool::LaneId;
use crate::schedule::{Rest, SlotQueue, Squeeze};

/// What a worker's tasks tell its driver.
#[derive(Debug)]
pub(super) enum Report {
    Attached(Session),
    NoHandshake(HandshakeError),
    /// Nobody holds a slot of it any more.
    Drained,
    /// The last report.
    Exited(ExitReport),
}

#[derive(Debug)]
pub(super) struct Worker {
    id: WorkerId,
    pub(super) lane: Arc<Lane>,
    pub(super) session: Option<Session>,
    /// It has said what it gave up.
    pub(super) confined: bool,
    /// It has loaded its model and hears commands.
    pub(super) listens: bool,
    /// How it ended, once that was seen.
    pub(super) ended: Option<ExitClass>,
    /// Requests that may be why it ended.
    pub(super) blamed: Vec<Fingerprint>,
    pub(super) lane_events: mpsc::Receiver<LaneEvent>,
    pub(super) reports: mpsc::Receiver<Report>,
    reporter: mpsc::Sender<Report>,
    seat: LaneId,
    group: Group,
    enclosure: Arc<Enclosure>,
    pub(super) usage: watch::Receiver<Usage>,
    /// Whether the driver itself holds it to its quota.
    pub(super) hard: Hard,
    /// `None` on the CPU.
    pub(super) tenancy: Option<Tenancy>,
    tail: Tail,
    started: Moment,
    handshake: JoinHandle<()>,
}

/// Packets with facts that may wait for the driver.
const LANE_EVENTS: usize = 64;
/// How long the end of a worker's output is waited for after its exit: a grandchild may hold it.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How long the end of all that a worker has left is waited for. The runtime needs a thread for it,
/// and if the kernel gives none it panics, or keeps the work until there is one.
const TREE_LIMIT: Duration = Duration::from_secs(10);

impl Worker {
    /// Makes the lane, starts the process and begins the handshake.
    pub(super) async fn start(
        spec: &InstanceSpec,
        kit: &Kit,
        queue: &Arc<SlotQueue>,
        (id, place): (WorkerId, Option<Place>),
    ) -> Result<Self, ExitReport> {
        let (ours, theirs) =
            socket::pair().map_err(|e| launch::not_started("control socket", &e))?;
        let (log, log_writer) = std::io::pipe().map_err(|e| launch::not_started("log pipe", &e))?;
        let seat = Arc::new(queue.seat());
        let (lane_sender, lane_events) = mpsc::channel(LANE_EVENTS);
        let lane = Lane::new(LaneParts {
            geometry: spec.geometry,
            worker: Incarnation { instance: id.instance.index, generation: id.generation },
            socket: ours,
            bells: Arc::clone(&kit.bells),
            free: seat.clone(),
            watchlist: Arc::clone(queue.watchlist()),
            events: lane_sender,
        });
        let lane = lane.map_err(|e| launch::not_started("shared memory", &e))?;
        let ends = (theirs, log_writer);
        let started = launch::start(spec, kit, (&id, place.as_ref()), ends).await;
        let Launched { child, enclosure, limits, hard } = started?;
        kit.bells.add(&lane);
        let ((reporter, reports), tail) = (mpsc::channel(4), Tail::default());
        let words = output::forward(log, kit.speaker(&id), spec.log, tail.clone());
        let tasks = Tasks {
            listen: tokio::spawn(listen(Arc::downgrade(&lane))),
            output: tokio::spawn(words),
            lane: Arc::clone(&lane),
            tail: tail.clone(),
            enclosure: Arc::clone(&enclosure),
            family: Arc::clone(kit.spawner.family()),
        };
        let group = child.group();
        let usage = usage::watch(&enclosure, who(spec, group.pid()));
        let guest = tasks.family.welcome(household(&id, &enclosure, group.pid(), spec.level));
        let after = (limits, Arc::clone(&enclosure), Arc::clone(&tasks.family));
        tokio::spawn(report_exit(tasks.see_out(child, guest), reporter.clone(), after));
        let greeting = (spec.handshake_timeout(), launch::confinement(spec, &enclosure));
        let to_greet = (id.clone(), Arc::clone(&lane));
        let handshake = tokio::spawn(shake_hands(to_greet, greeting, reporter.clone()));
        Ok(Self {
            id,
            lane,
            session: None,
            confined: false,
            listens: false,
            ended: None,
            blamed: Vec::new(),
            lane_events,
            reports,
            reporter,
            seat: seat.id(),
            group,
            enclosure,
            usage,
            hard,
            tenancy: None,
            tail,
            started: archive::now(),
            handshake,
        })
    }

    pub(super) fn generation(&self) -> Generation {
        self.id.generation
    }

    pub(super) fn pid(&self) -> i32 {
        self.group.pid()
    }

    pub(super) fn view(&self) -> WorkerView {
        WorkerView {
            pid: self.pid(),
            generation: self.generation(),
            started_at: self.started.wall_ms,
            limits: Arc::clone(self.limits()),
            private_memory: self.usage.borrow().private,
            used_memory: self.usage.borrow().used(),
            device: self.tenancy.as_ref().map(Tenancy::view),
        }
    }

    /// What is known of its end, once its exit was seen and what it had in flight was failed.
    pub(super) fn last_words(&self) -> LastWords {
        LastWords {
            alive_for: MonotonicNanos::now().since(self.started.monotonic),
            lines: self.tail.lines(),
            in_flight: self.lane.unanswered(),
            fingerprints: self.blamed.clone(),
        }
    }

    pub(super) fn limits(&self) -> &Arc<LimitsReport> {
        self.enclosure.report()
    }

    pub(super) fn next_lane_event(&mut self) -> Option<LaneEvent> {
        self.lane_events.try_recv().ok()
    }

    /// Takes the lane out of service if nobody has used the model for so long.
    pub(super) fn rest(&self, queue: &SlotQueue, limit: Duration) -> Rest {
        queue.rest(self.seat, limit)
    }

    pub(super) fn join(&self, queue: &SlotQueue) {
        queue.join(self.seat, &self.lane);
    }

    /// Takes the lane out of service and reports when nobody holds a slot of it.
    pub(super) fn leave(&self, queue: &SlotQueue) {
        queue.leave(self.seat);
        let (lane, reporter) = (Arc::clone(&self.lane), self.reporter.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = lane.idle() => {}
                () = reporter.closed() => return,
            }
            // The driver may have buried the worker meanwhile.
            let _gone = reporter.send(Report::Drained).await;
        });
    }

    /// It has loaded its model: from here on it hears commands, and answers requests.
    pub(super) fn has_loaded(&mut self) {
        self.listens = true;
        self.group.give_turns(Turns::Usual);
    }

    /// The first step down: a command if it listens, a signal if it does not or cannot.
    pub(super) fn ask_to_end(&mut self, patience: Patience) {
        match (&self.session, patience) {
            (Some(session), Patience::Some) if self.listens => session.send(Command::Shutdown),
            (Some(_) | None, Patience::None | Patience::Some) => {
                self.group.signal(Signal::SIGTERM);
            }
        }
    }

    /// Asks it to give back device memory that it only keeps.
    pub(super) fn trim(&mut self) {
        let Some(session) = self.session.as_ref().filter(|_| self.listens) else { return };
        if self.tenancy.as_mut().is_some_and(Tenancy::may_trim) {
            session.send(Command::Trim);
        }
    }

    /// Its batches are smaller, or as they were.
    pub(super) fn squeeze(&mut self, squeeze: Option<Squeeze>) {
        if let Some(tenancy) = &mut self.tenancy {
            tenancy.squeeze(squeeze);
        }
    }

    pub(super) fn kill(&self) {
        self.group.signal(Signal::SIGKILL);
        tokio::spawn(Arc::clone(&self.enclosure).end_tree());
    }

    /// Forgets a worker whose exit was seen.
    pub(super) fn bury(self, bells: &Bells, queue: &SlotQueue) {
        self.handshake.abort();
        queue.leave(self.seat);
        bells.remove(&self.lane);
    }
}

async fn shake_hands(
    (id, lane): (WorkerId, Arc<Lane>),
    greeting: (Duration, Confinement),
    reporter: mpsc::Sender<Report>,
) {
    let session = Session::open(id, lane.socket(), lane.objects(), greeting).await;
    let report = match session {
        Ok(session) => Report::Attached(session),
        Err(error) => Report::NoHandshake(error),
    };
    let _gone = reporter.send(report).await;
}

/// What runs beside a worker until its end.
#[derive(Debug)]
struct Tasks {
    listen: JoinHandle<std::io::Result<()>>,
    output: JoinHandle<std::io::Result<()>>,
    lane: Arc<Lane>,
    tail: Tail,
    enclosure: Arc<Enclosure>,
    family: Arc<Family>,
}

impl Tasks {
    /// Waits for the exit, then for what the worker had still said.
    async fn see_out(mut self, mut child: Child, guest: Guest) -> ExitReport {
        let exit = child.wait().await;
        drop(guest);
        // Whoever comes now goes to the next worker, and counts as seen by none.
        self.lane.retire();
        let evidence = self.end_tree().await;
        // Both ends by themselves when the worker's ends of socket and pipe are closed.
        let _late = timeout(LAST_WORDS, &mut self.listen).await;
        let _late = timeout(LAST_WORDS, &mut self.output).await;
        self.listen.abort();
        self.output.abort();
        self.lane.drain();
        let class = class(exit, evidence);
        // The last lines are in the record; of a signal they say nothing.
        let detail = match exit {
            Exit::Code(_) => self.tail.lines().pop().unwrap_or_default(),
            Exit::Signal(_) | Exit::Unknown => String::new(),
        };
        ExitReport { class, detail }
    }

    /// Ends what the worker has started and left, and says what the kernel knows of its end; nothing,
    /// if the machine has no thread to spare for so long.
    async fn end_tree(&self) -> Evidence {
        let ending = end_tree(Arc::clone(&self.enclosure), Arc::clone(&self.family));
        // It goes on by itself if it is late.
        let ended = timeout(TREE_LIMIT, tokio::spawn(ending)).await;
        ended.ok().and_then(Result::ok).unwrap_or(Evidence { oom_kills: 0 })
    }
}

fn who(spec: &InstanceSpec, pid: i32) -> Who {
    let arena = u64::try_from(spec.geometry.total_bytes()).unwrap_or(u64::MAX);
    Who { pid, arena, level: spec.confinement.level }
}

/// How the processes that a worker starts are known, as long as it lives.
fn household(
    id: &WorkerId,
    enclosure: &Arc<Enclosure>,
    pid: i32,
    level: config::Confinement,
) -> Household {
    if enclosure.has_groups() {
        return Household::listed(Listed(Arc::clone(enclosure)));
    }
    let starts = match level {
        config::Confinement::None => Starts::Freely,
        config::Confinement::Standard | config::Confinement::Strict => Starts::Never,
    };
    Household::marked(id, pid, &enclosure.report().scratch, starts)
}

#[derive(Debug)]
struct Listed(Arc<Enclosure>);

impl Roster for Listed {
    fn members(&self) -> Vec<i32> {
        self.0.listed()
    }
}

/// Reports that the worker is gone, whatever became of the task that saw it out: the driver waits for
/// this before it lets go of the worker. A panic in there has dropped the child, which ends it.
async fn report_exit(
    see_out: impl Future<Output = ExitReport> + Send + 'static,
    reporter: mpsc::Sender<Report>,
    (limits, enclosure, family): (HardLimits, Arc<Enclosure>, Arc<Family>),
) {
    let exit = tokio::spawn(see_out).await.unwrap_or_else(|error| ExitReport {
        class: ExitClass::Unknown,
        detail: format!("who waited for it has failed: {error}"),
    });
    let _gone = reporter.send(Report::Exited(exit)).await;
    // Nobody waits for it: the next generation has names of its own.
    limits.clear().await;
    enclosure.dissolve().await;
    let _unfinished = family.end_strays().await;
}

async fn end_tree(enclosure: Arc<Enclosure>, family: Arc<Family>) -> Evidence {
    let evidence = enclosure.examine().await;
    match enclosure.report().tree_kill {
        TreeKill::CgroupKill | TreeKill::CgroupMembers => {}
        TreeKill::ProcessGroup => {
            // What is left of them is found at the next worker's end.
            let _unfinished = family.end_strays().await;
        }
    }
    evidence
}

/// The kernel's own count tells memory from other reasons for the same signal.
fn class(exit: Exit, evidence: Evidence) -> ExitClass {
    match exit {
        Exit::Signal(signal) if signal == Signal::SIGKILL as i32 && evidence.oom_kills > 0 => {
            ExitClass::HostOutOfMemory
        }
        Exit::Code(code) => ExitClass::of_code(code),
        Exit::Signal(signal) => ExitClass::Signal(signal),
        Exit::Unknown => ExitClass::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Cgroup, Confinement as ConfinementLevel, HostLimits};
    use crate::enclosure::Enclosures;

    async fn enclosure(scratch: &std::path::Path) -> Arc<Enclosure> {
        let enclosures = Enclosures::open(&Cgroup::Off, scratch).await.unwrap();
        let instance = shared::id::InstanceId {
            model: shared::id::ModelName::new("m").unwrap(),
            version: shared::id::ModelVersion::new(1).unwrap(),
            index: 0,
        };
        let id = WorkerId { instance, generation: Generation(1) };
        enclosures.enclose(&id, &HostLimits::default(), ConfinementLevel::None).await.unwrap()
    }

    #[tokio::test]
    async fn an_exit_is_reported_even_if_who_saw_it_panics() {
        let scratch = tempfile::tempdir().unwrap();
        let (reporter, mut reports) = mpsc::channel(1);
        let no_thread = async { panic!("OS can't spawn worker thread") };
        let after = (HardLimits::none(), enclosure(scratch.path()).await, Arc::default());
        report_exit(no_thread, reporter, after).await;
        let Some(Report::Exited(exit)) = reports.recv().await else { panic!("no report") };
        assert_eq!(exit.class, ExitClass::Unknown);
    }
}
