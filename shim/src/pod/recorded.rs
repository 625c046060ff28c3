//! A record in memory, and its copy on disk.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Error;

/// The value in memory is the truth while the daemon lives; `save` writes the
/// newest one, so that writes that overtake each other cannot leave an old one.
#[derive(Debug)]
pub(super) struct Recorded<R> {
    value: Mutex<R>,
    saving: tokio::sync::Mutex<()>,
}

impl<R: Clone + Send + 'static> Recorded<R> {
    pub(super) fn new(value: R) -> Self {
        Self {
            value: Mutex::new(value),
            saving: tokio::sync::Mutex::new(()),
        }
    }

    pub(super) fn read<T>(&self, look: impl FnOnce(&R) -> T) -> T {
        look(&self.lock())
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut R) -> T) -> T {
        change(&mut self.lock())
    }

    pub(super) async fn save(
        &self,
        write: impl FnOnce(&R) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let _turn = self.saving.lock().await;
        let value = self.lock().clone();
        blocking(move || write(&value)).await
    }

    /// Held for a moment only, never over an await.
    fn lock(&self) -> MutexGuard<'_, R> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs what may wait for a disk or the kernel away from the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| Err(Error::Internal(format!("a step crashed: {panic}"))))
}
