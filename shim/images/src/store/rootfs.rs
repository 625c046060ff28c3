//! Root filesystems of containers: layers below, a directory of their own on top.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use carpel_failpoint::step;
use tokio::sync::oneshot;

use crate::engine::{Error, FsUsage, ImageId, LayerUsage, Rootfs, Usage};
use crate::overlay;
use crate::reference::{Digest, ImageQuery};

use super::engine::{Inner, blocking};
use super::layout::failed;
use super::measure::measure;
use super::record::{Held, RootfsRecord, VERSION};

const KEY_MAX: usize = 128;

/// A key becomes the name of a directory.
pub(crate) fn check_key(key: &str) -> Result<(), Error> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if key.is_empty() || key.len() > KEY_MAX || key.starts_with('.') || !key.bytes().all(plain) {
        let what = format!(
            "root filesystem key {:?}",
            key.chars().take(KEY_MAX).collect::<String>()
        );
        let why = "is not 1 to 128 letters, digits, '-', '_' or '.'".into();
        return Err(Error::Invalid { what, why });
    }
    Ok(())
}

impl Inner {
    /// Whoever asked may have gone when it is ready: then it is undone.
    pub(super) async fn prepare(
        self: &Arc<Self>,
        image: &ImageId,
        key: &str,
    ) -> Result<Rootfs, Error> {
        check_key(key)?;
        let query = ImageQuery::Id(Digest::parse(&image.0)?);
        let guard = self.keys.lock(key).await;
        let (inner, key) = (Arc::clone(self), key.to_owned());
        let (answer, answered) = oneshot::channel();
        let work = blocking(move || {
            let (prepared, new) = inner.prepare_now(&query, &key);
            if let Err(Ok(rootfs)) = answer.send(prepared)
                && new
            {
                drop(rootfs);
                inner.release_now(&key)?;
            }
            drop(guard);
            Ok(())
        });
        work.await?;
        answered.await.map_err(|_| Error::Io {
            what: "prepare root filesystem".into(),
            source: std::io::ErrorKind::Interrupted.into(),
        })?
    }

    /// The root filesystem, and whether there was none before.
    fn prepare_now(&self, query: &ImageQuery, key: &str) -> (Result<Rootfs, Error>, bool) {
        let leased = self
            .index()
            .leases
            .get(key)
            .map(|lease| lease.image.clone());
        if let Some(image) = leased {
            let same = matches!(query, ImageQuery::Id(id) if id == image.id());
            return (
                if same {
                    self.mount(&image, key)
                } else {
                    Err(taken(key, &image))
                },
                false,
            );
        }
        let image = match self.lease(query, key) {
            Ok(image) => image,
            Err(error) => return (Err(error), false),
        };
        let rootfs = self
            .make_rootfs(&image, key)
            .and_then(|()| self.mount(&image, key));
        if rootfs.is_err()
            && let Err(error) = self.release_now(key)
        {
            tracing::warn!(key, %error, "cannot undo a root filesystem that failed");
        }
        (rootfs, true)
    }

    /// From here on the image's content stays.
    fn lease(&self, query: &ImageQuery, key: &str) -> Result<Held, Error> {
        let mut index = self.index();
        let image = index.find(query)?.cloned().ok_or_else(|| match query {
            ImageQuery::Id(id) => Error::NotFound(id.to_string()),
            other => Error::NotFound(format!("{other:?}")),
        })?;
        index.insert_lease(key.to_owned(), image.clone());
        Ok(image)
    }

    fn make_rootfs(&self, image: &Held, key: &str) -> Result<(), Error> {
        let temp = self.layout.temp_rootfs()?;
        let top = image
            .layers()
            .last()
            .map(|layer| self.layout.layer_fs(&layer.chain_id));
        let top = top.unwrap_or_else(|| self.layout.empty());
        for name in ["upper", "work"] {
            let path = temp.path().join(name);
            std::fs::create_dir(&path).map_err(failed("make directory", &path))?;
        }
        dress_like(&temp.path().join("upper"), &top)?;
        step("a root filesystem is made");
        let record = RootfsRecord {
            version: VERSION,
            image: image.record.clone(),
            config_json: image.config_json.to_string(),
        };
        // After a power cut the containers are gone as well, so this is not synced.
        self.layout
            .write_record(&temp.path().join("record"), &record, false)?;
        temp.rename(&self.layout.rootfs(key))?;
        step("a root filesystem is in its place");
        Ok(())
    }

