//! What the store writes down about images, layers and root filesystems.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::engine::{Image, ImageConfig, ImageId};
use crate::image::{self, chain_ids};
use crate::reference::Digest;
use crate::registry::Descriptor;

use super::pinned::Pinned;

/// Version of all records; a higher one is of a later program.
pub(super) const VERSION: u32 = 1;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ImageRecord {
    pub(super) version: u32,
    #[serde(with = "text")]
    pub(super) id: Digest,
    #[serde(with = "text")]
    pub(super) manifest: Digest,
    pub(super) layers: Vec<LayerOfImage>,
    /// With the order in which names were given: where two records claim one name,
    /// the later is right.
    pub(super) tags: BTreeMap<String, u64>,
    pub(super) digests: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerOfImage {
    #[serde(with = "text")]
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) media_type: String,
    #[serde(with = "text")]
    pub(crate) diff_id: Digest,
    #[serde(with = "text")]
    pub(crate) chain_id: Digest,
}

impl LayerOfImage {
    pub(crate) fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: self.media_type.clone(),
            digest: self.digest.clone(),
            size: self.size,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LayerRecord {
    pub(super) version: u32,
    #[serde(with = "text")]
    pub(super) diff_id: Digest,
    pub(super) bytes: u64,
    pub(super) inodes: u64,
    pub(super) opaque: bool,
    /// The blob that it was unpacked from.
    #[serde(default, with = "maybe")]
    pub(super) blob: Option<Digest>,
}

/// Holds the whole image: it may be removed while the container lives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RootfsRecord {
    pub(super) version: u32,
    pub(super) image: ImageRecord,
    pub(super) config_json: String,
}

/// An image as it is kept in memory: its record and what its configuration says.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(super) record: ImageRecord,
    pub(crate) config: ImageConfig,
    pub(crate) config_json: Arc<str>,
}

impl Held {
    /// `Err` says in what the record and the configuration do not agree.
    pub(super) fn new(record: ImageRecord, config_json: Arc<str>) -> Result<Self, String> {
        if record.version != VERSION {
            return Err(format!("is of version {}", record.version));
        }
        if image::sha256(config_json.as_bytes()) != record.id {
            return Err("has a configuration of another digest".to_owned());
        }
        let parsed = image::parse(config_json.as_bytes())?;
        let of_layers = |pick: fn(&LayerOfImage) -> &Digest| -> Vec<Digest> {
            record.layers.iter().map(pick).cloned().collect()
        };
        if of_layers(|l| &l.diff_id) != parsed.diff_ids {
            return Err("has other layers than its configuration".to_owned());
        }
        if of_layers(|l| &l.chain_id) != chain_ids(&parsed.diff_ids) {
            return Err("has a wrong chain of layers".to_owned());
        }
        Ok(Self {
            record,
            config: parsed.config,
            config_json,
        })
    }

    pub(crate) fn id(&self) -> &Digest {
        &self.record.id
    }

    pub(crate) fn manifest(&self) -> &Digest {
        &self.record.manifest
    }

    pub(crate) fn layers(&self) -> &[LayerOfImage] {
        &self.record.layers
    }

    pub(crate) fn tags(&self) -> impl Iterator<Item = &String> {
        self.record.tags.keys()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.record.tags.keys().chain(&self.record.digests)
    }

    pub(super) fn image(&self, pinned: &Pinned) -> Image {
        let id = self.record.id.to_string();
        let layers: u64 = self.record.layers.iter().map(|layer| layer.size).sum();
        Image {
            pinned: pinned.fits(&id) || self.names().any(|name| pinned.fits(name)),
            id: ImageId(id),
            repo_tags: self.record.tags.keys().cloned().collect(),
            repo_digests: self.record.digests.iter().cloned().collect(),
            size: layers + self.config_json.len() as u64,
            user: self.config.user.clone(),
            config: self.config.clone(),
            config_json: Arc::clone(&self.config_json),
            chain_id: self
                .record
                .layers
                .last()
                .map(|l| l.chain_id.to_string())
                .unwrap_or_default(),
        }
    }
}

/// The same where there may be none.
mod maybe {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::reference::Digest;

    pub(super) fn serialize<S: Serializer>(
        digest: &Option<Digest>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        match digest {
            Some(digest) => s.collect_str(digest),
            None => s.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Digest>, D::Error> {
        let text = Option::<String>::deserialize(d)?;
        let digest = text.as_deref().map(Digest::parse).transpose();
        digest.map_err(serde::de::Error::custom)
    }
}

/// Digests as text, checked when read: they become paths.
mod text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::reference::Digest;

    pub(super) fn serialize<S: Serializer>(digest: &Digest, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(digest)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(d)?;
        Digest::parse(&text).map_err(serde::de::Error::custom)
    }
}
