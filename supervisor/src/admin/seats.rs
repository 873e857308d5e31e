//! How many operators are heard at a time. Of those who say nothing, the one that has been silent for
//! longest makes room for a new one; then the one that has looked on for longest. Only if all wait for
//! answers is a new one turned away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// A handle.
#[derive(Clone, Debug)]
pub(super) struct Seats(Arc<Mutex<Table>>);

#[derive(Debug)]
struct Table {
    most: usize,
    /// Numbers seats, and orders their silences.
    next: u64,
    taken: BTreeMap<u64, Taken>,
}

#[derive(Debug)]
struct Taken {
    by: By,
    /// Dropped when somebody else gets the seat.
    _stays: oneshot::Sender<()>,
}

/// What its operator does, in the order in which seats are taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    /// Says nothing, since then.
    Silent(u64),
    /// Looks on, or has closed its half and waits for an answer.
    LookingOn(u64),
    /// Waits for an answer, and keeps its seat.
    Served,
}

/// Given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    number: u64,
    pub(super) lost: oneshot::Receiver<()>,
}

/// The seat went to somebody else.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lost;

impl Seats {
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(Table { most, next: 0, taken: BTreeMap::new() })))
    }

    /// `None` if everybody is being served.
    pub(super) fn take(&self) -> Option<Seat> {
        let mut table = self.lock();
        if table.taken.len() >= table.most {
            let seats = table.taken.iter().map(|(number, taken)| (taken.by, *number));
            let (_, longest) = seats.filter(|(by, _)| *by != By::Served).min()?;
            table.taken.remove(&longest);
        }
        let number = table.number();
        let (stays, lost) = oneshot::channel();
        table.taken.insert(number, Taken { by: By::Silent(number), _stays: stays });
        Some(Seat { seats: self.clone(), number, lost })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // The table is whole after each call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Seat {
    /// It is being served from now on, and keeps its seat.
    pub(super) fn serve(&self) -> Result<(), Lost> {
        self.note(|_| By::Served)
    }

    /// It looks on from now on.
    pub(super) fn look_on(&self) -> Result<(), Lost> {
        self.note(By::LookingOn)
    }

    /// It is waited for.
    pub(super) fn wait(&self) -> Result<(), Lost> {
        self.note(By::Silent)
    }

    fn note(&self, by: impl FnOnce(u64) -> By) -> Result<(), Lost> {
        let mut table = self.seats.lock();
        let now = table.number();
        let taken = table.taken.get_mut(&self.number).ok_or(Lost)?;
        taken.by = by(now);
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_been_silent_for_longest_makes_room() {
        let seats = Seats::new(2);
        let (one, two) = (seats.take().unwrap(), seats.take().unwrap());
        one.serve().unwrap();
        one.wait().unwrap();
        let three = seats.take().unwrap();
        assert_eq!((two.serve(), one.serve()), (Err(Lost), Ok(())));
        let mut two = two;
        assert!(
            two.lost.try_recv().is_err_and(|gone| gone == oneshot::error::TryRecvError::Closed)
        );
        three.serve().unwrap();
        assert!(seats.take().is_none(), "both are being served");
        // What is dropped late frees nobody else's.
        drop(two);
        assert!(seats.take().is_none());
        drop(one);
        assert!(seats.take().is_some());
    }

    #[test]
    fn who_looks_on_makes_room_after_who_is_silent() {
        let seats = Seats::new(3);
        let [a, b, c] = [(); 3].map(|()| seats.take().unwrap());
        a.look_on().unwrap();
        b.look_on().unwrap();
        // The silent one first, then whoever has looked on for longest.
        let d = seats.take().unwrap();
        assert_eq!((c.serve(), d.serve()), (Err(Lost), Ok(())));
        let e = seats.take().unwrap();
        assert_eq!((a.wait(), b.look_on(), e.serve()), (Err(Lost), Ok(()), Ok(())));
    }
}
