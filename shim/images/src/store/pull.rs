//! A pull: what the name stands for, its layers side by side, then the image.

use std::sync::Arc;
use std::time::Duration;

use carpel_failpoint::step;
use futures_util::future::try_join_all;
use tokio::sync::{Semaphore, oneshot};

use crate::engine::{Credentials, Error, ImageId, LayerState, Progress, PullRequest};
use crate::image::{chain_ids, parse};
use crate::reference::{Algorithm, Digest, Reference};
use crate::registry::{Descriptor, ResolvedImage, Session};

use super::budget::Budget;
use super::commit::NewImage;
use super::engine::{Inner, blocking};
use super::index::{Content, Pins};
use super::ingest::{BlobLock, Staged};
use super::record::LayerOfImage;

/// A layer to be had.
#[derive(Debug, Clone)]
pub(crate) struct LayerPlan {
    pub(crate) layer: LayerOfImage,
    /// Whose layer it is, for messages.
    pub(crate) reference: String,
    /// Of the image, which all its layers share.
    pub(super) budget: Arc<Budget>,
}

/// Where layers come from that are not here.
pub(crate) enum Origin {
    Registry(Session),
    /// They must be here: an archive brought their blobs.
    Here,
}

impl Inner {
    /// A pull has an end, however slowly a registry keeps it alive.
    pub(super) async fn pull(self: &Arc<Self>, request: PullRequest) -> Result<ImageId, Error> {
        let what = format!("pull of {}", request.reference);
        let after = self.config.pull_limit;
        let pull = Box::pin(self.pull_unlimited(request));
        match tokio::time::timeout(after, pull).await {
            Ok(pulled) => pulled,
            Err(_) => Err(Error::Deadline { what, after }),
        }
    }

    async fn pull_unlimited(self: &Arc<Self>, request: PullRequest) -> Result<ImageId, Error> {
        let PullRequest {
            reference,
            credentials,
            progress,
        } = request;
        let reference = Reference::parse(&reference)?;
        let (session, resolved) = self.resolve(&reference, credentials, &progress).await?;
        step("the image is found");
        let names = match &reference.tag {
            Some(_) => vec![reference.to_string()],
            None => Vec::new(),
        };
        // A digest names the manifest or index that was asked for, whichever it is.
        let digest = reference.digest.as_ref().unwrap_or(&resolved.digest);
        let new = NewImage {
            tags: names,
            digests: vec![reference.with_digest(digest).to_string()],
            ..NewImage::resolve(
                &reference.to_string(),
                &resolved.manifest.config.digest,
                &resolved.manifest_digest,
                &resolved.manifest.layers,
                (resolved.manifest_bytes, resolved.config_bytes),
            )?
        };
        self.install(new, &Origin::Registry(session), &progress)
            .await
    }

    async fn resolve(
        &self,
        reference: &Reference,
        credentials: Credentials,
        progress: &Arc<dyn Progress>,
    ) -> Result<(Session, ResolvedImage), Error> {
        let session = self
            .registry()
            .session(reference, credentials, Arc::clone(progress))?;
        let held = |digest: &Digest| {
            let index = self.index();
            index
                .images
                .get(digest)
                .map(|held| held.config_json.as_bytes().to_vec())
        };
        let resolved = session.resolve_with(held).await?;
        Ok((session, resolved))
    }

    /// Gets all layers of an image, then makes the image.
    pub(crate) async fn install(
        self: &Arc<Self>,
        new: NewImage,
        origin: &Origin,
        progress: &Arc<dyn Progress>,
    ) -> Result<ImageId, Error> {
        let limits = &self.config.limits;
        limits.check(&new.reference, new.layers.iter().map(|layer| layer.size))?;
        let pins = Pins::new(self, new.content());
        let layers = self.layers(&new, origin, progress.as_ref());
        let fetched = Box::pin(layers).await;
        if matches!(fetched, Err(Error::Exhausted(_))) {
            let digests = new.layers.iter().map(|layer| layer.digest.clone());
            tokio::spawn(Arc::clone(self).abandon(digests.collect()));
        }
        let inner = Arc::clone(self);
        // From here on the image is made even if nobody waits for it any more.
        blocking(move || {
            let id = fetched.and_then(|()| inner.commit_image(&new));
            drop(pins);
            if matches!(id, Err(Error::Exhausted(_))) {
                // No room is left for what another try might use.
                inner.collect_older(Duration::ZERO);
            }
            inner.collect_garbage();
            id
        })
        .await
    }

    async fn layers(
        self: &Arc<Self>,
        new: &NewImage,
        origin: &Origin,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let slots = Semaphore::new(self.config.parallel_layers.max(1));
        let budget = Arc::new(Budget::new(self.config.limits.image_bytes));
        let chain: Vec<Digest> = new.layers.iter().map(|l| l.chain_id.clone()).collect();
        for layer in &new.layers {
            progress.layer(&layer.digest.to_string(), LayerState::Waiting);
        }
        // Each waits for the one below it, since its directories take after those.
        let mut below: Option<oneshot::Receiver<()>> = None;
        let mut all = Vec::with_capacity(new.layers.len());
        for (at, layer) in new.layers.iter().enumerate() {
            let (done, next) = oneshot::channel();
            let work = LayerWork {
                plan: LayerPlan {
                    layer: layer.clone(),
                    reference: new.reference.clone(),
                    budget: Arc::clone(&budget),
                },
                below: &chain[..at],
                slots: &slots,
                origin,
                progress,
                below_done: below.replace(next),
                done,
            };
            all.push(Box::pin(self.layer(work)));
        }
        try_join_all(all).await?;
        Ok(())
    }

