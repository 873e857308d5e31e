//! Steady requests beside what a test does.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::{Client, Infer};
use crate::wait;

/// Between an answer and the next request of a thread: enough requests to notice what a fault next
/// door does, few enough to leave the processor to others.
const PACE: Duration = Duration::from_millis(2);

/// Threads that send requests to one model until this is dropped.
#[derive(Debug)]
pub struct Load {
    counted: Arc<Mutex<Counted>>,
    stop: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Clone, Debug, Default)]
pub struct Counted {
    pub answers: u64,
    /// Answers that were none, or not what was asked for.
    pub errors: Vec<String>,
    pub slowest: Duration,
}

impl Load {
    pub fn start(address: SocketAddr, model: &str, threads: usize) -> Self {
        let counted = Arc::new(Mutex::new(Counted::default()));
        let mut stops = Vec::new();
        let threads = (0..threads).map(|_| {
            let (counted, infer) = (Arc::clone(&counted), Infer::echo(model));
            let (stop, stopped) = channel();
            stops.push(stop);
            std::thread::spawn(move || run(address, &infer, &counted, &stopped))
        });
        let threads = threads.collect();
        // One sender for the owner, which keeps those of the threads.
        let (stop, stopped) = channel::<()>();
        std::thread::spawn(move || {
            let _dropped = stopped.recv();
            drop(stops);
        });
        Self { counted, stop: Some(stop), threads }
    }

    pub fn so_far(&self) -> Counted {
        lock(&self.counted).clone()
    }

    /// Waits until so many more requests were answered.
    pub fn wait_for_more(&self, answers: u64) {
        let goal = self.so_far().answers + answers;
        wait::until_true("answers under load", || self.so_far().answers >= goal);
    }

    /// Ends it; every request that was sent has been answered.
    pub fn finish(mut self) -> Counted {
        self.stop();
        self.so_far()
    }

    /// Ends it; no request may have failed, and there must have been some.
    #[track_caller]
    pub fn assert_no_errors(self) {
        let Counted { answers, errors, .. } = self.finish();
        assert!(errors.is_empty(), "{} of {answers} failed: {errors:?}", errors.len());
        assert!(answers > 0, "the load never got an answer");
    }

    fn stop(&mut self) {
        self.stop = None;
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(address: SocketAddr, infer: &Infer, counted: &Mutex<Counted>, stopped: &Receiver<()>) {
    let mut client = Client::new(address);
    while stopped.recv_timeout(PACE) == Err(RecvTimeoutError::Timeout) {
        let start = Instant::now();
        let answer = client.try_infer(infer);
        let took = start.elapsed();
        let error = match answer {
            Ok(response) if infer.is_echoed_by(&response) => None,
            Ok(response) => Some(format!("{} {}", response.status, response.text())),
            Err(error) => Some(error.to_string()),
        };
        let mut counted = lock(counted);
        counted.answers += 1;
        counted.errors.extend(error);
        counted.slowest = counted.slowest.max(took);
    }
}

fn lock(counted: &Mutex<Counted>) -> std::sync::MutexGuard<'_, Counted> {
    counted.lock().unwrap_or_else(PoisonError::into_inner)
}
