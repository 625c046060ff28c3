//! The OCI layout: an index, and in it manifests and further indexes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::engine::Error;
use crate::reference::{Digest, Reference};
use crate::registry::Descriptor;
use crate::store::NewImage;

use super::load::corrupt;
use super::spool::{Spool, blob_name};

pub(super) const INDEX: &str = "index.json";
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
pub(super) const FULL_NAME: &str = "io.containerd.image.name";
/// Indexes within indexes.
const DEPTH_MAX: usize = 4;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    pub(super) schema_version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) media_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) config: Option<Link>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) layers: Option<Vec<Link>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) manifests: Option<Vec<Link>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Link {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) platform: Option<Platform>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    pub(super) os: String,
    #[serde(default)]
    pub(super) architecture: String,
}

/// The images of a layout, each once, with the names that the index gives it.
pub(super) fn images(spool: &Spool) -> Result<Vec<NewImage>, Error> {
    let index = parse(&spool.document(INDEX)?)?;
    let links = index
        .manifests
        .ok_or_else(|| corrupt("index.json lists no manifests"))?;
    let mut images: Vec<NewImage> = Vec::new();
    for link in &links {
        if is_attestation(link) {
            continue;
        }
        let mut image = image(spool, link, DEPTH_MAX)?;
        image.tags = names(&link.annotations)?;
        match images.iter_mut().find(|known| known.id == image.id) {
            Some(known) => known.tags.append(&mut image.tags),
            None => images.push(image),
        }
    }
    Ok(images)
}

fn image(spool: &Spool, link: &Link, depth: usize) -> Result<NewImage, Error> {
    let digest = Digest::parse(&link.digest).map_err(|e| corrupt(e.to_string()))?;
    let bytes = spool.document(&blob_name(&digest))?;
    let document = parse(&bytes)?;
    match (document.config, document.layers, document.manifests) {
        (Some(config), Some(layers), None) => {
            let config = descriptor(spool, &config)?;
            let layers = layers.iter().map(|layer| descriptor(spool, layer));
            let layers = layers.collect::<Result<Vec<_>, _>>()?;
            let config_bytes = spool.document(&blob_name(&config.digest))?;
            let documents = (bytes, config_bytes);
            NewImage::resolve("archive", &config.digest, &digest, &layers, documents)
        }
        (None, None, Some(links)) if depth > 0 => {
            let fits = |link: &&Link| link.platform.as_ref().is_some_and(is_ours);
            let plain = |link: &&Link| link.platform.is_none();
            let link = links.iter().find(fits).or_else(|| links.iter().find(plain));
            let none = || corrupt(format!("index {digest} has nothing for this platform"));
            self::image(spool, link.ok_or_else(none)?, depth - 1)
        }
        (None, None, Some(_)) => Err(corrupt("indexes are nested too deep")),
        _ => Err(corrupt(format!(
            "{digest} is neither a manifest nor an index"
        ))),
    }
}

fn parse(bytes: &[u8]) -> Result<Document, Error> {
    let document: Document =
        serde_json::from_slice(bytes).map_err(|e| corrupt(format!("manifest or index: {e}")))?;
    if document.schema_version != 2 {
        return Err(corrupt("manifest or index is not of schemaVersion 2"));
    }
    Ok(document)
}

fn descriptor(spool: &Spool, link: &Link) -> Result<Descriptor, Error> {
    let digest = Digest::parse(&link.digest).map_err(|e| corrupt(e.to_string()))?;
    let size = spool.blob(&digest)?;
    if size != link.size {
        let why = format!(
            "{digest} has {size} bytes where the manifest says {}",
            link.size
        );
        return Err(corrupt(why));
    }
    Ok(Descriptor {
        media_type: link.media_type.clone(),
        digest,
        size,
    })
}

/// Some writers put only a tag, without a name; that names nothing.
fn names(annotations: &BTreeMap<String, String>) -> Result<Vec<String>, Error> {
    let full = annotations.get(FULL_NAME);
    let plain = annotations
        .get(REF_NAME)
        .filter(|name| name.contains(['/', ':']));
    let Some(name) = full.or(plain) else {
        return Ok(Vec::new());
    };
    tag_of(name).map(|name| name.into_iter().collect())
}

/// The normalised name; `None` for one by digest, which is no tag.
pub(super) fn tag_of(name: &str) -> Result<Option<String>, Error> {
    let reference = Reference::parse(name)?;
    Ok(reference.tag.is_some().then(|| reference.to_string()))
}

fn is_attestation(link: &Link) -> bool {
    link.annotations.contains_key("vnd.docker.reference.type")
}

fn is_ours(platform: &Platform) -> bool {
    platform.os == "linux" && platform.architecture == architecture()
}

/// This machine's architecture as images call it.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(pairs: &[(&str, &str)]) -> Vec<String> {
        names(
            &pairs
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
        )
        .unwrap()
    }

    #[test]
    fn the_full_name_wins_and_a_bare_tag_names_nothing() {
        let full = "docker.io/library/a:1";
        assert_eq!(named(&[(FULL_NAME, full), (REF_NAME, "1")]), [full]);
        assert_eq!(named(&[(REF_NAME, "h.io/b:2")]), ["h.io/b:2"]);
        assert_eq!(named(&[(REF_NAME, "c:3")]), ["docker.io/library/c:3"]);
        assert!(named(&[(REF_NAME, "latest")]).is_empty());
        assert!(named(&[]).is_empty());
    }
}
