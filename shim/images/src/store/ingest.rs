//! One layer: from its registry or from disk into a directory of its own.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use carpel_failpoint::step;
use tokio::sync::mpsc;

use crate::engine::{Error, LayerState, LayerUsage, Progress};
use crate::reference::Digest;
use crate::registry::Session;
use crate::unpack::{Unpacked, inherit, unpack};

use super::blob::{Cancel, Feed, Piece, Until};
use super::engine::{Inner, blocking};
use super::index::Content;
use super::layout::{Temp, failed};
use super::pull::LayerPlan;
use super::record::{LayerRecord, VERSION};

/// Pieces of a blob on their way from the connection to the unpacker.
const QUEUE: usize = 16;

/// An unpacked layer that is not in its place yet.
#[derive(Debug)]
pub(super) struct Staged {
    temp: Temp,
    unpacked: Unpacked,
}

impl Inner {
    /// Fetches a layer, keeps its blob, and unpacks it, all in one pass.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        plan: &LayerPlan,
        session: &Session,
        progress: &dyn Progress,
    ) -> Result<Staged, Error> {
        let layer = &plan.layer;
        let mut stream = session.open_layer(&layer.descriptor()).await?;
        let (pieces, queue) = mpsc::channel(QUEUE);
        let unpacking = {
            let (inner, plan) = (Arc::clone(self), plan.clone());
            blocking(move || inner.unpack_feed(&plan, queue))
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
        let (fed, staged) = tokio::join!(feeding, unpacking);
        fed?;
        staged
    }

    fn unpack_feed(&self, plan: &LayerPlan, queue: mpsc::Receiver<Piece>) -> Result<Staged, Error> {
        let (blob, file) = self.layout.temp_file("blob")?;
        let mut feed = Feed::new(queue, file);
        let staged = self.stage(plan, &mut feed)?;
        feed.drain().map_err(|fault| fault.of(&plan.reference))?;
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
        let unpacked = unpack(source, &fs, &self.config.limits).map_err(|fault| {
            match fault.of(&plan.reference) {
                Error::Corrupt { why, .. } => context(why),
                other => other,
            }
        })?;
        if unpacked.diff_id != layer.diff_id {
            let (is, want) = (&unpacked.diff_id, &layer.diff_id);
            return Err(context(format!(
                "unpacks to {is} where the configuration says {want}"
            )));
        }
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
        index.add(content, usage, unpacked.opaque);
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
