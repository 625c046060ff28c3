//! An image as it can be written out: by the blobs that are here.
//!
//! A layer that another image brought in another compression is here in that one only.
//! Then a manifest is written that names what there is. The image stays the same, as
//! its configuration names layers by what they inflate to.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use crate::engine::Error;
use crate::image::sha256;
use crate::reference::Digest;
use crate::store::{Content, Held, Inner, Pins};
use crate::unpack::{Encoding, Fault};

use super::oci::{Document, Link};

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// What goes into an archive, kept from going away meanwhile.
pub(super) struct Writable {
    pub(super) held: Held,
    /// Blobs of the layers, bottom first.
    pub(super) layers: Vec<Digest>,
    pub(super) manifest: Vec<u8>,
    pub(super) manifest_digest: Digest,
    _pins: Pins,
}

impl Writable {
    pub(super) fn new(inner: &Arc<Inner>, held: Held) -> Result<Self, Error> {
        // Pinned first, looked at then: what is there from here on stays.
        let mut content: Vec<Content> = [held.manifest(), held.id()]
            .map(|digest| Content::Blob(digest.clone()))
            .to_vec();
        content.extend(held.layers().iter().flat_map(|layer| {
            let own = Content::Blob(layer.digest.clone());
            let other = inner.index().blob_of(layer).map(Content::Blob);
            [Some(own), other].into_iter().flatten()
        }));
        let pins = Pins::new(inner, content);
        let mut layers = Vec::with_capacity(held.layers().len());
        for layer in held.layers() {
            let blob = inner.index().blob_of(layer);
            layers.push(blob.ok_or_else(|| missing(&held, &layer.digest))?);
        }
        let as_pulled = layers.iter().eq(held.layers().iter().map(|l| &l.digest));
        let (manifest, manifest_digest) = if as_pulled && inner.has_blob(held.manifest()) {
            let manifest = inner.read_document(held.manifest())?;
            (manifest, held.manifest().clone())
        } else {
            let manifest = manifest_of(inner, &held, &layers)?;
            let digest = sha256(&manifest);
            (manifest, digest)
        };
        Ok(Self {
            held,
            layers,
            manifest,
            manifest_digest,
            _pins: pins,
        })
    }
}

fn missing(held: &Held, blob: &Digest) -> Error {
    let what = format!(
        "saving {}: its layer {blob} is there unpacked only; pull it again",
        held.id()
    );
    Error::Unsupported {
        engine: "store",
        what,
    }
}

fn manifest_of(inner: &Inner, held: &Held, layers: &[Digest]) -> Result<Vec<u8>, Error> {
    let link = |media_type: &str, digest: &Digest, size| Link {
        media_type: media_type.to_owned(),
        digest: digest.to_string(),
        size,
        annotations: Default::default(),
        platform: None,
    };
    let layers = layers.iter().map(|digest| {
        let (media_type, size) = described(inner, digest)?;
        Ok(link(media_type, digest, size))
    });
    let config_size = held.config_json.len() as u64;
    let manifest = Document {
        schema_version: 2,
        media_type: Some(MANIFEST_TYPE.to_owned()),
        config: Some(link(CONFIG_TYPE, held.id(), config_size)),
        layers: Some(layers.collect::<Result<_, Error>>()?),
        manifests: None,
    };
    serde_json::to_vec(&manifest)
        .map_err(|e| Fault::io("write manifest", std::io::Error::other(e)).of("archive"))
}

/// What a blob is, by its first bytes, and its size.
fn described(inner: &Inner, digest: &Digest) -> Result<(&'static str, u64), Error> {
    let path = inner.layout.blob(digest);
    let look = || -> std::io::Result<(Encoding, u64)> {
        let file = File::open(&path)?;
        let size = file.metadata()?.len();
        let mut magic = Vec::new();
        file.take(Encoding::MAGIC).read_to_end(&mut magic)?;
        Ok((Encoding::of(&magic), size))
    };
    let (encoding, size) = look()
        .map_err(|e| Fault::io(format_args!("look at {}", path.display()), e).of("archive"))?;
    let media_type = match encoding {
        Encoding::Plain => LAYER_TYPE,
        Encoding::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        Encoding::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
    };
    Ok((media_type, size))
}
