//! Loads the images of an archive into the store.

use std::fmt::Display;
use std::sync::Arc;

use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;

use crate::engine::{Error, ImageId, NoProgress, Progress};
use crate::store::{Cancel, Inner, NewImage, Origin, Pins, Store, Until, blocking};

use super::spool::Spool;
use super::{docker, oci};

/// An image that an archive brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub id: ImageId,
    /// The names that it got by this.
    pub names: Vec<String>,
}

impl Store {
    /// Loads all images of an OCI layout or `docker save` archive, compressed or not.
    /// `name` takes the place of the names in an archive of one image.
    pub async fn load(
        &self,
        archive: impl AsyncRead + Send + Unpin + 'static,
        name: Option<&str>,
    ) -> Result<Vec<Loaded>, Error> {
        let name = name.map(|name| match oci::tag_of(name) {
            Ok(Some(name)) => Ok(name),
            Ok(None) => Err(Error::Invalid {
                what: format!("image name {name:?}"),
                why: "has a digest in place of a tag".into(),
            }),
            Err(error) => Err(error),
        });
        let name = name.transpose()?;
        let cancel = Cancel::default();
        let bridge = Until::new(SyncIoBridge::new(archive), &cancel);
        let inner = Arc::clone(&self.inner);
        let (images, pins) = blocking(move || take(&inner, bridge, name)).await?;
        let mut loaded = Vec::with_capacity(images.len());
        let progress: Arc<dyn Progress> = Arc::new(NoProgress);
        for image in images {
            let names = image.tags.clone();
            let id = self.inner.install(image, &Origin::Here, &progress).await?;
            loaded.push(Loaded { id, names });
        }
        drop(pins);
        Ok(loaded)
    }
}

/// Reads the whole archive, and moves what its images need into the store.
fn take(
    inner: &Arc<Inner>,
    archive: impl std::io::Read,
    name: Option<String>,
) -> Result<(Vec<NewImage>, Vec<Pins>), Error> {
    let mut spool = Spool::read(inner, archive)?;
    let mut images = images(&spool)?;
    match (name, images.as_mut_slice()) {
        (Some(name), [image]) => image.tags = vec![name],
        (Some(name), images) => {
            let why = format!("cannot be that of {} images in one archive", images.len());
            return Err(Error::Invalid {
                what: format!("image name {name:?}"),
                why,
            });
        }
        (None, _) => {}
    }
    let mut pins = Vec::with_capacity(images.len());
    for image in &mut images {
        image.tags.sort();
        image.tags.dedup();
        pins.push(Pins::new(inner, image.content()));
        for layer in &image.layers {
            spool.keep(inner, &layer.digest)?;
        }
    }
    Ok((images, pins))
}

fn images(spool: &Spool) -> Result<Vec<NewImage>, Error> {
    let (index, manifest) = (spool.has(oci::INDEX), spool.has(docker::MANIFEST));
    if !index && !manifest {
        return Err(corrupt(
            "there is neither an index.json nor a manifest.json",
        ));
    }
    if !index {
        return docker::images(spool);
    }
    let mut images = oci::images(spool)?;
    if manifest {
        docker::add_names(spool, &mut images)?;
    }
    Ok(images)
}

pub(super) fn corrupt(why: impl Display) -> Error {
    Error::Corrupt {
        reference: "archive".to_owned(),
        why: why.to_string(),
    }
}
