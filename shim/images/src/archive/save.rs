//! Writes images as an OCI layout that Docker can load as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use tokio::io::AsyncWrite;
use tokio_util::io::SyncIoBridge;

use crate::engine::Error;
use crate::reference::ImageQuery;
use crate::store::{Inner, Store, blocking};
use crate::unpack::Fault;

use super::content::Writable;
use super::docker::{self, Entry};
use super::oci::{self, Document, FULL_NAME, Link, Platform, REF_NAME, architecture};
use super::spool::blob_name;

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const LAYOUT: (&str, &[u8]) = ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);

impl Store {
    /// Writes the images, by name or id, and all their names, as one archive.
    pub async fn save(
        &self,
        images: &[String],
        to: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Result<(), Error> {
        let queries: Vec<ImageQuery> = images
            .iter()
            .map(|text| ImageQuery::parse(text))
            .collect::<Result<_, _>>()?;
        let mut bridge = SyncIoBridge::new(to);
        let inner = Arc::clone(&self.inner);
        let names = images.to_vec();
        blocking(move || {
            let images = find(&inner, &queries, &names)?;
            write(&inner, &images, &mut bridge)?;
            bridge.shutdown().map_err(broken)
        })
        .await
    }
}

/// The images, each once, and what keeps their blobs from going meanwhile.
fn find(
    inner: &Arc<Inner>,
    queries: &[ImageQuery],
    names: &[String],
) -> Result<Vec<Writable>, Error> {
    let mut images: Vec<Writable> = Vec::new();
    for (query, name) in queries.iter().zip(names) {
        let found = inner.index().find(query)?.cloned();
        let held = found.ok_or_else(|| Error::NotFound(name.clone()))?;
        if !images.iter().any(|known| known.held.id() == held.id()) {
            images.push(Writable::new(inner, held)?);
        }
    }
    Ok(images)
}

fn write(inner: &Inner, images: &[Writable], to: &mut impl Write) -> Result<(), Error> {
    let mut archive = tar::Builder::new(BufWriter::new(to));
    member(&mut archive, LAYOUT.0, LAYOUT.1)?;
    let mut written = BTreeSet::new();
    let mut links = Vec::new();
    let mut entries = Vec::new();
    for image in images {
        let Writable { held, layers, .. } = image;
        if written.insert(image.manifest_digest.clone()) {
            let name = blob_name(&image.manifest_digest);
            member(&mut archive, &name, &image.manifest)?;
        }
        for digest in [held.id()].into_iter().chain(layers) {
            if written.insert(digest.clone()) {
                file(&mut archive, &blob_name(digest), &inner.layout.blob(digest))?;
            }
        }
        links.extend(index_links(image));
        entries.push(Entry {
            config: blob_name(held.id()),
            repo_tags: Some(held.tags().cloned().collect()),
            layers: Some(layers.iter().map(blob_name).collect()),
        });
    }
    let index = Document {
        schema_version: 2,
        media_type: Some(INDEX_TYPE.to_owned()),
        config: None,
        layers: None,
        manifests: Some(links),
    };
    member(&mut archive, oci::INDEX, &json(&index)?)?;
    member(&mut archive, docker::MANIFEST, &json(&entries)?)?;
    let mut out = archive.into_inner().map_err(broken)?;
    out.flush().map_err(broken)
}

/// One for each name, or one without.
fn index_links(image: &Writable) -> Vec<Link> {
    let media_type = serde_json::from_slice::<Document>(&image.manifest)
        .ok()
        .and_then(|document| document.media_type)
        .unwrap_or_else(|| MANIFEST_TYPE.to_owned());
    let link = |annotations| Link {
        media_type: media_type.clone(),
        digest: image.manifest_digest.to_string(),
        size: image.manifest.len() as u64,
        annotations,
        platform: Some(Platform {
            os: "linux".into(),
            architecture: architecture().into(),
        }),
    };
    let named = |name: &String| {
        let pairs = [(FULL_NAME, name), (REF_NAME, name)];
        pairs
            .into_iter()
            .map(|(key, name)| (key.to_owned(), name.clone()))
            .collect()
    };
    let tags = image.held.tags();
    let links: Vec<Link> = tags.map(|name| link(named(name))).collect();
    if links.is_empty() {
        vec![link(BTreeMap::new())]
    } else {
        links
    }
}

fn member(archive: &mut tar::Builder<impl Write>, name: &str, body: &[u8]) -> Result<(), Error> {
    append(archive, name, body.len() as u64, body)
}

fn file(archive: &mut tar::Builder<impl Write>, name: &str, path: &Path) -> Result<(), Error> {
    let open = || -> io::Result<(File, u64)> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok((file, size))
    };
    let (file, size) =
        open().map_err(|e| Fault::io(format_args!("open {}", path.display()), e).of("archive"))?;
    append(archive, name, size, file)
}

fn append(
    archive: &mut tar::Builder<impl Write>,
    name: &str,
    size: u64,
    body: impl io::Read,
) -> Result<(), Error> {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    archive.append_data(&mut header, name, body).map_err(broken)
}

fn json(document: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(document).map_err(|e| broken(io::Error::other(e)))
}

fn broken(error: io::Error) -> Error {
    Fault::io("write archive", error).of("archive")
}
