//! The part of a driver's work that is about how its worker does: looking, judging, and following the
//! verdict.

use std::time::Duration;

use shared::clock::MonotonicNanos;

use super::Driver;
use crate::health::{Observation, Verdict};
use crate::lifecycle::usage::Usage;
use crate::lifecycle::worker::Worker;
use crate::lifecycle::{Event, State, events_log};
use crate::schedule::Rest;

/// How often a worker's progress is judged.
pub(super) const JUDGE_EVERY: Duration = Duration::from_millis(250);

impl Driver {
    pub(super) async fn judge(&mut self) {
        let Some(worker) = &self.worker else { return };
        let (activity, usage) = (worker.lane.activity(), *worker.usage.borrow());
        let watched = self.vigil.look(activity.stalled_since, MonotonicNanos::now());
        let seen = Observation {
            overdue: watched.and_then(|watched| watched.checked_sub(self.spec.infer_timeout)),
            violation: activity.violation.map(|violation| violation.to_string()),
            completions: activity.completions,
            doorbells: activity.doorbells,
            facts: activity.facts,
            memory: usage.used(),
            threads: usage.threads,
            scratch: usage.scratch,
        };
        self.follow(self.spec.health.judge(&seen)).await;
        self.rest_if_idle().await;
    }

    /// The first look at what a worker has since it was ready goes to the log.
    fn tell_memory(&mut self) {
        let (Some(worker), Some(before)) = (&self.worker, self.untold_memory) else { return };
        let Usage { private, private_looks, .. } = *worker.usage.borrow();
        if let Some(private) = private.filter(|_| private_looks != before) {
            events_log::memory(&self.spec.id, worker.generation(), private);
            self.untold_memory = None;
        }
    }

    /// Between two judgements: what a worker takes of the machine is gone sooner than anything else.
    pub(super) async fn judge_usage(&mut self) {
        self.tell_memory();
        let Some(worker) = &self.worker else { return };
        let usage = *worker.usage.borrow();
        let Usage { threads, scratch, .. } = usage;
        let seen = Observation { memory: usage.used(), threads, scratch, ..Observation::default() };
        self.follow(self.spec.health.judge(&seen)).await;
    }

    async fn follow(&mut self, verdict: Verdict) {
        let Some(generation) = self.worker.as_deref().map(Worker::generation) else { return };
        match verdict {
            Verdict::Healthy => {}
            Verdict::Unhealthy(why) => self.handle(Event::Unhealthy { generation, why }).await,
        }
    }

    async fn rest_if_idle(&mut self) {
        let (Some(worker), Some(limit)) = (&self.worker, self.spec.idle_timeout) else { return };
        let ready = matches!(self.machine.state(), State::Ready { .. });
        if ready && worker.rest(&self.queue, limit) == Rest::Taken {
            let generation = worker.generation();
            self.handle(Event::Idle { generation }).await;
        }
    }
}
