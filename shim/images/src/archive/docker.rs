//! `manifest.json` of `docker save`: configurations and layers by file name.

use serde::{Deserialize, Serialize};

use crate::engine::Error;
use crate::image::sha256;
use crate::registry::Descriptor;
use crate::store::NewImage;
use crate::unpack::clean_name;

use super::load::corrupt;
use super::oci::{Document, Link, tag_of};
use super::spool::Spool;

pub(super) const MANIFEST: &str = "manifest.json";

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    pub(super) config: String,
    #[serde(default)]
    pub(super) repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(super) layers: Option<Vec<String>>,
}

/// The images of an archive. They get a manifest of their own, as they bring none.
pub(super) fn images(spool: &Spool) -> Result<Vec<NewImage>, Error> {
    let mut images: Vec<NewImage> = Vec::new();
    for entry in entries(spool)? {
        let mut image = image(spool, &entry)?;
        image.tags = entry.tags()?;
        match images.iter_mut().find(|known| known.id == image.id) {
            Some(known) => known.tags.append(&mut image.tags),
            None => images.push(image),
        }
    }
    Ok(images)
}

/// Names that `manifest.json` gives to the images of an OCI layout beside it.
pub(super) fn add_names(spool: &Spool, images: &mut [NewImage]) -> Result<(), Error> {
    for entry in entries(spool)? {
        let config = spool.find(&path(&entry.config)?)?.0;
        if let Some(image) = images.iter_mut().find(|image| image.id == config) {
            image.tags.extend(entry.tags()?);
        }
    }
    Ok(())
}

fn entries(spool: &Spool) -> Result<Vec<Entry>, Error> {
    serde_json::from_slice(&spool.document(MANIFEST)?)
        .map_err(|e| corrupt(format!("manifest.json: {e}")))
}

impl Entry {
    fn tags(&self) -> Result<Vec<String>, Error> {
        let tags = self.repo_tags.iter().flatten();
        tags.filter_map(|tag| tag_of(tag).transpose()).collect()
    }
}

fn image(spool: &Spool, entry: &Entry) -> Result<NewImage, Error> {
    let config_name = path(&entry.config)?;
    let (id, size) = spool.find(&config_name)?;
    let config_bytes = spool.document(&config_name)?;
    let mut layers = Vec::new();
    for layer in entry.layers.iter().flatten() {
        let (digest, size) = spool.find(&path(layer)?)?;
        layers.push(Descriptor {
            media_type: LAYER_TYPE.to_owned(),
            digest,
            size,
        });
    }
    let link = |media_type: &str, digest: String, size| Link {
        media_type: media_type.to_owned(),
        digest,
        size,
        annotations: Default::default(),
        platform: None,
    };
    let manifest = Document {
        schema_version: 2,
        media_type: Some(MANIFEST_TYPE.to_owned()),
        config: Some(link(CONFIG_TYPE, id.to_string(), size)),
        layers: Some(
            layers
                .iter()
                .map(|l| link(LAYER_TYPE, l.digest.to_string(), l.size))
                .collect(),
        ),
        manifests: None,
    };
    let manifest = serde_json::to_vec(&manifest).map_err(|e| corrupt(e.to_string()))?;
    let digest = sha256(&manifest);
    NewImage::resolve("archive", &id, &digest, &layers, (manifest, config_bytes))
}

fn path(name: &str) -> Result<String, Error> {
    let clean = clean_name(name.as_bytes()).map_err(|fault| fault.of("archive"))?;
    String::from_utf8(clean).map_err(|_| corrupt(format!("file name {name:?}")))
}
