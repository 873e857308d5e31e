//! How the control thread tells the pump to stop, or to give memory back.

use std::sync::Arc;

use shared::ring::consumer::{Alarm, RequestConsumer};
use shared::sync::{AtomicBool, Ordering};

/// Flags, and the means to wake the pump so that it looks at them.
#[derive(Clone, Debug)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    trim: Arc<AtomicBool>,
    alarm: Alarm,
}

impl Stop {
    pub fn of(requests: &RequestConsumer) -> Self {
        Self { flag: Arc::default(), trim: Arc::default(), alarm: requests.alarm() }
    }

    /// The pump sees it when it next finds nothing to do; ring [`Stop::alarm`] until it has.
    pub fn set(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    /// Between two requests, or now if there is none; a wake that is lost costs the pump's nap.
    pub fn ask_to_trim(&self) {
        self.trim.store(true, Ordering::Relaxed);
        self.alarm.ring();
    }

    /// Whether it was asked to since it was last asked here.
    pub fn takes_trim(&self) -> bool {
        // Looked at for each request: a write would cost more than a read.
        self.trim.load(Ordering::Relaxed) && self.trim.swap(false, Ordering::Relaxed)
    }

    pub fn alarm(&self) -> &Alarm {
        &self.alarm
    }
}
