//! Operations keyed by what they make or change.
//!
//! An operation runs detached from the request that began it. A request for the
//! same key joins the one that runs and gets its result: a client that timed out
//! and asks again never finds half an object, nor a "reserved" name.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio_util::task::TaskTracker;

use crate::error::Error;

type Outcome = Result<String, Error>;
type Running = Shared<BoxFuture<'static, Outcome>>;

#[derive(Debug, Default)]
pub(super) struct Operations {
    running: Arc<Mutex<HashMap<String, Running>>>,
    tasks: TaskTracker,
}

impl Operations {
    /// Starts `work` under `key`, or joins what runs under it.
    pub(super) async fn join<F>(&self, key: String, work: impl FnOnce() -> F) -> Outcome
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let operation = self.begin(key, work);
        operation.await
    }

    fn begin<F>(&self, key: String, work: impl FnOnce() -> F) -> Running
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(operation) = running.get(&key) {
            return operation.clone();
        }
        let work = work();
        let table = Arc::clone(&self.running);
        let name = key.clone();
        let task = self.tasks.spawn(async move {
            let outcome = work.await;
            table
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&name);
            outcome
        });
        let table = Arc::clone(&self.running);
        let name = key.clone();
        let operation = async move {
            task.await.unwrap_or_else(|panic| {
                table
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&name);
                Err(Error::Internal(format!(
                    "operation {name:?} crashed: {panic}"
                )))
            })
        }
        .boxed()
        .shared();
        running.insert(key, operation.clone());
        operation
    }

    /// Waits until all that runs has ended; nothing new should begin.
    pub(super) async fn drain(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::Operations;

    #[tokio::test]
    async fn the_same_key_runs_once_at_a_time_and_again_later() {
        let operations = Operations::default();
        let count = Arc::new(AtomicUsize::new(0));
        let work = || {
            let count = Arc::clone(&count);
            async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(count.fetch_add(1, Ordering::SeqCst).to_string())
            }
        };
        let (a, b) = tokio::join!(
            operations.join("k".into(), work),
            operations.join("k".into(), work)
        );
        assert_eq!((a.unwrap(), b.unwrap()), ("0".to_owned(), "0".to_owned()));
        assert_eq!(operations.join("k".into(), work).await.unwrap(), "1");
    }

    #[tokio::test]
    async fn a_dropped_request_does_not_end_the_operation() {
        let operations = Operations::default();
        let (tell, told) = tokio::sync::oneshot::channel();
        let request = operations.join("k".into(), || async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            tell.send(()).ok();
            Ok(String::new())
        });
        drop(tokio::time::timeout(Duration::from_millis(1), request).await);
        assert!(told.await.is_ok());
    }

    #[tokio::test]
    async fn a_crash_is_an_error_and_frees_the_key() {
        let operations = Operations::default();
        let crash = operations
            .join("k".into(), || async { panic!("as asked") })
            .await;
        assert!(crash.unwrap_err().to_string().contains("crashed"));
        assert_eq!(
            operations
                .join("k".into(), || async { Ok("x".into()) })
                .await
                .unwrap(),
            "x"
        );
    }
}
