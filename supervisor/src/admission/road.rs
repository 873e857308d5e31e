//! From a filled slot to an answer, over a second worker if the first one ends.
//!
//! A request that no worker has seen moves on as often as it must. One that was in flight when its
//! worker ended is tried once more, alone on a worker, so that it harms nobody if it is why; its
//! client may forbid that. What is suspect already runs alone from the start, and what has ended too
//! many workers is refused without one (`health::suspects`).

use std::sync::Arc;
use std::time::Duration;

use crate::health::{Conviction, Fingerprint, Standing, Watchlist};
use crate::lane::{Casualty, Completed, Lease, Order, Pending, RunError, Stash, Unpublished};
use crate::request::{Repeat, RequestError, What};
use crate::route::Route;
use crate::schedule::{Claim, Coming, Company};
use crate::telemetry::traces::{Mark, Trail};

#[derive(Debug)]
pub(super) struct Road<'a> {
    pub(super) route: &'a Arc<Route>,
    pub(super) order: Order,
    pub(super) repeat: Repeat,
    pub(super) trail: &'a Trail,
}

/// A filled slot, and in which company it may be published.
#[derive(Debug)]
struct Leg {
    lease: Lease,
    company: Company,
    /// Of a suspect, or one that was in flight when a worker ended.
    fingerprint: Option<Fingerprint>,
}

#[derive(Debug)]
enum Arrival {
    Answered(Completed),
    Crashed(Casualty),
}

