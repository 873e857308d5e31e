//! One row of the matrix: what is done, and what is expected.

use std::time::Duration;

use nix::sys::signal::Signal;
use tests::supervisor::Builder;
use tests::{Infer, Supervisor};

use crate::scene::{Scene, VICTIM, beside_a_neighbour};

/// Callers of the victim who have done nothing, behind each such strike.
const BYSTANDERS: usize = 4;
/// A deadline that a busy machine keeps.
const LONG: Duration = Duration::from_secs(10);
/// Strikes of a row behind which there are bystanders.
const WITNESSED: usize = 2;

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
pub(crate) struct Strike {
    pub(crate) request: Infer,
    pub(crate) blow: Blow,
    pub(crate) statuses: Vec<u16>,
    pub(crate) says: String,
}

/// What happens to the worker beside the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    Nothing,
    /// It is ended by this signal while it computes.
    Ended(Signal),
    /// It has been stopped, and stays so.
    Stopped,
}

/// What becomes of the victim.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
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

    /// The victim's `infer_timeout`, which bystanders may miss behind what hangs.
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

    /// The victim does not come back: its bystanders were in flight, or were just about to be.
    pub(crate) fn bystanders_fail(mut self) -> Self {
        self.bystanders = vec![500, 503];
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
        let worker = scene.server.worker(VICTIM);
        let unanswered = strikes.iter().take(WITNESSED).all(|strike| !strike.is_answered_well());
        let mut innocent = Vec::new();
        for (number, strike) in strikes.into_iter().enumerate() {
            // Who was struck before may be gone, or on its way; and who must be answered well and soon
            // cannot be held up.
            let rushed = deadline < LONG && strike.is_answered_well();
            let behind = number < WITNESSED && worker.is_alive() && !rushed;
            innocent.extend(scene.carry_out(strike, &worker, if behind { BYSTANDERS } else { 0 }));
        }
        scene.assert_answered(innocent, &bystanders);
        scene.assert_end(&end, &worker);
        if end != End::Unharmed && unanswered {
            scene.assert_had_bystanders();
        }
        scene.assert_nothing_else_happened();
    }
}

impl Strike {
    /// Its worker may have answered all that was in flight before it ends.
    fn is_answered_well(&self) -> bool {
        self.statuses.contains(&200)
    }
}
