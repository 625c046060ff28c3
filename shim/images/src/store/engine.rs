//! The store as an engine: async on the outside, plain blocking work inside.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use async_trait::async_trait;

use crate::engine::{Error, Image, ImageEngine, ImageId, LayerUsage, PullRequest, Rootfs, Usage};
use crate::reference::ImageQuery;
use crate::registry::{Registry, RegistryConfig};

use super::StoreConfig;
use super::index::Index;
use super::layout::Layout;
use super::lock::KeyedLocks;
use super::pinned::Pinned;

/// The embedded image engine. Clones are the same store.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: StoreConfig,
    pub(crate) layout: Layout,
    pub(super) registry: RwLock<Registry>,
    pub(super) pinned: Pinned,
    pub(super) index: Mutex<Index>,
    /// Held by who changes images, on disk and then in the index.
    pub(super) commits: Mutex<()>,
    pub(super) chains: KeyedLocks,
    pub(super) blobs: KeyedLocks,
    pub(super) keys: KeyedLocks,
    pub(super) _locks: Vec<OwnedFd>,
}

impl Inner {
    /// As configured now; a pull keeps to what it began with.
    pub(super) fn registry(&self) -> Registry {
        let slot = self.registry.read();
        slot.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Often enough for what is kept the shortest.
    fn tidy_interval(&self) -> Duration {
        let config = &self.config;
        let shortest = config.orphan_grace.min(config.partial_keep);
        (shortest / 2).clamp(Duration::from_secs(1), Duration::from_secs(60))
    }

    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn commits(&self) -> MutexGuard<'_, ()> {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs to its end whether or not anybody waits for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Error::Io {
            what: "work of the image store".into(),
            source: std::io::Error::other(error),
        }),
    }
}

impl Store {
    /// How registries are reached from now on; pulls that run go on as they began.
    pub fn set_registries(&self, config: RegistryConfig) -> Result<(), Error> {
        let new = Registry::new(config)?;
        let slot = &self.inner.registry;
        *slot.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// Opens the store at `config.root`, which must not be open anywhere else.
    pub async fn open(config: StoreConfig) -> Result<Self, Error> {
        let inner = Arc::new(blocking(move || Inner::open(config)).await?);
        tokio::spawn(keep_tidy(Arc::downgrade(&inner), inner.tidy_interval()));
        Ok(Self { inner })
    }
}

/// Deletes what has outlived its time, until the store is closed.
async fn keep_tidy(inner: Weak<Inner>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(inner) = inner.upgrade() else { return };
        let tidied = blocking(move || {
            inner.collect_garbage();
            Ok(())
        });
        if let Err(error) = tidied.await {
            tracing::warn!(%error, "cannot tidy up");
        }
    }
}

#[async_trait]
impl ImageEngine for Store {
    fn name(&self) -> &str {
        "store"
    }

    async fn pull(&self, request: PullRequest) -> Result<ImageId, Error> {
        self.inner.pull(request).await
    }

    async fn status(&self, query: &str) -> Result<Option<Image>, Error> {
        let query = ImageQuery::parse(query)?;
        let index = self.inner.index();
        Ok(index
            .find(&query)?
            .map(|held| held.image(&self.inner.pinned)))
    }

    async fn list(&self) -> Result<Vec<Image>, Error> {
        let index = self.inner.index();
        let images = index.images.values();
        Ok(images.map(|held| held.image(&self.inner.pinned)).collect())
    }

    async fn remove(&self, query: &str) -> Result<(), Error> {
        let query = ImageQuery::parse(query)?;
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.remove_image(&query)).await
    }

    async fn usage(&self) -> Result<Usage, Error> {
        self.inner.usage().await
    }

    async fn prepare(&self, image: &ImageId, key: &str) -> Result<Rootfs, Error> {
        self.inner.prepare(image, key).await
    }

    async fn release(&self, key: &str) -> Result<(), Error> {
        self.inner.release(key).await
    }

    async fn writable_usage(&self, key: &str) -> Result<LayerUsage, Error> {
        self.inner.writable_usage(key).await
    }

    async fn prepared(&self) -> Result<Vec<String>, Error> {
        Ok(self.inner.index().leases.keys().cloned().collect())
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store")
            .field(&self.inner.layout.root())
            .finish()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Inner").field(&self.layout.root()).finish()
    }
}
