//! Locks by name: who wants the same thing waits, others do not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

type Named = tokio::sync::Mutex<()>;

#[derive(Debug, Default)]
pub(crate) struct KeyedLocks {
    locks: Mutex<HashMap<String, Weak<Named>>>,
}

impl KeyedLocks {
    /// Waits until nobody else holds `key`. Held until the guard is dropped.
    pub(crate) async fn lock(&self, key: &str) -> OwnedMutexGuard<()> {
        let lock = self.named(key);
        lock.lock_owned().await
    }

    /// The same if nobody holds it now.
    pub(crate) fn try_lock(&self, key: &str) -> Option<OwnedMutexGuard<()>> {
        self.named(key).try_lock_owned().ok()
    }

    fn named(&self, key: &str) -> Arc<Named> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(key).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(Named::default());
        locks.insert(key.to_owned(), Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn one_name_excludes_itself_only() {
        let locks = KeyedLocks::default();
        let held = locks.lock("a").await;
        drop(locks.lock("b").await);
        let wait = Duration::from_millis(20);
        assert!(tokio::time::timeout(wait, locks.lock("a")).await.is_err());
        assert!(locks.try_lock("a").is_none());
        drop(held);
        assert!(locks.try_lock("a").is_some());
        drop(locks.lock("a").await);
        drop(locks.lock("c").await);
        assert_eq!(
            locks.locks.lock().unwrap().len(),
            1,
            "names out of use are forgotten"
        );
    }
}
