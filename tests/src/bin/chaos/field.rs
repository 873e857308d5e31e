//! What everyone here shares: the server, what is known of it, and where it is written down.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tests::Supervisor;

use crate::fleet::{Engine, Torch, Victim};
use crate::journal::{Journal, Stop};
use crate::question::Questions;

#[derive(Debug)]
pub(crate) struct Field<'a> {
    pub(crate) server: &'a Supervisor,
    pub(crate) torch: Option<&'a Torch>,
    pub(crate) victims: Vec<Victim>,
    pub(crate) journal: Journal,
    pub(crate) stop: Stop,
    /// For each victim; held by whoever changes or loads it, so that it is known what is on disk.
    repository: Vec<Mutex<()>>,
}

impl<'a> Field<'a> {
    pub(crate) fn new(server: &'a Supervisor, torch: Option<&'a Torch>) -> Self {
        let victims = crate::fleet::victims(torch);
        let repository = victims.iter().map(|_| Mutex::default()).collect();
        let (journal, stop) = (Journal::default(), Stop::default());
        Self { server, torch, victims, journal, stop, repository }
    }

    pub(crate) fn questions(&self, model: &'static str, asker: u16, engine: Engine) -> Questions {
        Questions::new(model, asker, engine, self.torch)
    }

    pub(crate) fn repository(&self, victim: Victim) -> MutexGuard<'_, ()> {
        let index = self.victims.iter().position(|v| *v == victim).expect("only these are struck");
        self.repository[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
