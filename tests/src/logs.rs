//! The server's log, read as it is written.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::wait;

/// What the server has said so far; a cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Logs {
    lines: Arc<Mutex<Vec<String>>>,
}

impl Logs {
    /// Reads `from` to its end on a thread of its own.
    pub fn collect(from: impl Read + Send + 'static) -> Self {
        let logs = Self::default();
        let lines = Arc::clone(&logs.lines);
        std::thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        logs
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The lines that are events, which is all of them once logging has begun.
    pub fn events(&self) -> Vec<Value> {
        self.lines().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until there are so many events with this message about this model. An answer over
    /// HTTP may be there before the line that tells of what led to it.
    pub fn wait_for_number(&self, count: usize, model: &str, message: &str) -> Vec<Value> {
        wait::until(&format!("{count} times {message:?}"), || {
            Some(self.about(model, message)).filter(|events| events.len() >= count)
        })
    }

    /// The events with this message about this model, so far.
    pub fn about(&self, model: &str, message: &str) -> Vec<Value> {
        let events = self.events().into_iter();
        events.filter(|event| event["model"] == model && event["message"] == message).collect()
    }

    /// Waits for an event that `wanted` accepts.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait::until(what, || self.events().into_iter().find(&wanted))
    }
}
