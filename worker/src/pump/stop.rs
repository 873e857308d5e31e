//! How the control thread tells the pump to stop.

use std::sync::Arc;

use shared::ring::consumer::{Alarm, RequestConsumer};
use shared::sync::{AtomicBool, Ordering};

/// A flag, and the means to wake the pump so that it looks at it.
#[derive(Clone, Debug)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    alarm: Alarm,
}

impl Stop {
    pub fn of(requests: &RequestConsumer) -> Self {
        Self { flag: Arc::default(), alarm: requests.alarm() }
    }

    /// The pump sees it when it next finds nothing to do; ring [`Stop::alarm`] until it has.
    pub fn set(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    pub fn alarm(&self) -> &Alarm {
        &self.alarm
    }
}
