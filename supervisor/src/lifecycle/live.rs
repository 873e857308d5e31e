//! What of an instance's settings changes while its worker runs.

use std::time::Duration;

use super::{Backoff, Policy, RestartPolicy};
use crate::config::ModelSettings;

/// For the enclosure and for a zygote that starts or hangs, before a handshake can begin. Each of
/// these has limits of its own; this one is for what is not thought of.
const LAUNCH_LIMIT: Duration = Duration::from_secs(20);
/// How long a killed process may take to go before it is killed again.
const KILL_REPEAT: Duration = Duration::from_secs(1);

/// Holds for what comes next: the next wait, the next judgement, the next end of a worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    pub policy: Policy,
    pub handshake_timeout: Duration,
    /// Longest time that one inference may take before its worker counts as hung.
    pub infer_timeout: Duration,
    /// How long nobody must have used the model for its worker to end; `None`: for ever.
    pub idle_timeout: Option<Duration>,
}

impl Live {
    pub(super) fn of(settings: &ModelSettings) -> Self {
        let worker = &settings.worker;
        Self {
            policy: policy(settings),
            handshake_timeout: worker.handshake_timeout,
            infer_timeout: worker.infer_timeout,
            idle_timeout: worker.idle_timeout,
        }
    }
}

fn policy(settings: &ModelSettings) -> Policy {
    let (worker, restart) = (&settings.worker, &settings.restart);
    Policy {
        greet_timeout: worker.handshake_timeout.saturating_add(LAUNCH_LIMIT),
        load_timeout: worker.load_timeout,
        drain_timeout: worker.drain_timeout,
        stop_grace: worker.stop_timeout,
        kill_repeat: KILL_REPEAT,
        restart: RestartPolicy {
            max_restarts: restart.max_restarts,
            window: restart.window,
            backoff: Backoff {
                initial: restart.backoff.initial,
                factor: restart.backoff.factor,
                max: restart.backoff.max,
                jitter: restart.backoff.jitter,
                reset_after: restart.reset_after,
            },
            no_retry_on: restart.no_retry_on.clone(),
        },
        on_oom: restart.on_oom,
    }
}
