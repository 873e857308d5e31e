//! The status as a stream of events, one picture for all who watch.
//!
//! A picture is made when something has changed, at most twice a second, and every two seconds in any case;
//! none is made while nobody watches. Whoever is slow gets the newest and misses those in between; whoever
//! takes nothing at all is idle in the eyes of the listener, and goes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::{Body, Frame};
use proto::admin::status::Status;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until};

use crate::heavy::heavy;
use crate::overview::Overview;

/// Most who may watch at a time.
const SEATS: usize = 16;
const LEAST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long a browser waits before it comes back; it says so of itself from then on.
const HELLO: Bytes = Bytes::from_static(b"retry: 1000\n\n");

/// Where those who watch find what there is to see.
#[derive(Debug)]
pub(super) struct Feed {
    pictures: watch::Sender<Bytes>,
    seats: Arc<Semaphore>,
    came: Arc<Notify>,
}

impl Feed {
    /// Starts the task that makes pictures; it ends with the feed.
    pub(super) fn start(overview: Overview) -> Self {
        let feed = Self {
            pictures: watch::Sender::default(),
            seats: Arc::new(Semaphore::new(SEATS)),
            came: Arc::default(),
        };
        let painter = Painter {
            overview,
            pictures: feed.pictures.clone(),
            seats: Arc::downgrade(&feed.seats),
            came: Arc::clone(&feed.came),
        };
        tokio::spawn(painter.run());
        feed
    }

    /// `None` if all seats are taken.
    pub(super) fn watch(
        &self,
    ) -> Option<impl Body<Data = Bytes, Error = Infallible> + Send + use<>> {
        let seat = Arc::clone(&self.seats).try_acquire_owned().ok()?;
        let viewer = Viewer { pictures: self.pictures.subscribe(), greeted: false, _seat: seat };
        self.came.notify_one();
        Some(StreamBody::new(Box::pin(stream::unfold(viewer, Viewer::next))))
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // The painter waits for somebody to come, and finds that nobody can.
        self.seats.close();
        self.came.notify_one();
    }
}

struct Viewer {
    pictures: watch::Receiver<Bytes>,
    greeted: bool,
    _seat: OwnedSemaphorePermit,
}

impl Viewer {
    async fn next(mut self) -> Option<(Result<Frame<Bytes>, Infallible>, Self)> {
        if !std::mem::replace(&mut self.greeted, true) {
            return Some((Ok(Frame::data(HELLO)), self));
        }
        self.pictures.changed().await.ok()?;
        let picture = self.pictures.borrow_and_update().clone();
        Some((Ok(Frame::data(picture)), self))
    }
}

/// Makes the pictures.
struct Painter {
    overview: Overview,
    pictures: watch::Sender<Bytes>,
    seats: std::sync::Weak<Semaphore>,
    came: Arc<Notify>,
}

impl Painter {
    async fn run(self) {
        let mut changes = self.overview.changes();
        while self.seats.strong_count() > 0 {
            if self.pictures.receiver_count() == 0 {
                self.came.notified().await;
                continue;
            }
            let last = Instant::now();
            changes.mark_unchanged();
            let size = self.pictures.borrow().len();
            let picture = heavy(size, || picture(self.overview.status()));
            self.pictures.send_replace(picture);
            sleep_until(last + LEAST_PAUSE).await;
            tokio::select! {
                () = sleep_until(last + LONGEST_PAUSE) => {}
                () = self.came.notified() => {}
                // The board is there for as long as we are.
                _changed = changes.changed() => {}
            }
        }
    }
}

fn picture(status: Status) -> Bytes {
    let json = serde_json::to_string(&for_anybody(status))
        .expect("strings and numbers, to memory: there is nothing that could fail");
    Bytes::from(format!("data: {json}\n\n"))
}

/// Without what may tell of requests: whoever reaches the port sees the page. Of the confinement, what is
/// missing is left.
fn for_anybody(mut status: Status) -> Status {
    let versions = status.models.iter_mut().flat_map(|model| &mut model.versions);
    for instance in versions.flat_map(|version| &mut version.instances) {
        if let Some(exit) = &mut instance.last_exit {
            exit.lines.clear();
            exit.fingerprints.clear();
        }
        if let Some(worker) = &mut instance.worker {
            worker.confinement.retain(|measure| !measure.holds);
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use proto::admin::status::{Exit, Instance, Model, Version};

    use super::*;

    #[test]
    fn what_workers_wrote_is_not_shown_to_everybody() {
        let exit = Exit {
            at: 1,
            generation: 1,
            kind: "hang".into(),
            summary: "hang".into(),
            during: "ready".into(),
            alive_ms: 1,
            healthy_ms: 1,
            in_flight: 1,
            fingerprints: vec!["f00".into()],
            lines: vec!["a secret\n\ndata: {}".into()],
        };
        let instance = Instance {
            index: 0,
            state: "ready".into(),
            reason: "two\nlines".into(),
            worker: None,
            loaded: None,
            exits: [("hang".to_owned(), 1)].into(),
            last_exit: Some(exit),
        };
        let version = Version {
            version: 1,
            state: "READY".into(),
            reason: String::new(),
            platform: String::new(),
            instances: vec![instance],
            traffic: None,
        };
        let model = Model {
            name: "m".into(),
            enabled: true,
            problem: String::new(),
            versions: vec![version],
        };
        let picture = picture(Status { models: vec![model], ..Status::default() });
        let text = std::str::from_utf8(&picture).unwrap();
        assert!(text.contains("\"hang\"") && !text.contains("secret") && !text.contains("f00"));
        assert_eq!(text.trim_end().lines().count(), 1, "one event");
    }
}
