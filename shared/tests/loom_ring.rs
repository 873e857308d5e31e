//! Every interleaving of a publisher and a sleeper, explored by loom: no published item is left
//! behind a sleeper that nobody wakes; loom reports that as a deadlock. Run with
//! `RUSTFLAGS="--cfg loom"` (scripts/test does).
#![cfg(loom)]

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use shared::ring::doorbell::{Sleeper, Waker};

/// What a ring shares, with a futex made of a lock: it compares and sleeps in one step, like the
/// kernel's.
#[derive(Default)]
struct World {
    head: AtomicU32,
    word: AtomicU32,
    bell: AtomicU32,
    kernel: Mutex<()>,
    queue: Condvar,
}

impl World {
    fn futex_wait(&self, expected: u32) {
        let guard = self.kernel.lock().unwrap();
        if self.bell.load(Ordering::Acquire) == expected {
            drop(self.queue.wait(guard).unwrap());
        }
    }

    /// As `RequestProducer::ring` does it.
    fn ring(&self) {
        let rung = self.bell.load(Ordering::Relaxed);
        self.bell.store(rung + 1, Ordering::Release);
        let _kernel = self.kernel.lock().unwrap();
        self.queue.notify_one();
    }

    fn publish(&self, waker: &mut Waker, item: u32) {
        self.head.store(item, Ordering::Release);
        if waker.must_wake(&self.word) {
            self.ring();
        }
    }
}

/// As `RequestConsumer::sleep` does it, until `last` has been seen.
fn consume(world: &World, last: u32) {
    let mut sleeper = Sleeper::default();
    let mut tail = 0;
    while tail < last {
        let head = world.head.load(Ordering::Acquire);
        if head != tail {
            tail = head;
            continue;
        }
        let rung = world.bell.load(Ordering::Relaxed);
        sleeper.announce(&world.word);
        if world.head.load(Ordering::Acquire) == tail {
            world.futex_wait(rung);
        }
        sleeper.awake(&world.word);
    }
}

#[test]
fn no_wake_is_lost() {
    loom::model(|| {
        let world = Arc::new(World::default());
        let publisher = thread::spawn({
            let world = Arc::clone(&world);
            move || {
                let mut waker = Waker::default();
                world.publish(&mut waker, 1);
                world.publish(&mut waker, 2);
            }
        });
        consume(&world, 2);
        publisher.join().unwrap();
    });
}

/// The supervisor's side: the sleeper is under a lock, any thread announces for all when it parks
/// and says `awake` when it goes on, and the bell is a socket, which keeps its packets.
#[test]
fn a_bell_is_kept_for_whoever_parks() {
    loom::model(|| {
        let world = Arc::new(World::default());
        let worker = thread::spawn({
            let world = Arc::clone(&world);
            move || {
                let mut waker = Waker::default();
                world.head.store(1, Ordering::Release);
                if waker.must_wake(&world.word) {
                    world.bell.store(1, Ordering::Release);
                }
            }
        });
        let sleeper = Mutex::new(Sleeper::default());
        let parked_with = |head| {
            let mut sleeper = sleeper.lock().unwrap();
            sleeper.announce(&world.word);
            world.head.load(Ordering::Acquire) == head
        };
        // First park: either the completion is seen, or the bell will ring or has rung.
        let seen = parked_with(1);
        worker.join().unwrap();
        assert!(seen || world.bell.load(Ordering::Acquire) == 1, "asleep and not rung for");
    });
}
