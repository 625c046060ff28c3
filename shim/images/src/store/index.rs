//! What the store holds, in memory. Pure: touches no file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use crate::engine::{Error, LayerUsage};
use crate::reference::{Digest, ImageQuery};

use super::commit::NewImage;
use super::engine::Inner;
use super::record::{Held, LayerOfImage};

/// A piece of content that lives as long as something names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Content {
    /// An unpacked layer by its chain id.
    Layer(Digest),
    Blob(Digest),
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) usage: LayerUsage,
    pub(super) opaque: bool,
    /// Of a layer: the blob that it was unpacked from, which stays as long as it does.
    pub(super) source: Option<Digest>,
    /// Known to be on the disk itself.
    pub(super) synced: bool,
    /// Set while no image ever named it.
    pub(super) orphan_since: Option<Instant>,
}

/// A root filesystem that was prepared.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub(super) image: Held,
    pub(super) measured: Option<(Instant, LayerUsage)>,
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(super) images: BTreeMap<Digest, Held>,
    /// Tags and digests alike.
    pub(super) names: HashMap<String, Digest>,
    pub(super) content: HashMap<Content, Entry>,
    pub(super) leases: BTreeMap<String, Lease>,
    pins: HashMap<Content, usize>,
    /// Highest order of a name so far.
    pub(super) sequence: u64,
}

impl Index {
    pub(crate) fn find(&self, query: &ImageQuery) -> Result<Option<&Held>, Error> {
        match query {
            ImageQuery::Id(id) => Ok(self.images.get(id)),
            ImageQuery::Reference(reference) => Ok(self.named(&reference.to_string())),
            ImageQuery::Either { reference, prefix } => match self.named(&reference.to_string()) {
                Some(held) => Ok(Some(held)),
                None => self.by_prefix(prefix),
            },
        }
    }

    /// Whether the image is there under all its names already.
    pub(super) fn is_known(&self, new: &NewImage) -> bool {
        let ours = |name: &String| self.names.get(name) == Some(&new.id);
        self.images.contains_key(&new.id) && new.tags.iter().chain(&new.digests).all(ours)
    }

    fn named(&self, name: &str) -> Option<&Held> {
        self.names.get(name).and_then(|id| self.images.get(id))
    }

    fn by_prefix(&self, prefix: &str) -> Result<Option<&Held>, Error> {
        let mut hits = self
            .images
            .values()
            .filter(|held| held.id().hex().starts_with(prefix));
        let first = hits.next();
        if hits.next().is_some() {
            let what = format!("image id {prefix:?}");
            return Err(Error::Invalid {
                what,
                why: "is the beginning of several".into(),
            });
        }
        Ok(first)
    }

    /// Puts an image in, or back in with changed names.
    pub(super) fn insert(&mut self, held: Held) {
        let id = held.id().clone();
        self.names.retain(|_, owner| *owner != id);
        for name in held.names() {
            self.names.insert(name.clone(), id.clone());
        }
        let highest = held.record.tags.values().max().copied().unwrap_or(0);
        self.sequence = self.sequence.max(highest);
        self.adopt(&held);
        self.images.insert(id, held);
    }

    pub(super) fn insert_lease(&mut self, key: String, image: Held) {
        self.adopt(&image);
        let measured = None;
        self.leases.insert(key, Lease { image, measured });
    }

    /// Content that an image names goes as soon as none does any more.
    fn adopt(&mut self, held: &Held) {
        for content in content_of(held) {
            let source = self.source(&content);
            for one in [Some(content), source].into_iter().flatten() {
                if let Some(entry) = self.content.get_mut(&one) {
                    entry.orphan_since = None;
                }
            }
        }
    }

    pub(super) fn remove(&mut self, id: &Digest) {
        self.images.remove(id);
        self.names.retain(|_, owner| owner != id);
    }

    pub(crate) fn has(&self, content: &Content) -> bool {
        self.content.contains_key(content)
    }

    pub(super) fn add(
        &mut self,
        content: Content,
        usage: LayerUsage,
        opaque: bool,
        source: Option<Digest>,
    ) {
        let orphan_since = Some(Instant::now());
        self.content.insert(
            content,
            Entry {
                usage,
                opaque,
                source,
                synced: false,
                orphan_since,
            },
        );
    }

    /// Takes out, and returns, what nothing names any more. What no image ever named
    /// stays for `grace`, so that a failed pull can be tried again.
    pub(super) fn collect(&mut self, grace: Duration) -> Vec<Content> {
        let mut named: HashSet<Content> = HashSet::new();
        let leased = self.leases.values().map(|lease| &lease.image);
        for held in self.images.values().chain(leased) {
            named.extend(content_of(held));
        }
        let sources: Vec<Content> = named.iter().filter_map(|c| self.source(c)).collect();
        named.extend(sources);
        let fresh = |since: Instant| since.elapsed() < grace;
        let garbage: Vec<Content> = self
            .content
            .iter()
            .filter(|(content, _)| !named.contains(content) && !self.pins.contains_key(content))
            .filter(|(_, entry)| !entry.orphan_since.is_some_and(fresh))
            .map(|(content, _)| content.clone())
            .collect();
        for content in &garbage {
            self.content.remove(content);
        }
        garbage
    }

    /// The blob that a layer was unpacked from.
    fn source(&self, layer: &Content) -> Option<Content> {
        let source = self.content.get(layer)?.source.clone()?;
        Some(Content::Blob(source))
    }

    /// A blob of a layer's content: the one its image names, or the one another image
    /// brought in another compression.
    pub(crate) fn blob_of(&self, layer: &LayerOfImage) -> Option<Digest> {
        let own = Content::Blob(layer.digest.clone());
        if self.has(&own) {
            return Some(layer.digest.clone());
        }
        match self.source(&Content::Layer(layer.chain_id.clone())) {
            Some(Content::Blob(other)) if self.has(&Content::Blob(other.clone())) => Some(other),
            _ => None,
        }
    }

    pub(super) fn content_usage(&self) -> LayerUsage {
        self.content
            .values()
            .fold(LayerUsage::default(), |sum, entry| LayerUsage {
                bytes: sum.bytes + entry.usage.bytes,
                inodes: sum.inodes + entry.usage.inodes,
            })
    }
}

/// Everything on disk that an image names.
pub(super) fn content_of(held: &Held) -> impl Iterator<Item = Content> + '_ {
    let layers = held.layers().iter().flat_map(|layer| {
        [
            Content::Layer(layer.chain_id.clone()),
            Content::Blob(layer.digest.clone()),
        ]
    });
    let documents = [
        Content::Blob(held.id().clone()),
        Content::Blob(held.manifest().clone()),
    ];
    layers.chain(documents)
}

/// Keeps content, there already or still to come, from being collected.
#[derive(Debug)]
pub(crate) struct Pins {
    inner: Arc<Inner>,
    content: Vec<Content>,
}

impl Pins {
    pub(crate) fn new(inner: &Arc<Inner>, content: Vec<Content>) -> Self {
        let mut index: MutexGuard<'_, Index> = inner.index();
        for one in &content {
            *index.pins.entry(one.clone()).or_default() += 1;
        }
        drop(index);
        Self {
            inner: Arc::clone(inner),
            content,
        }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut index = self.inner.index();
        for content in &self.content {
            if let Some(count) = index.pins.get_mut(content) {
                *count -= 1;
                if *count == 0 {
                    index.pins.remove(content);
                }
            }
        }
    }
}
