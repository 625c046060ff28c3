//! One layer: from its registry or from disk into a directory of its own.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use carpel_failpoint::step;
use tokio::sync::{OwnedMutexGuard, mpsc};

use crate::engine::{Error, LayerState, LayerUsage, Progress};
use crate::reference::Digest;
use crate::registry::{LayerStream, Session};
use crate::unpack::{Unpacked, inherit, unpack};

use super::blob::{Cancel, Feed, Piece, Until};
use super::engine::{Inner, blocking};
use super::index::Content;
use super::layout::{Temp, failed};
use super::pull::LayerPlan;
use super::record::{LayerOfImage, LayerRecord, VERSION};

/// Pieces of a blob on their way from the connection to the unpacker.
const QUEUE: usize = 16;

/// An unpacked layer that is not in its place yet.
#[derive(Debug)]
pub(super) struct Staged {
    temp: Temp,
    unpacked: Unpacked,
}

/// The right to write a blob; whatever works on it has a share until it is done.
pub(super) type BlobLock = Arc<OwnedMutexGuard<()>>;

/// A layer on its way: what the unpacker reads, and what feeds it.
struct Begun {
    path: PathBuf,
    feed: Feed,
    rest: (mpsc::Sender<Piece>, LayerStream),
}

/// How one attempt at a layer failed.
enum Failed {
    /// The bytes were not those of the digest.
    Spoilt(Error),
    Finally(Error),
}