impl Road<'_> {
    pub(super) async fn travel(&self, lease: Lease) -> Result<Completed, RequestError> {
        let first = self.first_leg(lease).await?;
        match self.go(first).await? {
            Arrival::Answered(completed) => Ok(completed),
            Arrival::Crashed(casualty) => self.go_again(casualty).await,
        }
    }

    async fn first_leg(&self, mut lease: Lease) -> Result<Leg, RequestError> {
        let watchlist = self.watchlist();
        let standing = match watchlist.is_empty() {
            true => None,
            false => {
                let fingerprint = lease.fingerprint(watchlist, self.order.wanted);
                Some((fingerprint, watchlist.standing(fingerprint)))
            }
        };
        match standing {
            None | Some((_, Standing::Clear)) => {
                Ok(Leg { lease, company: Company::Any, fingerprint: None })
            }
            Some((fingerprint, Standing::Suspect)) => {
                // It gives its slot back first: it could not be alone beside itself.
                self.leg_alone(lease.stash(), Coming::New, Some(fingerprint)).await
            }
            Some((_, Standing::Convicted(conviction))) => Err(self.poison(conviction)),
        }
    }

    async fn go_again(&self, casualty: Casualty) -> Result<Completed, RequestError> {
        let Casualty { error, lease, fingerprint, standing } = casualty;
        match (standing, self.repeat) {
            (Standing::Convicted(conviction), Repeat::Allowed | Repeat::Forbidden) => {
                return Err(self.poison(conviction));
            }
            (Standing::Clear | Standing::Suspect, Repeat::Forbidden) => return Err(error),
            (Standing::Clear | Standing::Suspect, Repeat::Allowed) => {}
        }
        let second = async {
            let leg = self.leg_alone(lease.stash(), Coming::Back, fingerprint).await?;
            self.go(leg).await
        };
        match second.await {
            Ok(Arrival::Answered(completed)) => Ok(completed),
            Ok(Arrival::Crashed(Casualty { standing, error, .. })) => Err(match standing {
                Standing::Convicted(conviction) => self.poison(conviction),
                Standing::Clear | Standing::Suspect => error,
            }),
            Err(second) => Err(self.not_again(error, second)),
        }
    }

    /// What a client hears whose request was in flight once and did not get to a second worker: not
    /// that a repeat is safe.
    fn not_again(&self, first: RequestError, second: RequestError) -> RequestError {
        match second.what {
            What::QueueTimeout => self.too_late(),
            What::NotReady | What::QueueFull | What::ShuttingDown => {
                let message = format!("{first}; it was not tried again: {second}");
                RequestError::new(What::WorkerDied, message)
            }
            What::UnknownModel
            | What::UnknownVersion
            | What::NoVersion
            | What::Invalid
            | What::TooLarge
            | What::SlowBody
            | What::Unsupported
            | What::Deadline
            | What::WorkerDied
            | What::Poison
            | What::Model
            | What::OutOfMemory
            | What::Forbidden
            | What::Internal => second,
        }
    }

    /// A slot of a worker that has nothing else, unless it has turned out meanwhile that the request
    /// must not have one: others may have sent the same.
    async fn leg_alone(
        &self,
        stash: Stash,
        coming: Coming,
        fingerprint: Option<Fingerprint>,
    ) -> Result<Leg, RequestError> {
        let company = Company::None;
        let lease = self.move_to(stash, Claim { company, coming }, fingerprint).await?;
        Ok(Leg { lease, company, fingerprint })
    }

    async fn move_to(
        &self,
        stash: Stash,
        claim: Claim,
        fingerprint: Option<Fingerprint>,
    ) -> Result<Lease, RequestError> {
        let waits = self.route.stats().waits_again();
        let mut lease = self.route.queue().acquire(claim, self.order.deadline).await?;
        drop(waits);
        let standing = fingerprint.map(|fingerprint| self.watchlist().standing(fingerprint));
        if let Some(Standing::Convicted(conviction)) = standing {
            return Err(self.poison(conviction));
        }
        lease.restore(stash)?;
        Ok(lease)
    }

    /// Publishes and waits for what comes of it.
    async fn go(&self, leg: Leg) -> Result<Arrival, RequestError> {
        let fingerprint = leg.fingerprint;
        let pending = self.publish(leg).await?;
        match pending.answer(self.order.deadline).await {
            Ok(completed) => {
                self.trail.completed(completed.compute_time());
                if let Some(fingerprint) = fingerprint.filter(|_| completed.was_run()) {
                    self.watchlist().answered(fingerprint);
                }
                Ok(Arrival::Answered(completed))
            }
            Err(RunError::Deadline) => Err(self.too_late()),
            Err(RunError::Ended(error)) => Err(error),
            Err(RunError::Crashed(casualty)) => Ok(Arrival::Crashed(*casualty)),
        }
    }

    /// If the worker has ended before it was given the request, moves it to the next.
    async fn publish(&self, leg: Leg) -> Result<Pending, RequestError> {
        let Leg { mut lease, company, fingerprint } = leg;
        let claim = Claim { company, coming: Coming::Back };
        loop {
            let stash = match lease.publish(&self.order) {
                Ok(pending) => {
                    self.trail.mark(Mark::Published);
                    return Ok(pending);
                }
                Err(Unpublished { error, lease }) if error.what == What::NotReady => lease.stash(),
                Err(Unpublished { error, .. }) => return Err(error),
            };
            lease = self.move_to(stash, claim, fingerprint).await?;
        }
    }

    fn watchlist(&self) -> &Watchlist {
        self.route.queue().watchlist()
    }

    fn too_late(&self) -> RequestError {
        let model = self.route.model();
        let message = format!("model '{model}' did not answer within the deadline of the request");
        RequestError::new(What::Deadline, message)
    }

    fn poison(&self, conviction: Conviction) -> RequestError {
        let Conviction { crashes, left } = conviction;
        let workers = if crashes == 1 { "worker" } else { "workers" };
        // Whole seconds, and not a moment too early.
        let left = Duration::from_secs(left.as_secs() + u64::from(left.subsec_nanos() > 0));
        let message = format!(
            "this request has ended {crashes} {workers} of model '{}' and is refused; it will be \
             accepted again in {}",
            self.route.model(),
            humantime::format_duration(left)
        );
        RequestError::new(What::Poison, message)
    }
}
