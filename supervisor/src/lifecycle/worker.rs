//! One live worker: its process, its lane, its session, and the tasks that wait for them.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use proto::control::{Command, Confinement};
use shared::id::{Generation, WorkerId};
use shared::sys::socket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::driver::Patience;
use super::instance::{InstanceSpec, Kit};
use super::{ExitClass, ExitReport};
use crate::lane::{Bells, Lane, LaneEvent, LaneParts, listen};
use crate::process::child::Group;
use crate::process::{Child, Exit, Session, Tail, WorkerCommand, output};
use crate::schedule::SlotQueue;
use crate::schedule::pool::LaneId;

/// What a worker's tasks tell its driver.
#[derive(Debug)]
pub(super) enum Report {
    Attached(Session),
    NoHandshake(String),
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
    pub(super) lane_events: mpsc::Receiver<LaneEvent>,
    pub(super) reports: mpsc::Receiver<Report>,
    reporter: mpsc::Sender<Report>,
    seat: LaneId,
    group: Group,
    tail: Tail,
    started: Instant,
    handshake: JoinHandle<()>,
}

/// Packets with facts that may wait for the driver.
const LANE_EVENTS: usize = 64;
/// How long the end of a worker's output is waited for after its exit: a grandchild may hold it.
const LAST_WORDS: Duration = Duration::from_millis(200);

impl Worker {
    /// Makes the lane, starts the process and begins the handshake.
    pub(super) async fn start(
        spec: &InstanceSpec,
        kit: &Kit,
        queue: &Arc<SlotQueue>,
        id: WorkerId,
    ) -> Result<Self, ExitReport> {
        let failed = |detail: String| ExitReport { class: ExitClass::SpawnFailed, detail };
        let (ours, theirs) = socket::pair().map_err(|e| failed(format!("control socket: {e}")))?;
        let (log, log_writer) = std::io::pipe().map_err(|e| failed(format!("log pipe: {e}")))?;
        let seat = queue.seat();
        let seat_id = seat.id();
        let (lane_sender, lane_events) = mpsc::channel(LANE_EVENTS);
        let lane = Lane::new(LaneParts {
            geometry: spec.geometry,
            generation: id.generation,
            socket: ours,
            bells: Arc::clone(&kit.bells),
            free: Arc::new(seat),
            events: lane_sender,
        });
        let lane = lane.map_err(|e| failed(format!("shared memory: {e}")))?;
        let command = WorkerCommand {
            binary: spec.binary.clone(),
            worker: id.clone(),
            level: spec.confinement.level,
            threads: spec.load.threads,
            control: theirs,
            log: log_writer,
        };
        let child = kit.spawner.spawn(command).await.map_err(|e| failed(e.to_string()))?;
        kit.bells.add(&lane);
        let (reporter, reports) = mpsc::channel(4);
        let tail = Tail::default();
        let tasks = Tasks {
            listen: tokio::spawn(listen(Arc::downgrade(&lane))),
            output: tokio::spawn(output::forward(log, id.clone(), spec.log, tail.clone())),
            lane: Arc::clone(&lane),
            tail: tail.clone(),
        };
        let group = child.group();
        tokio::spawn(tasks.see_out(child, reporter.clone()));
        let handshake = tokio::spawn(shake_hands(
            id.clone(),
            Arc::clone(&lane),
            (spec.handshake_timeout, spec.confinement.clone()),
            reporter.clone(),
        ));
        Ok(Self {
            id,
            lane,
            session: None,
            confined: false,
            listens: false,
            lane_events,
            reports,
            reporter,
            seat: seat_id,
            group,
            tail,
            started: Instant::now(),
            handshake,
        })
    }

    pub(super) fn generation(&self) -> Generation {
        self.id.generation
    }

    pub(super) fn pid(&self) -> i32 {
        self.group.pid()
    }

    pub(super) fn tail(&self) -> Vec<String> {
        self.tail.lines()
    }

    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn next_lane_event(&mut self) -> Option<LaneEvent> {
        self.lane_events.try_recv().ok()
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

    /// The first step down: a command if it listens, a signal if it does not or cannot.
    pub(super) fn ask_to_end(&mut self, patience: Patience) {
        match (&self.session, patience) {
            (Some(session), Patience::Some) if self.listens => session.send(Command::Shutdown),
            (Some(_) | None, Patience::None | Patience::Some) => {
                self.group.signal(Signal::SIGTERM);
            }
        }
    }

    pub(super) fn kill(&self) {
        self.group.signal(Signal::SIGKILL);
    }

    /// Forgets a worker whose exit was seen.
    pub(super) fn bury(self, bells: &Bells, queue: &SlotQueue) {
        self.handshake.abort();
        queue.leave(self.seat);
        bells.remove(&self.lane);
    }
}

async fn shake_hands(
    id: WorkerId,
    lane: Arc<Lane>,
    greeting: (Duration, Confinement),
    reporter: mpsc::Sender<Report>,
) {
    let session = Session::open(id, lane.socket(), lane.objects(), greeting).await;
    let report = match session {
        Ok(session) => Report::Attached(session),
        Err(error) => Report::NoHandshake(with_sources(&error)),
    };
    let _gone = reporter.send(report).await;
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// What runs beside a worker until its end.
#[derive(Debug)]
struct Tasks {
    listen: JoinHandle<std::io::Result<()>>,
    output: JoinHandle<std::io::Result<()>>,
    lane: Arc<Lane>,
    tail: Tail,
}

impl Tasks {
    /// Waits for the exit, then for what the worker had still said, then reports.
    async fn see_out(mut self, mut child: Child, reporter: mpsc::Sender<Report>) {
        let exit = child.wait().await;
        // Both ends by themselves when the worker's ends of socket and pipe are closed.
        let _late = timeout(LAST_WORDS, &mut self.listen).await;
        let _late = timeout(LAST_WORDS, &mut self.output).await;
        self.listen.abort();
        self.output.abort();
        self.lane.drain();
        let class = match exit {
            Exit::Code(code) => ExitClass::Code(code),
            Exit::Signal(signal) => ExitClass::Signal(signal),
            Exit::Unknown => ExitClass::Unknown,
        };
        // The last lines are in the record; of a signal they say nothing.
        let detail = match exit {
            Exit::Code(_) => self.tail.lines().pop().unwrap_or_default(),
            Exit::Signal(_) | Exit::Unknown => String::new(),
        };
        // The driver waits for this report before it lets go of the worker.
        let _gone = reporter.send(Report::Exited(ExitReport { class, detail })).await;
    }
}
