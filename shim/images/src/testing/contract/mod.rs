//! What every engine must keep, as tests that panic.

mod drops;
mod identity;
mod removal;
mod rootfs;

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;

use crate::engine::{Credentials, Error, Image, ImageEngine, ImageId, NoProgress, PullRequest};

use super::TestImage;

/// A registry that answers so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// There is no such image.
    Missing,
    Denied,
    /// Server errors, or nothing at all.
    Unavailable,
    /// Content that is not what its digest says.
    Corrupt,
}

/// An engine, and registries that it pulls from.
#[async_trait]
pub trait World: Send + Sync {
    fn engine(&self) -> Arc<dyn ImageEngine>;

    /// Two different hosts.
    fn hosts(&self) -> [String; 2];

    /// From now on `reference` stands for `image` at its registry.
    async fn publish(&self, reference: &str, image: &TestImage);

    /// Pulls of `reference`, which was never published, end so.
    async fn trouble(&self, reference: &str, trouble: Trouble);
}

/// Runs all of it, each test in a world of its own.
pub async fn run<W: World, F: Future<Output = W>>(make: impl Fn() -> F) {
    identity::run(&make).await;
    removal::run(&make).await;
    rootfs::run(&make).await;
    drops::run(&make).await;
}

/// Short forms of what the tests do all the time.
struct Bench<W> {
    world: W,
    engine: Arc<dyn ImageEngine>,
}

impl<W: World> Bench<W> {
    async fn new<F: Future<Output = W>>(make: &impl Fn() -> F) -> Self {
        let world = make().await;
        let engine = world.engine();
        Self { world, engine }
    }

    /// `name` at the first host.
    fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.world.hosts()[0])
    }

    async fn publish(&self, reference: &str, image: &TestImage) {
        self.world.publish(reference, image).await;
    }

    async fn try_pull(&self, reference: &str) -> Result<ImageId, Error> {
        pull(self.engine.as_ref(), reference).await
    }

    async fn pull(&self, reference: &str) -> ImageId {
        self.try_pull(reference)
            .await
            .unwrap_or_else(|e| panic!("pull {reference}: {e:?}"))
    }

    async fn published(&self, reference: &str, image: &TestImage) -> ImageId {
        self.publish(reference, image).await;
        self.pull(reference).await
    }

    async fn status(&self, query: &str) -> Option<Image> {
        let status = self.engine.status(query).await;
        status.unwrap_or_else(|e| panic!("status of {query}: {e:?}"))
    }

    async fn image(&self, query: &str) -> Image {
        self.status(query)
            .await
            .unwrap_or_else(|| panic!("{query} is not there"))
    }

    async fn remove(&self, query: &str) {
        let removed = self.engine.remove(query).await;
        removed.unwrap_or_else(|e| panic!("remove {query}: {e:?}"));
    }

    async fn ids(&self) -> Vec<String> {
        let list = self
            .engine
            .list()
            .await
            .unwrap_or_else(|e| panic!("list: {e:?}"));
        let mut ids: Vec<String> = list.into_iter().map(|image| image.id.0).collect();
        ids.sort();
        ids
    }
}

async fn pull(engine: &dyn ImageEngine, reference: &str) -> Result<ImageId, Error> {
    let request = PullRequest {
        reference: reference.to_owned(),
        credentials: Credentials::Anonymous,
        progress: Arc::new(NoProgress),
    };
    engine.pull(request).await
}
