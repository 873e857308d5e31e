//! Keeps a service manager told: that the server has started, what it is doing, and that it is well.

use std::sync::Arc;

use tokio::time::{Duration, Instant, MissedTickBehavior, interval, interval_at};

use crate::frontend::http::Turnover;
use crate::route::Routes;
use crate::system::{Notifier, Pulse, Seen, Standing, Watchdog};

/// From one look at what no change announces to the next, as the number of requests.
const LOOK: Duration = Duration::from_secs(1);
/// Where nobody watches.
const NEVER: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug)]
pub(super) struct ServiceManager {
    notifier: Notifier,
    watchdog: Option<Watchdog>,
    standing: Standing,
    routes: Routes,
    turnover: Arc<Turnover>,
    began: Instant,
}

enum Event {
    Look,
    Beat,
}

impl ServiceManager {
    /// `patience` is how long the manager may be kept waiting for required models.
    pub(super) fn new(patience: Option<Duration>, routes: Routes, turnover: Arc<Turnover>) -> Self {
        Self {
            notifier: Notifier::from_environment(),
            watchdog: Watchdog::from_environment(),
            standing: Standing::new(patience),
            routes,
            turnover,
            began: Instant::now(),
        }
    }

    pub(super) fn notifier(&self) -> Notifier {
        self.notifier.clone()
    }

    /// Tells what changes, when it changes, and feeds the watchdog as long as all of these loops turn.
    pub(super) async fn keep_told(mut self, pulses: Vec<Pulse>) {
        if !self.notifier.is_heard() {
            return;
        }
        let mut changes = self.routes.changes();
        let mut looks = interval(LOOK);
        let between = self.watchdog.map_or(NEVER, Watchdog::interval);
        let mut beats = interval_at(Instant::now() + between, between);
        // After a pause of the whole machine one sign of life is enough.
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                _ = looks.tick() => Event::Look,
                Ok(()) = changes.changed() => Event::Look,
                _ = beats.tick() => Event::Beat,
            };
            match (event, self.watchdog) {
                (Event::Look, _) => self.look().await,
                (Event::Beat, Some(watchdog)) => self.beat(watchdog, &pulses).await,
                (Event::Beat, None) => {}
            }
        }
    }

    async fn look(&mut self) {
        let late = self.standing.is_starting();
        let seen = self.seen();
        let Some(text) = self.standing.next(&seen) else { return };
        if late && !self.standing.is_starting() && !seen.ready && !seen.draining {
            let waits_for = seen.waits_for.join(", ");
            tracing::warn!(
                waits_for,
                "repository.required_timeout has passed; the service manager is told that the server \
                 has started"
            );
        }
        self.notifier.tell(&text).await;
    }

    /// While the server drains its loops have other things to do, and the manager a limit for it.
    async fn beat(&self, watchdog: Watchdog, pulses: &[Pulse]) {
        if self.routes.draining() || watchdog.all_turn(pulses).await {
            self.notifier.tell("WATCHDOG=1").await;
        }
    }

    fn seen(&self) -> Seen {
        let (serving, models) = self.routes.serving();
        let waits_for = self.routes.waits_for().iter().map(ToString::to_string).collect();
        Seen {
            started: self.routes.started(),
            ready: self.routes.server_ready(),
            draining: self.routes.draining(),
            serving,
            models,
            waits_for,
            requests: self.turnover.tally().in_progress(),
            since: self.began.elapsed(),
        }
    }
}
