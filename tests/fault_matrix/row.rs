//! One row of the matrix: what is done, what is expected, and what must hold in any case.

use std::time::Duration;

use nix::sys::signal::Signal;
use tests::client::Aside;
use tests::supervisor::Builder;
use tests::workers::{WorkerProcess, private_memory};
use tests::{Echo, Holdings, Infer, Load, Response, Supervisor, wait};

pub(crate) const VICTIM: &str = "victim";
pub(crate) const NEIGHBOUR: &str = "neighbour";

/// How much later than its deadline an answer may be on a machine that is busy with other tests.
const LATE: Duration = Duration::from_secs(5);
/// Promised: what the supervisor may have grown by, in kilobytes.
const GROWTH: u64 = 10 << 10;
/// Answers before and after, so that growth is that of the fault and not of a server that warms up.
const STEADY: u64 = 100;
/// Callers of the victim who have done nothing.
const BYSTANDERS: usize = 4;

/// Begun with the model that is the victim; then what is done to it, and what is expected.
#[derive(Debug)]
pub(crate) struct Row {
    server: Builder,
    /// A request that the victim answers with 200 when it is well.
    well: Infer,
    deadline: Duration,
    strikes: Vec<Strike>,
    bystanders: Vec<u16>,
    end: End,
}

/// Something that is done to the victim, and what it says to whoever asked for it.
#[derive(Debug)]
struct Strike {
    request: Infer,
    blow: Blow,
    statuses: Vec<u16>,
    says: String,
}

/// What happens to the worker beside the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    Nothing,
    /// It is ended by this signal while it computes.
    Ended(Signal),
    /// It is stopped before the request is sent.
    Stopped,
}

/// What becomes of the victim.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The same worker serves on.
    Unharmed,
    /// So many workers end, in this way, and another one serves.
    Back { kind: String, workers: usize },
    /// Its worker ends in this way, and nobody serves until the model is loaded again.
    Quarantined { kind: String },
}

impl Row {
    /// With a victim of the echo engine.
    pub(crate) fn new() -> Self {
        Self::of(Supervisor::with_echo(VICTIM), Infer::echo(VICTIM))
    }

    /// With the victim that `server` has, which answers `well`.
    pub(crate) fn of(server: Builder, well: Infer) -> Self {
        Self {
            server: beside_a_neighbour(server),
            well,
            deadline: Duration::from_secs(20),
            strikes: Vec::new(),
            bystanders: vec![200],
            end: End::Unharmed,
        }
    }

    /// A setting of the victim alone.
    pub(crate) fn set(mut self, key: &str, value: &str) -> Self {
        self.server = self.server.set(&format!("models.{VICTIM}.{key}"), value);
        self
    }

    /// A setting of the server.
    pub(crate) fn server(mut self, key: &str, value: &str) -> Self {
        self.server = self.server.set(key, value);
        self
    }

    pub(crate) fn user(mut self, user: u32) -> Self {
        self.server = self.server.user(user);
        self
    }

    /// The victim's `infer_timeout`. Its bystanders may share the fate of what they wait behind.
    pub(crate) fn deadline(mut self, milliseconds: u64) -> Self {
        self.deadline = Duration::from_millis(milliseconds);
        self.bystanders = vec![200, 504];
        self
    }

    /// An echo is asked to do this, and must not be asked twice. It answers with one of `statuses`
    /// and says something with `says` in it.
    pub(crate) fn strike(self, command: &str, statuses: &[u16], says: &str) -> Self {
        self.request(Infer::command(VICTIM, command).once(), statuses, says)
    }

    /// The same with any request.
    pub(crate) fn request(mut self, request: Infer, statuses: &[u16], says: &str) -> Self {
        let (statuses, says) = (statuses.to_vec(), says.to_owned());
        self.strikes.push(Strike { request, blow: Blow::Nothing, statuses, says });
        self
    }

    /// The worker gets a signal from outside while it computes for `request`.
    pub(crate) fn signal(mut self, signal: Signal, request: Infer) -> Self {
        let (statuses, says) = (vec![500], "the worker of model 'victim' ended".to_owned());
        self.strikes.push(Strike { request, blow: Blow::Ended(signal), statuses, says });
        self
    }

    /// The worker is stopped from outside, and then sent `request`.
    pub(crate) fn stopped(mut self, request: Infer, statuses: &[u16]) -> Self {
        let (statuses, says) = (statuses.to_vec(), String::new());
        self.strikes.push(Strike { request, blow: Blow::Stopped, statuses, says });
        self
    }

    /// What the victim does can spoil answers that it has given already.
    pub(crate) fn spoils_answers(mut self) -> Self {
        self.bystanders = vec![200, 500];
        self
    }

    /// The victim does not come back, and its bystanders come too late.
    pub(crate) fn bystanders_may_fail(mut self) -> Self {
        self.bystanders = vec![200, 404, 500, 503];
        self
    }

    /// One worker ends and another one serves.
    pub(crate) fn back_after(self, kind: &str) -> Self {
        self.back_after_all(1, kind)
    }

    pub(crate) fn back_after_all(mut self, workers: usize, kind: &str) -> Self {
        self.end = End::Back { kind: kind.into(), workers };
        self
    }

    pub(crate) fn quarantined_after(mut self, kind: &str) -> Self {
        self.end = End::Quarantined { kind: kind.into() };
        self
    }

    /// Carries it out.
    pub(crate) fn run(self) {
        self.run_if(|_| true);
    }

