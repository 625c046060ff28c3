//! A store in a directory of its own, and registries for it.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part"
)]

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use carpel_images::engine::{
    Credentials, Error, ImageEngine, ImageId, NoProgress, PullRequest, Rootfs,
};
use carpel_images::reference::Reference;
use carpel_images::registry::{RegistryConfig, RetryPolicy, Timeouts};
use carpel_images::testing::TestImage;
use carpel_images::testing::contract::{Trouble, World};
use carpel_images::{Loaded, Store, StoreConfig};
use tempfile::TempDir;

use crate::registry::{FakeRegistry, Fault, OCI_MANIFEST};

pub struct StoreWorld {
    pub store: Store,
    pub registries: [FakeRegistry; 2],
    pub dir: TempDir,
}

impl StoreWorld {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(config(dir.path())).await.unwrap();
        let registries = [FakeRegistry::start().await, FakeRegistry::start().await];
        Self {
            store,
            registries,
            dir,
        }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub fn registry(&self, reference: &str) -> (&FakeRegistry, Reference) {
        let reference = Reference::parse(reference).unwrap();
        let registry = self
            .registries
            .iter()
            .find(|r| r.host() == reference.registry)
            .unwrap();
        (registry, reference)
    }

    pub fn put(&self, reference: &str, image: &TestImage) {
        let (registry, reference) = self.registry(reference);
        for (_, bytes) in image.blobs() {
            registry.put_blob(&reference.repository, bytes);
        }
        let tag = reference.tag.as_deref();
        registry.put_manifest(&reference.repository, tag, OCI_MANIFEST, &image.manifest);
    }

    pub fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.registries[0].host())
    }

    pub async fn pull(&self, reference: &str) -> Result<ImageId, Error> {
        pull(&self.store, reference).await
    }

    pub async fn load(&self, archive: Vec<u8>) -> Result<Vec<Loaded>, Error> {
        self.store.load(std::io::Cursor::new(archive), None).await
    }

    /// Closes the store and opens it again, as another process would.
    pub async fn reopen(self) -> Self {
        let Self {
            store,
            registries,
            dir,
        } = self;
        drop(store);
        let store = open_when_free(dir.path()).await;
        Self {
            store,
            registries,
            dir,
        }
    }

    /// Number of files and directories right below a part of the store.
    pub fn count(&self, part: &str) -> usize {
        std::fs::read_dir(self.root().join(part)).unwrap().count()
    }

    /// Waits for what happens in the background.
    pub async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..500 {
            if done(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never: {what}");
    }
}

/// What works for dropped calls may hold a store for a moment longer.
pub async fn open_when_free(dir: &Path) -> Store {
    let mut last = None;
    for _ in 0..500 {
        match Store::open(config(dir)).await {
            Ok(store) => return store,
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never opened: {last:?}");
}

pub fn config(dir: &Path) -> StoreConfig {
    let registries = RegistryConfig {
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            stall: Duration::from_secs(5),
            stall_bytes: 1,
            document: Duration::from_secs(5),
        },
        retry: RetryPolicy {
            attempts: 2,
            base: Duration::from_millis(5),
            max: Duration::from_millis(10),
            max_retry_after: Duration::from_secs(1),
        },
        ..RegistryConfig::default()
    };
    StoreConfig {
        registries,
        ..StoreConfig::new(dir.join("store"))
    }
}

pub async fn pull(store: &Store, reference: &str) -> Result<ImageId, Error> {
    let request = PullRequest {
        reference: reference.to_owned(),
        credentials: Credentials::Anonymous,
        progress: Arc::new(NoProgress),
    };
    store.pull(request).await
}

pub fn inside(rootfs: &Rootfs, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", rootfs.mount.as_raw_fd()))
}

#[async_trait]
impl World for StoreWorld {
    fn engine(&self) -> Arc<dyn ImageEngine> {
        Arc::new(self.store.clone())
    }

    fn hosts(&self) -> [String; 2] {
        [self.registries[0].host(), self.registries[1].host()]
    }

    async fn publish(&self, reference: &str, image: &TestImage) {
        self.put(reference, image);
    }

    async fn trouble(&self, reference: &str, trouble: Trouble) {
        let (registry, parsed) = self.registry(reference);
        let part = format!("{}/", parsed.repository);
        match trouble {
            Trouble::Missing => {}
            Trouble::Denied => registry.always(&part, Fault::Status(403, Vec::new())),
            Trouble::Unavailable => registry.always(&part, Fault::Status(503, Vec::new())),
            Trouble::Corrupt => {
                self.put(reference, &TestImage::small("corrupt"));
                let image = TestImage::small("corrupt");
                let digest = image.blobs().last().unwrap().0;
                let part = format!("{part}blobs/{digest}");
                registry.always(&part, Fault::Content(image.layers[0].clone()));
            }
        }
    }
}
