//! From a name to a manifest and configuration, at one site.

use super::failure::Failure;
use super::manifest::{self, Descriptor, Manifest, Parsed};
use super::platform::Machine;
use super::site::{Document, Site};
use super::verify::digest_of;
use crate::reference::{Digest, Reference};

const CONFIG_MAX: usize = 8 * 1024 * 1024;
/// An index may name indexes, but not for ever.
const INDEX_DEPTH: usize = 3;

/// What a name stands for, before the configuration is fetched.
#[derive(Debug)]
pub(super) struct Found {
    /// Of the document the name stands for.
    pub(super) digest: Digest,
    /// Of the manifest that was reached from there.
    pub(super) manifest_digest: Digest,
    pub(super) manifest: Manifest,
    pub(super) bytes: Vec<u8>,
}

/// Asks `site` for `reference` and follows indexes to the manifest for `machine`.
pub(super) async fn find(
    site: &Site,
    reference: &Reference,
    machine: Machine,
    most: usize,
) -> Result<Found, Failure> {
    let selector = reference.selector();
    let asked = reference.digest.as_ref();
    let mut document = site
        .manifest(&selector, asked, manifest::ACCEPT, most)
        .await?;
    let digest = document.digest.clone();
    let mut promised: Option<String> = None;
    for _ in 0..=INDEX_DEPTH {
        let Document {
            bytes,
            digest: here,
            content_type,
        } = document;
        match manifest::parse(&bytes, content_type.as_deref(), promised.as_deref())? {
            Parsed::Manifest(manifest) => {
                return Ok(Found {
                    digest,
                    manifest_digest: here,
                    manifest,
                    bytes,
                });
            }
            Parsed::Index(entries) => {
                let entry = &machine.pick(&entries)?.descriptor;
                document = child(site, entry, most).await?;
                promised = Some(entry.media_type.clone());
            }
        }
    }
    Err(Failure::corrupt("index leads to index leads to index"))
}

async fn child(site: &Site, entry: &Descriptor, most: usize) -> Result<Document, Failure> {
    let digest = &entry.digest;
    let selector = digest.to_string();
    let document = site
        .manifest(&selector, Some(digest), manifest::ACCEPT, most)
        .await
        .map_err(|failure| failure.of_content(digest))?;
    if document.bytes.len() as u64 != entry.size {
        return Err(Failure::corrupt(format!(
            "{selector} is not of its declared size"
        )));
    }
    Ok(document)
}

/// The image configuration: `held` if that is it, else from `site`.
pub(super) async fn config(
    site: &Site,
    config: &Descriptor,
    machine: Machine,
    held: Option<Vec<u8>>,
) -> Result<Vec<u8>, Failure> {
    let right = |bytes: &Vec<u8>| digest_of(config.digest.algorithm(), bytes) == config.digest;
    let bytes = match held.filter(right) {
        Some(bytes) => bytes,
        None => site.small_blob(config, CONFIG_MAX).await?,
    };
    machine.check_config(&bytes)?;
    Ok(bytes)
}
