//! What a registry serves: blobs by digest, and names for manifests.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Blobs and names; cheap to copy.
#[derive(Debug, Clone, Default)]
pub struct Content {
    pub(crate) blobs: BTreeMap<String, Bytes>,
    pub(crate) manifests: BTreeMap<String, Manifest>,
}

/// What a name of the form `repository:tag`, without a host, stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) digest: String,
    pub(crate) media_type: String,
}

impl Content {
    /// Adds a blob and gives its digest.
    pub fn blob(&mut self, data: impl Into<Bytes>) -> String {
        let data = data.into();
        let digest = digest_of(&data);
        self.blobs.insert(digest.clone(), data);
        digest
    }

    /// Adds a manifest under names of the form `repository:tag` and gives its digest.
    pub fn manifest(&mut self, names: &[&str], media_type: &str, data: impl Into<Bytes>) -> String {
        let digest = self.blob(data);
        let media_type = media_type.to_owned();
        let manifest = Manifest {
            digest: digest.clone(),
            media_type,
        };
        // By digest too: a client may ask for it by that.
        self.manifests.insert(digest.clone(), manifest.clone());
        for name in names {
            self.manifests.insert((*name).to_owned(), manifest.clone());
        }
        digest
    }

    /// Takes over everything of `other`.
    pub fn merge(&mut self, other: Self) {
        self.blobs.extend(other.blobs);
        self.manifests.extend(other.manifests);
    }

    /// Digest of the manifest that `name` stands for.
    pub fn digest(&self, name: &str) -> Option<&str> {
        self.manifests
            .get(name)
            .map(|manifest| manifest.digest.as_str())
    }

    pub(crate) fn write(&self, directory: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(directory.join("blobs"))?;
        for (digest, data) in &self.blobs {
            std::fs::write(directory.join("blobs").join(digest), data)?;
        }
        let names = serde_json::to_vec_pretty(&self.manifests)?;
        std::fs::write(directory.join("manifests.json"), names)?;
        Ok(())
    }

    pub(crate) fn read(directory: &Path) -> anyhow::Result<Self> {
        let names = std::fs::read(directory.join("manifests.json"))
            .with_context(|| format!("read the images in {}", directory.display()))?;
        let mut content = Self {
            manifests: serde_json::from_slice(&names)?,
            ..Self::default()
        };
        for entry in std::fs::read_dir(directory.join("blobs"))? {
            content.blob(std::fs::read(entry?.path())?);
        }
        Ok(content)
    }
}

/// `sha256:` and 64 hexadecimal digits.
pub fn digest_of(data: &[u8]) -> String {
    let hash = Sha256::digest(data);
    hash.iter().fold("sha256:".to_owned(), |text, byte| {
        format!("{text}{byte:02x}")
    })
}
