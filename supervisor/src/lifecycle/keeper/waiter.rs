//! Who waits for a model to be loaded or unloaded, and what is said to whom.

use tokio::sync::oneshot;

use super::Done;
use crate::request::RequestError;

#[derive(Debug)]
pub(super) enum Waiter {
    /// A client or an operator, who asked for this model.
    Client(Done),
    /// A reload of the configuration.
    Reload(oneshot::Sender<Ending>),
}

/// What became of a reload's wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::lifecycle) enum Ending {
    Reached,
    Failed(String),
    /// A later reload wished for something else.
    Overtaken,
}

impl Waiter {
    /// Nobody hears it any more.
    pub(super) fn is_gone(&self) -> bool {
        match self {
            Self::Client(done) => done.is_closed(),
            Self::Reload(done) => done.is_closed(),
        }
    }

    /// Whoever has gone does not stop what was begun.
    pub(super) fn answer(self, result: Result<(), RequestError>) {
        match self {
            Self::Client(done) => drop(done.send(result)),
            Self::Reload(done) => drop(done.send(match result {
                Ok(()) => Ending::Reached,
                Err(error) => Ending::Failed(error.to_string()),
            })),
        }
    }

    /// Tells the reloads among them that another one has taken over, and returns the others.
    pub(super) fn overtake(all: &mut Vec<Self>) -> Vec<Self> {
        let told = |waiter| match waiter {
            Self::Client(done) => Some(Self::Client(done)),
            Self::Reload(done) => {
                let _gone = done.send(Ending::Overtaken);
                None
            }
        };
        all.drain(..).filter_map(told).collect()
    }
}
