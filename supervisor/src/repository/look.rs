//! Reading repositories from a task: on a thread of its own, and so long and no longer.

use std::time::Duration;

use shared::id::ModelName;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::error::ScanError;
use super::folder::ModelFolder;
use super::scan::{Scan, Scanner};

/// How long a disk may take. One that takes longer, as a network's whose server has gone, keeps the
/// thread and nobody else.
const DISK_PATIENCE: Duration = Duration::from_secs(30);

/// Reads at a time. One that hangs keeps its place, so that not all threads for such work come to hang.
const READS: usize = 32;
static PLACES: Semaphore = Semaphore::const_new(READS);

/// What was to be read has not been, and may be one day.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRead {
    #[error("the disk has not answered for {} s", DISK_PATIENCE.as_secs())]
    Silent,
    #[error("reading it has failed: {0}")]
    Failed(String),
}

/// Runs what reads files.
pub async fn on_disk<T: Send + 'static>(
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NotRead> {
    within(DISK_PATIENCE, read).await
}

async fn within<T: Send + 'static>(
    patience: Duration,
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NotRead> {
    let reading = async {
        let place = PLACES.acquire().await;
        let read = move || {
            let _place = place;
            read()
        };
        spawn_blocking(read).await
    };
    match timeout(patience, reading).await {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(error)) => Err(NotRead::Failed(error.to_string())),
        Err(_late) => Err(NotRead::Silent),
    }
}

impl Scanner {
    /// [`Scanner::scan`], for a task.
    pub async fn look(&self) -> Result<Scan, NotRead> {
        let scanner = self.clone();
        on_disk(move || scanner.scan()).await
    }

    /// [`Scanner::scan_one`], for a task.
    pub async fn look_at(&self, name: &ModelName) -> Result<ModelFolder, ScanError> {
        let (scanner, name) = (self.clone(), name.clone());
        on_disk(move || scanner.scan_one(&name)).await?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_disk_that_does_not_answer_is_not_waited_for() {
        let (answer, answered) = mpsc::channel::<()>();
        let read = within(Duration::ZERO, move || answered.recv()).await;
        assert_eq!(read.unwrap_err(), NotRead::Silent);
        drop(answer);
        assert_eq!(on_disk(|| 7).await, Ok(7));
    }
}
