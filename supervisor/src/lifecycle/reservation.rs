//! What an instance has asked for and been granted.

use shared::text::chain;
use tokio::task::JoinHandle;

use super::Ticket;
use crate::quota::{DeviceAsk, Grant, Outlook, Place, Quotas, Refused};

/// Dropped, it takes back what was asked, and gives back what was granted.
#[derive(Debug, Default)]
pub(super) enum Reservation {
    #[default]
    None,
    Asked(Asking),
    Granted(Grant),
}

/// A question to the accounts that may have to wait for what others give back.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) ticket: Ticket,
    /// A grant that comes too late is dropped with it.
    task: JoinHandle<Result<Grant, Refused>>,
}

impl Asking {
    pub(super) fn start(ticket: Ticket, quotas: Quotas, arena: u64, ask: DeviceAsk) -> Self {
        let task = tokio::spawn(async move { quotas.reserve_on(arena, &ask).await });
        Self { ticket, task }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Reservation {
    /// Waits for the answer; for ever if nothing is asked.
    pub(super) async fn answer(&mut self) -> Result<Grant, Refused> {
        match self {
            Self::Asked(asking) => (&mut asking.task).await.unwrap_or_else(|error| {
                let (reason, outlook) = (chain(&error), Outlook::Bleak);
                Err(Refused { reason, outlook })
            }),
            Self::None | Self::Granted(_) => std::future::pending().await,
        }
    }

    pub(super) fn place(&self) -> Option<&Place> {
        match self {
            Self::Granted(grant) => grant.place(),
            Self::None | Self::Asked(_) => None,
        }
    }
}
