//! The thread that asks the driver, and what it remembers from one answer to the next.
//!
//! It waits for somebody who wants to know, asks, answers, and waits again; how often, and what it means
//! when no answer comes, is decided elsewhere (`devices`), since any call may keep it here for ever. It ends
//! when nobody can want to know any more, and at once where there is no library: one that is installed
//! later is found by the next start. What is there and fails is tried anew each time.

use std::path::PathBuf;
use std::sync::mpsc::Receiver;

use nvml_wrapper::Nvml;
use shared::clock::MonotonicNanos;
use tokio::sync::mpsc::Sender;
use tracing::{debug, info, warn};

use super::nvml::{Reported, Session, Unopened, open};
use super::reading::{Device, Driver, Reading, Snapshot, State};
use super::roster::{Change, Roster};
use super::xid::{Meaning, meaning};

/// Where the driver puts its library, by the name that the loader looks for.
pub(super) const USUAL_LIBRARY: &str = "libnvidia-ml.so.1";

/// Which library to speak to.
#[derive(Clone, Debug)]
pub(super) enum Library {
    /// It may well not be there.
    Usual,
    /// It should be there.
    Named(PathBuf),
}

impl Library {
    pub(super) fn path(&self) -> PathBuf {
        match self {
            Self::Usual => PathBuf::from(USUAL_LIBRARY),
            Self::Named(path) => path.clone(),
        }
    }
}

pub(super) struct Asker {
    library: Library,
    wanted: Receiver<()>,
    answers: Sender<Answer>,
    roster: Roster,
    /// Why there was nothing to ask, as it was said last.
    absent: Option<String>,
}

/// What comes of a question.
#[derive(Debug)]
pub(super) enum Answer {
    Snapshot(Snapshot),
    /// There is no use in asking again.
    Last(Snapshot),
}

/// Whether anybody listens.
enum Heard {
    Yes,
    No,
}

impl Asker {
    pub(super) fn new(library: Library, wanted: Receiver<()>, answers: Sender<Answer>) -> Self {
        Self { library, wanted, answers, roster: Roster::default(), absent: None }
    }

    pub(super) fn run(mut self) {
        let path = self.library.path();
        let mut loaded = false;
        while self.wanted.recv().is_ok() {
            let taken = MonotonicNanos::now();
            let heard = match open(&path) {
                Ok(nvml) => {
                    loaded = true;
                    self.absent = None;
                    self.session(&nvml, taken)
                }
                Err(unopened) => {
                    let why = self.unopened(&unopened);
                    if let (Unopened::NoLibrary(_), false) = (&unopened, loaded) {
                        let _deaf = self.answers.blocking_send(Answer::Last(Snapshot::absent(why)));
                        return;
                    }
                    loaded = true;
                    self.without_driver(&why, taken)
                }
            };
            if let Heard::No = heard {
                return;
            }
        }
    }

    /// Says once what is in the way.
    fn unopened(&mut self, unopened: &Unopened) -> String {
        let why = match unopened {
            Unopened::NoLibrary(why) => format!("the driver's library cannot be loaded: {why}"),
            Unopened::NoDriver(why) | Unopened::Fails(why) => why.clone(),
        };
        if self.absent.as_ref() != Some(&why) {
            match (unopened, &self.library) {
                (Unopened::NoLibrary(_), Library::Usual) => debug!(why, "no GPUs"),
                (Unopened::NoDriver(_), _) => info!(why, "no GPUs"),
                (Unopened::NoLibrary(_), Library::Named(_)) | (Unopened::Fails(_), _) => {
                    warn!(why, "the GPU driver cannot be asked");
                }
            }
            self.absent = Some(why.clone());
        }
        why
    }

    /// Until the driver itself is gone, or nobody listens any more.
    fn session(&mut self, nvml: &Nvml, mut taken: MonotonicNanos) -> Heard {
        let mut session = Session::new(nvml);
        info!(driver = session.version(), "the GPU driver answers");
        loop {
            let round = session.round();
            for reported in session.take_reported() {
                self.judge(reported);
            }
            match round {
                Ok(round) => {
                    for (device, change) in self.roster.on(round) {
                        self.tell(&device, &change);
                    }
                    let driver = Driver::Answers(session.version().to_owned());
                    if let Heard::No = self.answer(driver, taken) {
                        return Heard::No;
                    }
                }
                Err(why) => {
                    warn!(why, "the GPU driver does not answer for its devices any more");
                    return self.without_driver(&why, taken);
                }
            }
            if self.wanted.recv().is_err() {
                return Heard::No;
            }
            taken = MonotonicNanos::now();
        }
    }

    fn without_driver(&mut self, why: &str, taken: MonotonicNanos) -> Heard {
        self.roster.blind(why);
        self.answer(Driver::Absent(why.to_owned()), taken)
    }

    fn answer(&self, driver: Driver, taken: MonotonicNanos) -> Heard {
        let readings = self.roster.readings().to_vec();
        let answer = Answer::Snapshot(Snapshot { taken, driver, readings });
        match self.answers.blocking_send(answer) {
            Ok(()) => Heard::Yes,
            Err(_) => Heard::No,
        }
    }

    fn judge(&mut self, Reported { device, xid, times }: Reported) {
        match meaning(xid) {
            Meaning::Lost(why) => {
                warn!(%device, xid, times, why, "a GPU has reported an error that takes a reset");
                self.roster.condemn(device, format!("{why} (Xid {xid})"));
            }
            Meaning::Application(what) => {
                info!(%device, xid, times, what, "a GPU has reported the error of a process");
            }
            Meaning::Notice(what) => {
                warn!(%device, xid, times, what, "a GPU has reported an error")
            }
        }
    }

    fn tell(&self, device: &Device, change: &Change) {
        let Device { id, index, name, .. } = device;
        match change {
            Change::Appeared => {
                let of = |reading: &Reading| reading.device.id == *id;
                let reading = self.roster.readings().iter().find(|reading| of(reading));
                let memory = reading.and_then(|r| r.memory).map(|memory| memory.total);
                match reading.map(|reading| &reading.state) {
                    Some(State::Lost(why)) => warn!(%id, index, name, why, "a GPU that is lost"),
                    Some(State::Usable) | None => info!(%id, index, name, memory, "a GPU"),
                }
            }
            Change::Lost(why) => warn!(%id, index, name, why, "a GPU is lost"),
            Change::Returned => info!(%id, index, name, "a GPU is back"),
        }
    }
}
