//! Changes of images: made on disk, then in memory, one at a time.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use carpel_failpoint::step;

use crate::engine::{Error, ImageId};
use crate::reference::{Digest, ImageQuery};

use super::delete;
use super::engine::Inner;
use super::index::{Content, content_of};
use super::layout::failed;
use super::record::{Held, ImageRecord, LayerOfImage, VERSION};

/// An image all of whose layers are there, or are about to be.
#[derive(Debug)]
pub(crate) struct NewImage {
    /// For messages.
    pub(crate) reference: String,
    pub(crate) id: Digest,
    pub(crate) manifest: Digest,
    pub(crate) manifest_bytes: Vec<u8>,
    pub(crate) config_json: Arc<str>,
    pub(crate) layers: Vec<LayerOfImage>,
    pub(crate) tags: Vec<String>,
    pub(crate) digests: Vec<String>,
}

impl NewImage {
    pub(crate) fn content(&self) -> Vec<Content> {
        let layers = self.layers.iter().flat_map(|layer| {
            [
                Content::Layer(layer.chain_id.clone()),
                Content::Blob(layer.digest.clone()),
            ]
        });
        let documents = [&self.id, &self.manifest].map(|digest| Content::Blob(digest.clone()));
        layers.chain(documents).collect()
    }
}

impl Inner {
    /// Makes an image, or gives one that is there more names. A name that another
    /// image had is taken from it.
    pub(super) fn commit_image(&self, new: &NewImage) -> Result<ImageId, Error> {
        let _alone = self.commits();
        if self.index().is_known(new) {
            return Ok(ImageId(new.id.to_string()));
        }
        let before = self.index().images.get(&new.id).cloned();
        let mut held = match before {
            Some(held) => held,
            None => self.make_image(new)?,
        };
        let mut sequence = self.index().sequence;
        for tag in &new.tags {
            sequence += 1;
            held.record.tags.insert(tag.clone(), sequence);
        }
        held.record.digests.extend(new.digests.iter().cloned());
        step("the image's documents are stored");
        self.sync(&held)?;
        step("the image's content is on the disk");
        let id = held.id().clone();
        self.layout
            .write_record(&self.layout.image(&id), &held.record, true)?;
        let losers = {
            let mut index = self.index();
            let losers: Vec<Digest> = held
                .names()
                .filter_map(|name| index.names.get(name))
                .filter(|owner| **owner != id)
                .cloned()
                .collect();
            index.insert(held.clone());
            losers
        };
        for loser in losers {
            self.take_names(&loser, &held)?;
        }
        step("the image has its names");
        Ok(ImageId(id.to_string()))
    }

    fn make_image(&self, new: &NewImage) -> Result<Held, Error> {
        self.add_document(&new.id, new.config_json.as_bytes())?;
        self.add_document(&new.manifest, &new.manifest_bytes)?;
        let record = ImageRecord {
            version: VERSION,
            id: new.id.clone(),
            manifest: new.manifest.clone(),
            layers: new.layers.clone(),
            tags: BTreeMap::new(),
            digests: Default::default(),
        };
        Held::new(record, Arc::clone(&new.config_json)).map_err(|why| Error::Corrupt {
            reference: new.reference.clone(),
            why: format!("image {why}"),
        })
    }

    /// The other record already says so with a higher order, so a crash in between
    /// changes nothing.
    fn take_names(&self, loser: &Digest, winner: &Held) -> Result<(), Error> {
        let Some(mut held) = self.index().images.get(loser).cloned() else {
            return Ok(());
        };
        held.record
            .tags
            .retain(|tag, _| !winner.record.tags.contains_key(tag));
        held.record
            .digests
            .retain(|digest| !winner.record.digests.contains(digest));
        self.layout
            .write_record(&self.layout.image(loser), &held.record, true)?;
        let mut index = self.index();
        index.insert(held);
        // Names that both had are the winner's.
        for name in winner.names() {
            index.names.insert(name.clone(), winner.id().clone());
        }
        Ok(())
    }

    /// Makes sure that all content of an image is on the disk itself.
    fn sync(&self, held: &Held) -> Result<(), Error> {
        let content: Vec<Content> = content_of(held).collect();
        let synced = {
            let index = self.index();
            content
                .iter()
                .filter_map(|c| index.content.get(c))
                .all(|entry| entry.synced)
        };
        if synced {
            return Ok(());
        }
        let root = self.layout.root();
        let synced = self.layout.durability().filesystem(root);
        synced.map_err(failed("sync", root))?;
        let mut index = self.index();
        for content in &content {
            if let Some(entry) = index.content.get_mut(content) {
                entry.synced = true;
            }
        }
        Ok(())
    }

    /// Removes an image with all its names.
    pub(super) fn remove_image(&self, query: &ImageQuery) -> Result<(), Error> {
        let _alone = self.commits();
        let Some(id) = self.index().find(query)?.map(|held| held.id().clone()) else {
            return Ok(());
        };
        let path = self.layout.image(&id);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed.map_err(failed("remove", &path))?,
        }
        step("the image's record is removed");
        self.index().remove(&id);
        // Only then may content go: the record must not come back without it.
        let synced = self.layout.sync_parent(&path);
        self.collect_garbage();
        step("the image's content is removed");
        synced
    }

    /// Deletes what nothing names any more: out of its place at once, off the disk
    /// in the background.
    pub(super) fn collect_garbage(&self) {
        self.collect_older(self.config.orphan_grace);
        self.sweep_partials(self.config.partial_keep);
    }

    pub(super) fn collect_older(&self, grace: Duration) {
        let mut index = self.index();
        let mut trash = Vec::new();
        for content in index.collect(grace) {
            let path = match &content {
                Content::Layer(chain_id) => self.layout.layer(chain_id),
                Content::Blob(digest) => self.layout.blob(digest),
            };
            match self.layout.trash(&path) {
                Ok(temp) => trash.push(temp),
                // A disk may be too full for another name.
                Err(error) => match delete_in_place(&content, &path) {
                    Ok(()) => {}
                    Err(again) => tracing::warn!(%error, %again, "cannot collect"),
                },
            }
        }
        drop(index);
        drop(trash);
    }
}

/// A layer is none without its record, whatever else of it is left.
fn delete_in_place(content: &Content, path: &Path) -> std::io::Result<()> {
    if matches!(content, Content::Layer(_)) {
        delete::path(&path.join("record"))?;
    }
    delete::path(path)
}