    fn mount(&self, image: &Held, key: &str) -> Result<Rootfs, Error> {
        let chain: Vec<Digest> = image.layers().iter().map(|l| l.chain_id.clone()).collect();
        let (mut lower, _) = self.lower_dirs(&chain);
        if lower.is_empty() {
            lower.push(self.layout.empty());
        }
        let dir = self.layout.rootfs(key);
        let mount: OwnedFd = overlay::mount(&lower, &dir.join("upper"), &dir.join("work"))
            .map_err(failed("mount the overlay of", &dir))?;
        Ok(Rootfs {
            mount,
            image: image.image(&self.pinned),
        })
    }

    pub(super) async fn release(self: &Arc<Self>, key: &str) -> Result<(), Error> {
        check_key(key)?;
        let guard = self.keys.lock(key).await;
        let (inner, key) = (Arc::clone(self), key.to_owned());
        blocking(move || {
            let released = inner.release_now(&key);
            drop(guard);
            released
        })
        .await
    }

    fn release_now(&self, key: &str) -> Result<(), Error> {
        let trash = self.layout.trash(&self.layout.rootfs(key))?;
        drop(trash);
        let orphaned = {
            let mut index = self.index();
            let lease = index.leases.remove(key);
            lease.is_some_and(|lease| !index.images.contains_key(lease.image.id()))
        };
        if orphaned {
            self.collect_garbage();
        }
        Ok(())
    }

    pub(super) async fn writable_usage(self: &Arc<Self>, key: &str) -> Result<LayerUsage, Error> {
        check_key(key)?;
        let measured = match self.index().leases.get(key) {
            Some(lease) => lease.measured,
            None => return Err(Error::NotFound(key.to_owned())),
        };
        let fresh = |at: Instant| at.elapsed() < self.config.usage_age;
        if let Some((at, usage)) = measured
            && fresh(at)
        {
            return Ok(usage);
        }
        let (inner, key) = (Arc::clone(self), key.to_owned());
        blocking(move || inner.measure(&key)).await
    }

    fn measure(&self, key: &str) -> Result<LayerUsage, Error> {
        let path = self.layout.rootfs(key).join("upper");
        let usage = match measure(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => LayerUsage::default(),
            measured => measured.map_err(failed("measure", &path))?,
        };
        if let Some(lease) = self.index().leases.get_mut(key) {
            lease.measured = Some((Instant::now(), usage));
        }
        Ok(usage)
    }

    pub(super) async fn usage(self: &Arc<Self>) -> Result<Usage, Error> {
        let keys: Vec<String> = self.index().leases.keys().cloned().collect();
        let mut written = LayerUsage::default();
        for key in keys {
            match self.writable_usage(&key).await {
                Ok(usage) => {
                    written.bytes += usage.bytes;
                    written.inodes += usage.inodes;
                }
                // Released meanwhile.
                Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let mut content = self.index().content_usage();
        let partial = self.partial_usage();
        content.bytes += partial.bytes;
        content.inodes += partial.inodes;
        let root = self.layout.root().to_owned();
        Ok(Usage {
            images: vec![FsUsage {
                path: root,
                used: content,
            }],
            containers: vec![FsUsage {
                path: self.layout.rootfs_root(),
                used: written,
            }],
        })
    }
}

fn taken(key: &str, image: &Held) -> Error {
    Error::Invalid {
        what: format!("root filesystem key {key:?}"),
        why: format!("is in use for image {}", image.id()),
    }
}

/// The upper directory's owner and mode are those of the container's `/`.
fn dress_like(path: &Path, model: &Path) -> Result<(), Error> {
    let like = model.metadata().map_err(failed("look at", model))?;
    chown(path, Some(like.uid()), Some(like.gid())).map_err(failed("change owner of", path))?;
    let mode = std::fs::Permissions::from_mode(like.mode() & 0o7777);
    std::fs::set_permissions(path, mode).map_err(failed("set mode of", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_plain_names() {
        for key in ["a", "0123-abc_d.e"] {
            check_key(key).unwrap();
        }
        let long = "a".repeat(129);
        for key in [
            "", ".", "..", "a/b", "../a", ".hidden", "a\0", "a\n", "ä", &long,
        ] {
            assert!(
                matches!(check_key(key), Err(Error::Invalid { .. })),
                "{key:?}"
            );
        }
    }
}
