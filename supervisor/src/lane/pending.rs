//! A request that a worker has.

use std::sync::Arc;

use shared::id::RequestId;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::ending::{Casualty, Lost};
use super::reply::Completed;
use super::transport::Lane;
use crate::request::RequestError;

/// Waits for one answer. Dropping it abandons the request: the slot comes back with the answer.
#[derive(Debug)]
pub struct Pending {
    lane: Arc<Lane>,
    slot: u16,
    request: RequestId,
    /// `None` once the answer has been taken.
    answer: Option<oneshot::Receiver<Result<Completed, Lost>>>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum RunError {
    /// Nobody will wait any longer; the worker still has the request.
    Deadline,
    /// The worker was ended on purpose.
    Ended(RequestError),
    /// The worker ended, and the request may be why. It can be given to another.
    Crashed(Box<Casualty>),
}

impl Pending {
    pub(super) fn new(
        lane: Arc<Lane>,
        slot: u16,
        request: RequestId,
        answer: oneshot::Receiver<Result<Completed, Lost>>,
    ) -> Self {
        Self { lane, slot, request, answer: Some(answer) }
    }

    pub async fn answer(mut self, deadline: Instant) -> Result<Completed, RunError> {
        let Some(answer) = self.answer.as_mut() else { return Err(RunError::Deadline) };
        let answered = match timeout_at(deadline, &mut *answer).await {
            Ok(answered) => answered.ok(),
            // It may be there, and only this process late to take it in.
            Err(_) => {
                self.lane.drain();
                answer.try_recv().ok()
            }
        };
        match answered {
            Some(result) => {
                self.answer = None;
                result.map_err(|why| match Instant::now() >= deadline {
                    // A worker that is ended because it hangs is ended after the deadline. That is
                    // what the client hears, also if this task had no chance to run in between.
                    true => RunError::Deadline,
                    false => why.into(),
                })
            }
            // The lane drops a waiter only after it has answered it.
            None => Err(RunError::Deadline),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(mut answer) = self.answer.take() {
            self.lane.abandon(self.slot, self.request);
            // It may have been answered just before; then this gives the slot back.
            answer.close();
            drop(answer.try_recv());
        }
    }
}