    /// Carries it out if this is so on the server that was started.
    pub(crate) fn run_if(self, fits: impl FnOnce(&Supervisor) -> bool) {
        let timeout = format!("{}ms", self.deadline.as_millis());
        let Self { server, well, deadline, strikes, bystanders, end } =
            self.set("infer_timeout", &timeout);
        let server = server.start();
        if !fits(&server) {
            return;
        }
        let scene = Scene::new(server, well, deadline);
        let (worker, innocent) = (scene.server.worker(VICTIM), scene.bystanders());
        for strike in strikes {
            scene.carry_out(strike, &worker);
        }
        scene.assert_answered(innocent, &bystanders);
        scene.assert_end(&end, &worker);
        scene.assert_nothing_else_happened();
    }
}

/// Restarts are quick, and so is the end of what does not end by itself.
pub(crate) fn beside_a_neighbour(server: Builder) -> Builder {
    server
        .echo(NEIGHBOUR, &Echo::default())
        .set("repository.required", &format!("[{NEIGHBOUR:?}]"))
        .set("log.filter", "info,supervisor::lifecycle::driver=debug")
        .set("worker.stop_timeout", "200ms")
        .set("restart.backoff.initial", "20ms")
        .set("restart.backoff.factor", "1.0")
}

/// A server before its victim is struck, with what is known of it then.
pub(crate) struct Scene {
    pub(crate) server: Supervisor,
    well: Infer,
    deadline: Duration,
    neighbour: Load,
    holdings: Holdings,
    memory: u64,
}

impl Scene {
    fn new(server: Supervisor, well: Infer, deadline: Duration) -> Self {
        server.wait_until_ready(VICTIM);
        server.infer(&well).assert_status(200);
        Self::of(server, well, deadline)
    }

    /// Whatever the state of its victim is.
    pub(crate) fn of(server: Supervisor, well: Infer, deadline: Duration) -> Self {
        let neighbour = server.load_on(NEIGHBOUR);
        neighbour.wait_for_more(STEADY);
        let (holdings, memory) = (Holdings::of(&server), private_memory(server.pid()));
        Self { server, well, deadline, neighbour, holdings, memory }
    }

    fn bystanders(&self) -> Vec<Aside> {
        (0..BYSTANDERS).map(|_| self.server.infer_aside(self.well.clone())).collect()
    }

    fn carry_out(&self, strike: Strike, worker: &WorkerProcess) {
        let Strike { request, blow, statuses, says } = strike;
        if blow == Blow::Stopped {
            worker.signal(Signal::SIGSTOP);
        }
        let aside = self.server.infer_aside(request);
        if let Blow::Ended(signal) = blow {
            worker.wait_until_busy();
            worker.kill(signal);
        }
        let answer = self.answer_in_time(aside);
        assert!(statuses.contains(&answer.status), "{} {}", answer.status, answer.text());
        assert!(answer.status == 200 || answer.error().contains(&says), "{}", answer.text());
    }

    fn assert_answered(&self, asides: Vec<Aside>, statuses: &[u16]) {
        for aside in asides {
            let answer = self.answer_in_time(aside);
            let expected = statuses.contains(&answer.status);
            assert!(expected, "a bystander: {} {}", answer.status, answer.text());
        }
    }

    fn answer_in_time(&self, aside: Aside) -> Response {
        wait::within(self.deadline + LATE, "an answer", || aside.is_finished());
        aside.answer()
    }

    fn assert_end(&self, end: &End, worker: &WorkerProcess) {
        match end {
            End::Unharmed => {
                self.assert_serves();
                assert!(worker.is_alive());
                self.assert_exits(0, "");
            }
            End::Back { kind, workers } => {
                self.assert_exits(*workers, kind);
                self.server.wait_until_ready(VICTIM);
                self.assert_serves();
                assert!(!worker.is_alive());
                self.assert_exits(*workers, kind);
            }
            End::Quarantined { kind } => {
                self.assert_exits(1, kind);
                self.assert_quarantined();
                self.load_again();
            }
        }
    }

    pub(crate) fn assert_exits(&self, count: usize, kind: &str) {
        let exits = self.server.logs().wait_for_number(count, VICTIM, "worker exited");
        let kinds: Vec<_> = exits.iter().map(|exit| exit["kind"].as_str()).collect();
        assert_eq!(kinds, vec![Some(kind); count], "{exits:?}");
    }

    pub(crate) fn assert_quarantined(&self) {
        let reason = self.server.wait_for_state(VICTIM, "UNAVAILABLE");
        assert!(reason.contains("/load) clears this"), "{reason}");
        assert!(self.server.workers_of(VICTIM).is_empty());
        self.server.infer(&self.well).assert_status(404);
        self.server.infer(&Infer::echo(NEIGHBOUR)).assert_status(200);
    }

    /// What kept the victim from being loaded is gone. It ends as it was: without a worker.
    pub(crate) fn assert_can_be_loaded(self) {
        self.load_again();
        self.server.client().unload(VICTIM).assert_status(200);
        self.assert_nothing_else_happened();
    }

    fn load_again(&self) {
        self.server.client().load(VICTIM).assert_status(200);
        self.assert_serves();
    }

    pub(crate) fn assert_serves(&self) {
        self.server.infer(&self.well).assert_status(200);
    }

    /// The neighbour has not noticed, and the server is as it was before.
    pub(crate) fn assert_nothing_else_happened(self) {
        let Self { server, neighbour, holdings, memory, .. } = self;
        neighbour.wait_for_more(STEADY);
        neighbour.assert_no_errors();
        assert!(server.logs().about(NEIGHBOUR, "worker exited").is_empty());
        holdings.wait_until_same(&server);
        let now = private_memory(server.pid());
        assert!(now <= memory + GROWTH, "the supervisor had {memory} kB, now {now} kB");
    }
}
