//! A server whose victim is struck, and what must hold in any case: nothing here depends on the row.

use std::time::Duration;

use nix::sys::signal::Signal;
use tests::supervisor::Builder;
use tests::workers::{WorkerProcess, private_memory};
use tests::{Aside, Echo, Holdings, Infer, Load, Peak, Response, Supervisor};

use crate::row::{Blow, End, Strike};

pub(crate) const VICTIM: &str = "victim";
pub(crate) const NEIGHBOUR: &str = "neighbour";

/// How much later than its deadline an answer may be on a machine that is busy with other tests.
const LATE: Duration = Duration::from_secs(5);
/// Promised: what the supervisor may have grown by, in kilobytes, at any time.
const GROWTH: u64 = 10 << 10;
/// Answers before and after, so that growth is that of the fault and not of a server that warms up.
const STEADY: u64 = 100;
/// A load that fails, with all its restarts.
const LOAD_LIMIT: Duration = Duration::from_secs(20);

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
    peak: Peak,
}

impl Scene {
    pub(crate) fn new(server: Supervisor, well: Infer, deadline: Duration) -> Self {
        server.wait_until_ready(VICTIM);
        server.infer(&well).assert_status(200);
        Self::of(server, well, deadline)
    }

    /// Whatever the state of its victim is, or if there is none yet.
    pub(crate) fn of(server: Supervisor, well: Infer, deadline: Duration) -> Self {
        let neighbour = server.load_on(NEIGHBOUR);
        neighbour.wait_for_more(STEADY);
        let (holdings, memory) = (Holdings::of(&server), private_memory(server.pid()));
        let peak = Peak::watch(server.pid());
        Self { server, well, deadline, neighbour, holdings, memory, peak }
    }

    /// Strikes, with so many bystanders behind the strike, whose answers are still to come.
    pub(crate) fn carry_out(
        &self,
        strike: Strike,
        worker: &WorkerProcess,
        bystanders: usize,
    ) -> Vec<Aside> {
        let Strike { request, blow, statuses, says } = strike;
        // All of it is to be there before any of it begins.
        if bystanders > 0 || blow == Blow::Stopped {
            worker.stop();
        }
        let aside = self.server.infer_aside(request);
        aside.wait_until_taken();
        let behind = || self.server.infer_aside(self.well.clone());
        let behind: Vec<Aside> = (0..bystanders).map(|_| behind()).collect();
        behind.iter().for_each(Aside::wait_until_taken);
        if blow != Blow::Stopped {
            worker.signal(Signal::SIGCONT);
        }
        if let Blow::Ended(signal) = blow {
            worker.wait_until_busy();
            worker.kill(signal);
        }
        let answer = self.answer_in_time(aside);
        assert!(statuses.contains(&answer.status), "{} {}", answer.status, answer.text());
        assert!(answer.status == 200 || answer.error().contains(&says), "{}", answer.text());
        behind
    }

    pub(crate) fn assert_answered(&self, asides: Vec<Aside>, statuses: &[u16]) {
        for aside in asides {
            let answer = self.answer_in_time(aside);
            let expected = statuses.contains(&answer.status);
            assert!(expected, "a bystander: {} {}", answer.status, answer.text());
        }
    }

    fn answer_in_time(&self, aside: Aside) -> Response {
        aside.answer_within(self.deadline + LATE)
    }

    pub(crate) fn assert_end(&self, end: &End, worker: &WorkerProcess) {
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

    /// Others were in flight when the first worker ended.
    pub(crate) fn assert_had_bystanders(&self) {
        let exit = self.server.logs().wait_for_number(1, VICTIM, "worker exited").remove(0);
        assert!(exit["in_flight"].as_u64().is_some_and(|requests| requests > 1), "{exit}");
    }

    pub(crate) fn assert_quarantined(&self) {
        let reason = self.server.wait_for_state(VICTIM, "UNAVAILABLE");
        assert!(reason.contains("/load) clears this"), "{reason}");
        assert!(self.server.workers_of(VICTIM).is_empty());
        self.server.infer(&self.well).assert_status(404);
        self.server.infer(&Infer::echo(NEIGHBOUR)).assert_status(200);
    }

    /// A load of the victim fails after so many workers that ended in this way. Who asks meanwhile is
    /// told, in time, that it is not there yet, or that it will not be.
    pub(crate) fn assert_cannot_be_loaded(&self, workers: usize, kind: &str) {
        let loading = self.server.load_aside(VICTIM);
        loading.wait_until_taken();
        while !loading.is_finished() {
            let answer = self.answer_in_time(self.server.infer_aside(self.well.clone()));
            let told = (answer.status, answer.header("retry-after").is_some());
            assert!([(503, true), (404, false)].contains(&told), "{told:?} {}", answer.text());
        }
        loading.answer_within(LOAD_LIMIT).assert_status(400);
        self.assert_exits(workers, kind);
        self.assert_quarantined();
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
        let Self { server, neighbour, holdings, memory, peak, .. } = self;
        neighbour.wait_for_more(STEADY);
        neighbour.assert_no_errors();
        assert!(server.logs().about(NEIGHBOUR, "worker exited").is_empty());
        holdings.wait_until_same(&server);
        let (most, now) = (peak.finish(), private_memory(server.pid()));
        let told = format!("the supervisor had {memory} kB, at most {most} kB, and has {now} kB");
        assert!(most.max(now) <= memory + GROWTH, "{told}");
    }
}
