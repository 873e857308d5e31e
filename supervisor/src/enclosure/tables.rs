//! What processes have open, as `/proc` shows it to whoever may look.

use std::fs;
use std::path::Path;

/// Descriptors of all processes that are looked at.
const MOST_DESCRIPTORS: usize = 1 << 16;
/// Threads of one process.
const MOST_THREADS: usize = 10_000;

/// Looks into tables of descriptors, and counts what it has looked at.
#[derive(Debug, Default)]
pub(super) struct Tables {
    looked: usize,
}

/// There are more than anybody looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Endless;

impl Tables {
    /// Shows each descriptor of a process, as a path that leads to what it is.
    pub(super) fn look(
        &mut self,
        process: i32,
        mut show: impl FnMut(&Path),
    ) -> Result<(), Endless> {
        // Threads share one table. That of a first thread that has ended is empty.
        if self.table(Path::new(&format!("/proc/{process}/fd")), &mut show)? > 0 {
            return Ok(());
        }
        let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        for thread in threads.take(MOST_THREADS) {
            if self.table(&thread.path().join("fd"), &mut show)? > 0 {
                return Ok(());
            }
        }
        Ok(())
    }

    /// How many descriptors a table has, none if it may not be read.
    fn table(&mut self, table: &Path, show: &mut impl FnMut(&Path)) -> Result<usize, Endless> {
        let Ok(descriptors) = fs::read_dir(table) else { return Ok(0) };
        let mut count = 0;
        for descriptor in descriptors.flatten() {
            count += 1;
            self.looked += 1;
            if self.looked > MOST_DESCRIPTORS {
                return Err(Endless);
            }
            show(&descriptor.path());
        }
        Ok(count)
    }
}