impl Inner {
    /// Fetches a layer, keeps its blob, and unpacks it, all in one pass. Goes on where
    /// an earlier pull was cut. Where the bytes turn out to be wrong, it is begun anew
    /// without who gave them, as long as there is anybody else to ask.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        plan: &LayerPlan,
        session: &Session,
        progress: &dyn Progress,
        lock: &BlobLock,
    ) -> Result<Staged, Error> {
        let digest = &plan.layer.digest;
        let mut attempts = session.sources() + 1;
        loop {
            let had = self.layout.partial(digest).metadata();
            let had = had.is_ok_and(|file| file.len() > 0);
            let attempt = Box::pin(self.fetch_once(plan, session, progress, lock));
            let error = match attempt.await {
                Ok(staged) => return Ok(staged),
                Err(Failed::Finally(error)) => return Err(error),
                Err(Failed::Spoilt(error)) => error,
            };
            attempts = attempts.saturating_sub(1);
            if attempts == 0 || !(had || session.has_trusted_source()) {
                return Err(error);
            }
            tracing::warn!(%digest, %error, "layer came wrong, asking elsewhere");
        }
    }

    async fn fetch_once(
        self: &Arc<Self>,
        plan: &LayerPlan,
        session: &Session,
        progress: &dyn Progress,
        lock: &BlobLock,
    ) -> Result<Staged, Failed> {
        let layer = &plan.layer;
        let begun = self.begin(layer, session, lock).await;
        let Begun { path, feed, rest } = begun.map_err(Failed::Finally)?;
        let (pieces, mut stream) = rest;
        // Whether wrong bytes are the image's fault or their giver's matters only
        // if there is somebody else to ask.
        let judge = stream.position() > 0 || session.sources() > 1;
        let unpacking = {
            let (inner, plan, lock) = (Arc::clone(self), plan.clone(), Arc::clone(lock));
            blocking(move || {
                let _lock = lock;
                let staged = inner.unpack_feed(&plan, feed, judge, &path);
                inner.drop_empty_partial(&plan.layer.digest);
                staged
            })
        };
        let digest = layer.digest.to_string();
        let feeding = async move {
            while let Some(bytes) = stream.next_chunk().await? {
                if pieces.send(Piece::Bytes(bytes)).await.is_err() {
                    // The unpacker gave up, and says why.
                    return Ok(());
                }
            }
            progress.layer(&digest, LayerState::Unpacking);
            drop(pieces.send(Piece::End).await);
            Ok(())
        };
        match tokio::join!(feeding, unpacking) {
            (Ok(()), Ok(staged)) => Ok(staged),
            (Err(error @ Error::Corrupt { .. }), _) => {
                self.drop_partial(&layer.digest);
                Err(Failed::Spoilt(error))
            }
            // What has come stays, for the next pull to go on with.
            (Err(error), _) => Err(Failed::Finally(error)),
            // Bytes as they should be, and no use; or there is no room for them.
            (Ok(()), Err(error)) => {
                self.drop_partial(&layer.digest);
                Err(Failed::Finally(error))
            }
        }
    }

    /// Looks what is here of a layer, and asks for the rest.
    async fn begin(
        self: &Arc<Self>,
        layer: &LayerOfImage,
        session: &Session,
        lock: &BlobLock,
    ) -> Result<Begun, Error> {
        let cancel = Cancel::default();
        let partial = {
            let (inner, layer, lock) = (Arc::clone(self), layer.clone(), Arc::clone(lock));
            let cancelled = cancel.flag();
            blocking(move || {
                let _lock = lock;
                inner.open_partial(&layer, &cancelled)
            })
        };
        let (path, file, seen) = partial.await?.into_parts();
        let stored = seen.bytes();
        if stored > 0 {
            tracing::info!(layer = %layer.digest, stored, "going on with a layer");
        }
        let stream = session.resume_layer(&layer.descriptor(), seen).await;
        let stream = stream.inspect_err(|_| self.drop_empty_partial(&layer.digest))?;
        let (pieces, queue) = mpsc::channel(QUEUE);
        Ok(Begun {
            path,
            feed: Feed::new(queue, file, stored),
            rest: (pieces, stream),
        })
    }

    fn unpack_feed(
        &self,
        plan: &LayerPlan,
        mut feed: Feed,
        judge: bool,
        partial: &Path,
    ) -> Result<Staged, Error> {
        let staged = match self.stage(plan, &mut feed) {
            Err(error @ Error::Corrupt { .. }) if judge => {
                // To the end, where it shows whose fault it is.
                feed.drain().map_err(|fault| fault.of(&plan.reference))?;
                return Err(error);
            }
            staged => staged?,
        };
        feed.drain().map_err(|fault| fault.of(&plan.reference))?;
        let blob = self.layout.adopt(partial)?;
        self.add_blob(&plan.layer.digest, blob)?;
        Ok(staged)
    }

    /// Unpacks a layer whose blob is here already.
    pub(super) async fn unpack_stored(self: &Arc<Self>, plan: &LayerPlan) -> Result<Staged, Error> {
        let cancel = Cancel::default();
        let path = self.layout.blob(&plan.layer.digest);
        let file = File::open(&path).map_err(failed("open", &path))?;
        let mut source = Until::new(file, &cancel);
        let (inner, plan) = (Arc::clone(self), plan.clone());
        blocking(move || inner.stage(&plan, &mut source)).await
    }

    fn stage(&self, plan: &LayerPlan, source: &mut dyn std::io::Read) -> Result<Staged, Error> {
        let temp = self.layout.temp_dir("layer")?;
        let fs = temp.path().join("fs");
        std::fs::create_dir(&fs).map_err(failed("make directory", &fs))?;
        std::fs::set_permissions(&fs, Permissions::from_mode(0o755))
            .map_err(failed("set mode of", &fs))?;
        let layer = &plan.layer;
        let context = |why: String| Error::Corrupt {
            reference: plan.reference.clone(),
            why: format!("layer {}: {why}", layer.digest),
        };
        let limits = plan.budget.limits(&self.config.limits);
        let unpacked =
            unpack(source, &fs, &limits).map_err(|fault| match fault.of(&plan.reference) {
                Error::Corrupt { why, .. } => context(why),
                other => other,
            })?;
        if unpacked.diff_id != layer.diff_id {
            let (is, want) = (&unpacked.diff_id, &layer.diff_id);
            return Err(context(format!(
                "unpacks to {is} where the configuration says {want}"
            )));
        }
        plan.budget.spend(unpacked.bytes, &plan.reference)?;
        step("a layer is unpacked");
        Ok(Staged { temp, unpacked })
    }

    /// Puts a layer in its place, over the `below` that its chain id says.
    pub(super) fn commit_layer(
        &self,
        plan: &LayerPlan,
        below: &[Digest],
        staged: Staged,
    ) -> Result<(), Error> {
        let Staged { temp, unpacked } = staged;
        let (lower, _) = self.lower_dirs(below);
        inherit(&temp.path().join("fs"), &lower, &unpacked.implicit)
            .map_err(|fault| fault.of(&plan.reference))?;
        let record = LayerRecord {
            version: VERSION,
            diff_id: unpacked.diff_id,
            bytes: unpacked.bytes,
            inodes: unpacked.inodes,
            opaque: unpacked.opaque,
            blob: Some(plan.layer.digest.clone()),
        };
        self.layout
            .write_record(&temp.path().join("record"), &record, false)?;
        let chain_id = &plan.layer.chain_id;
        let content = Content::Layer(chain_id.clone());
        let mut index = self.index();
        if index.has(&content) {
            return Ok(());
        }
        temp.rename(&self.layout.layer(chain_id))?;
        step("a layer is in its place");
        let usage = LayerUsage {
            bytes: unpacked.bytes,
            inodes: unpacked.inodes,
        };
        index.add(content, usage, unpacked.opaque, record.blob);
        Ok(())
    }

    /// Directories of a chain (given bottom first), topmost first, and whether they
    /// are all: an opaque layer hides those below it.
    pub(super) fn lower_dirs(&self, chain: &[Digest]) -> (Vec<PathBuf>, bool) {
        let index = self.index();
        let mut lower = Vec::with_capacity(chain.len());
        for chain_id in chain.iter().rev() {
            lower.push(self.layout.layer_fs(chain_id));
            let entry = index.content.get(&Content::Layer(chain_id.clone()));
            if entry.is_some_and(|entry| entry.opaque) {
                return (lower, false);
            }
        }
        (lower, true)
    }
}