    /// Locks are taken so that nobody can wait in a circle: a slot is held by who
    /// fetches, and that waits for a blob only; a chain is held by who waits for the
    /// chain below it, and chains are a tree.
    async fn layer(self: &Arc<Self>, work: LayerWork<'_>) -> Result<(), Error> {
        let LayerWork {
            plan,
            below,
            slots,
            origin,
            progress,
            below_done,
            done,
        } = work;
        let layer = &plan.layer;
        let digest = layer.digest.to_string();
        let _chain = self.chains.lock(layer.chain_id.hex()).await;
        if self.index().has(&Content::Layer(layer.chain_id.clone())) {
            progress.layer(&digest, LayerState::Exists);
            done.send(()).ok();
            return Ok(());
        }
        let staged = {
            let _slot = slots.acquire().await.map_err(|_| interrupted(&plan))?;
            let lock = Arc::new(self.blobs.lock(&digest).await);
            self.get(&plan, origin, progress, &lock).await?
        };
        if let Some(below_done) = below_done {
            below_done.await.map_err(|_| interrupted(&plan))?;
        }
        let (inner, below, committed) = (Arc::clone(self), below.to_vec(), plan.clone());
        blocking(move || inner.commit_layer(&committed, &below, staged)).await?;
        progress.layer(&digest, LayerState::Done);
        done.send(()).ok();
        Ok(())
    }
}

impl Inner {
    /// From its blob if that is here, or else from where it comes.
    async fn get(
        self: &Arc<Self>,
        plan: &LayerPlan,
        origin: &Origin,
        progress: &dyn Progress,
        lock: &BlobLock,
    ) -> Result<Staged, Error> {
        let digest = &plan.layer.digest;
        if self.has_blob(digest) {
            progress.layer(&digest.to_string(), LayerState::Unpacking);
            match (self.unpack_stored(plan).await, origin) {
                // Rotten on disk: better to have it anew than never again.
                (Err(error @ Error::Corrupt { .. }), Origin::Registry(_)) => {
                    tracing::warn!(%error, "stored layer is unusable, fetching it again");
                    self.discard_blob(digest)?;
                }
                (staged, _) => return staged,
            }
        }
        match origin {
            Origin::Registry(session) => self.fetch(plan, session, progress, lock).await,
            Origin::Here => Err(Error::Corrupt {
                reference: plan.reference.clone(),
                why: format!("layer {digest} is missing"),
            }),
        }
    }
}

struct LayerWork<'a> {
    plan: LayerPlan,
    below: &'a [Digest],
    slots: &'a Semaphore,
    origin: &'a Origin,
    progress: &'a dyn Progress,
    below_done: Option<oneshot::Receiver<()>>,
    done: oneshot::Sender<()>,
}

/// Another layer of the same image failed, which is what gets reported.
fn interrupted(plan: &LayerPlan) -> Error {
    let what = format!("layer {} of {}", plan.layer.digest, plan.reference);
    Error::Io {
        what,
        source: std::io::ErrorKind::Interrupted.into(),
    }
}

impl NewImage {
    /// Checks that manifest and configuration belong together.
    pub(crate) fn resolve(
        reference: &str,
        id: &Digest,
        manifest: &Digest,
        layers: &[Descriptor],
        (manifest_bytes, config_bytes): (Vec<u8>, Vec<u8>),
    ) -> Result<Self, Error> {
        let corrupt = |why: String| Error::Corrupt {
            reference: reference.to_owned(),
            why,
        };
        let parsed = parse(&config_bytes).map_err(corrupt)?;
        if id.algorithm() != Algorithm::Sha256 {
            return Err(corrupt(format!(
                "configuration {id} is not named by a sha256 digest"
            )));
        }
        if parsed.diff_ids.len() != layers.len() {
            let (named, listed) = (parsed.diff_ids.len(), layers.len());
            let why = format!("configuration has {named} layers and the manifest {listed}");
            return Err(corrupt(why));
        }
        let config_json = String::from_utf8(config_bytes)
            .map_err(|_| corrupt("configuration is not UTF-8".to_owned()))?;
        let chain = chain_ids(&parsed.diff_ids);
        let layers = layers.iter().zip(parsed.diff_ids).zip(chain);
        let layers = layers.map(|((descriptor, diff_id), chain_id)| LayerOfImage {
            digest: descriptor.digest.clone(),
            size: descriptor.size,
            media_type: descriptor.media_type.clone(),
            diff_id,
            chain_id,
        });
        Ok(Self {
            reference: reference.to_owned(),
            id: id.clone(),
            manifest: manifest.clone(),
            manifest_bytes,
            config_json: config_json.into(),
            layers: layers.collect(),
            tags: Vec::new(),
            digests: Vec::new(),
        })
    }
}
