//! What becomes of requests in flight when their worker ends.
//!
//! Each goes back to whoever waits for it, with its bytes: the supervisor's memory is intact, and the
//! worker could only read it. If the worker ended by itself or was ended for what it did, each that
//! may be why is written down first, also where the client has left meanwhile.
//!
//! A batcher would plug in here: what it publishes as one has several members, and on a crash
//! [`Lane::close`] must hand back, and have written down, each member by itself. Every member then
//! runs alone like any other request that was in flight, so that the innocent ones are answered. A
//! batch that a client made itself is one request, and stays one.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::lease::Lease;
use super::pending::RunError;
use super::table::{Given, Taken};
use super::transport::{Lane, Published};
use crate::health::{Evidence, Fingerprint, Standing};
use crate::heavy::heavy;
use crate::request::RequestError;

/// Why a lane is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The worker ended by itself, or did what no honest worker does: any request may be why.
    Crashed,
    /// It was ended because it made no progress: what it was given later is not why.
    Hung,
    /// It was ended for what no request can help.
    Intended,
}

impl Ending {
    /// Whether a request that was given to the worker then may be why it ended.
    fn blames(self, given: Given) -> bool {
        match (self, given) {
            (Self::Crashed, Given::BeforeProgress | Given::Since)
            | (Self::Hung, Given::BeforeProgress) => true,
            (Self::Hung, Given::Since) | (Self::Intended, Given::BeforeProgress | Given::Since) => {
                false
            }
        }
    }
}

/// Why a waiter gets no answer.
#[derive(Debug)]
pub(super) enum Lost {
    Ended(RequestError),
    Crashed(Box<Casualty>),
}

/// A request whose worker ended.
#[derive(Debug)]
pub struct Casualty {
    /// What its client hears if it is not tried again.
    pub error: RequestError,
    /// The slot that it had, with its inputs.
    pub lease: Lease,
    /// What stands for it, if it may be why and that counts.
    pub fingerprint: Option<Fingerprint>,
    /// What is held against it by now.
    pub standing: Standing,
}

/// What is held against each request that may be why.
type Findings = BTreeMap<Fingerprint, Standing>;

impl Lane {
    /// Ends the lane: what has been answered is taken in, all else is handed back or, if the end was
    /// intended, gets `why`. Nothing more is accepted. Repeating it does nothing.
    ///
    /// Gives the fingerprints of those that may be why. Reads all of their bytes for that, on this
    /// thread.
    pub fn close(self: &Arc<Self>, ending: Ending, why: &RequestError) -> Vec<Fingerprint> {
        let mut taken = self.shut();
        if ending == Ending::Intended {
            for Taken { payload: Published { reply, filled, .. }, .. } in taken {
                drop(Lease::again(Arc::clone(self), filled));
                // The waiter may have gone; then nobody has to be told.
                let _nobody = reply.send(Err(Lost::Ended(why.clone())));
            }
            return Vec::new();
        }
        let prints = self.fingerprints(ending, &mut taken);
        let findings = self.blame(prints.iter().flatten().copied());
        for (Taken { payload, .. }, fingerprint) in taken.into_iter().zip(prints) {
            let Published { reply, filled, .. } = payload;
            let standing = fingerprint.and_then(|print| findings.get(&print).copied());
            let casualty = Casualty {
                error: why.clone(),
                lease: Lease::again(Arc::clone(self), filled),
                fingerprint,
                standing: standing.unwrap_or(Standing::Clear),
            };
            // If the waiter has gone, this gives back the slot.
            let _nobody = reply.send(Err(Lost::Crashed(Box::new(casualty))));
        }
        findings.into_keys().collect()
    }

    /// Of each request that may be why the worker ended, in the order of `taken`.
    fn fingerprints(
        &self,
        ending: Ending,
        taken: &mut [Taken<Published>],
    ) -> Vec<Option<Fingerprint>> {
        if !self.watchlist.is_kept() {
            return vec![None; taken.len()];
        }
        let blamed = taken.iter().filter(|taken| ending.blames(taken.given));
        let bytes = blamed.map(|taken| taken.payload.filled.len()).sum();
        let print = |Taken { payload, given }: &mut Taken<Published>| {
            let Published { filled, wanted, .. } = payload;
            ending.blames(*given).then(|| filled.fingerprint(&self.watchlist, *wanted))
        };
        heavy(bytes, || taken.iter_mut().map(print).collect())
    }

    fn blame(&self, requests: impl Iterator<Item = Fingerprint>) -> Findings {
        // The same request in several slots is one reason.
        let mut findings: Findings = requests.map(|request| (request, Standing::Clear)).collect();
        let evidence = if findings.len() == 1 { Evidence::Alone } else { Evidence::AmongOthers };
        for (&request, standing) in &mut findings {
            *standing = self.watchlist.crashed(request, evidence, self.worker);
        }
        findings
    }
}

impl From<Lost> for RunError {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Ended(error) => Self::Ended(error),
            Lost::Crashed(casualty) => Self::Crashed(casualty),
        }
    }
}
