//! Whether a loop still turns: it is asked, and answers where it waits for its next event.
//!
//! A watchdog that is fed by a thread of its own proves that this thread lives. Here a question goes
//! through the loop itself, with whatever it is doing in front of it.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Feels whether one loop turns.
#[derive(Debug)]
pub struct Pulse {
    what: &'static str,
    questions: mpsc::Sender<oneshot::Sender<()>>,
}

/// The end of it that the loop has.
#[derive(Debug)]
pub struct Answers(mpsc::Receiver<oneshot::Sender<()>>);

/// `what` is the loop, for a log.
#[must_use]
pub fn pulse(what: &'static str) -> (Pulse, Answers) {
    // One is enough: who asks waits for the answer, and one that was never taken says it all.
    let (questions, asked) = mpsc::channel(1);
    (Pulse { what, questions }, Answers(asked))
}

impl Pulse {
    #[must_use]
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// Whether the loop has answered within `limit`.
    pub async fn beats(&self, limit: Duration) -> bool {
        let (answer, answered) = oneshot::channel();
        match self.questions.try_send(answer) {
            Ok(()) => matches!(timeout(limit, answered).await, Ok(Ok(()))),
            Err(_) => false,
        }
    }
}

impl Answers {
    /// Waits for a question and answers it; for ever if nobody asks any more. For a branch of the
    /// loop's own `select!`: nothing is lost if it is dropped.
    pub async fn answer(&mut self) {
        match self.0.recv().await {
            // Whoever asked may have lost patience.
            Some(question) => drop(question.send(())),
            None => std::future::pending().await,
        }
    }

    /// For a step of a loop that waits for something of its own, with a limit or on purpose.
    pub async fn meanwhile<T>(&mut self, step: impl Future<Output = T>) -> T {
        let mut step = std::pin::pin!(step);
        loop {
            tokio::select! {
                outcome = &mut step => return outcome,
                () = self.answer() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(30);

    #[tokio::test]
    async fn a_loop_that_turns_answers_and_one_that_is_stuck_does_not() {
        let (pulse, mut answers) = pulse("a loop");
        let (done, step) = oneshot::channel();
        let turning = tokio::spawn(async move {
            answers.answer().await;
            assert_eq!(answers.meanwhile(step).await, Ok(7));
            answers
        });
        for _ in 0..3 {
            assert!(pulse.beats(LIMIT).await);
        }
        done.send(7).unwrap();
        let mut stuck = turning.await.unwrap();
        assert!(!pulse.beats(SHORT).await, "nobody is there to answer");
        assert!(!pulse.beats(LIMIT).await, "nor was the last question taken");
        stuck.answer().await;
        assert_eq!(pulse.what(), "a loop");
        drop(stuck);
        assert!(!pulse.beats(LIMIT).await);
    }
}
