//! Start-up: takes the lock, reads what is there, sets aside what makes no sense.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, RwLock};
use std::time::Duration;

use rustix::fs::FlockOperation;

use crate::engine::{Error, LayerUsage};
use crate::reference::Digest;
use crate::registry::Registry;

use super::StoreConfig;
use super::blob::DOCUMENT_MAX;
use super::engine::Inner;
use super::index::{Content, Index};
use super::layout::{Layout, delete_or_log, failed, read_bounded, read_record, shared_text};
use super::pinned::Pinned;
use super::record::{Held, ImageRecord, LayerRecord, RootfsRecord, VERSION};
use super::rootfs::check_key;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

impl Inner {
    pub(super) fn open(config: StoreConfig) -> Result<Self, Error> {
        let pinned = Pinned::parse(&config.pinned)?;
        let durability = config.durability.clone();
        let layout = Layout::create(&config.root, config.containers.as_deref(), durability)?;
        let mut locks = vec![take_lock(&layout.lock())?];
        if layout.containers() != layout.root() {
            locks.push(take_lock(&layout.containers().join("lock"))?);
        }
        let registry = Registry::new(config.registries.clone())?;
        let mut trash = Vec::new();
        for tmp in layout.all_tmp() {
            trash.extend(entries(&tmp)?);
        }
        let index = Mutex::new(Index::default());
        let (chains, blobs, keys) = Default::default();
        let commits = Mutex::new(());
        let inner = Self {
            config,
            layout,
            registry: RwLock::new(registry),
            pinned,
            index,
            commits,
            chains,
            blobs,
            keys,
            _locks: locks,
        };
        inner.read_layers()?;
        inner.read_blobs()?;
        inner.read_leases()?;
        inner.read_images()?;
        inner.after_boot()?;
        drop(std::thread::spawn(move || {
            for path in trash {
                delete_or_log(&path);
            }
        }));
        Ok(inner)
    }

    fn read_layers(&self) -> Result<(), Error> {
        for path in entries(&self.layout.layers())? {
            let record = read_record::<LayerRecord>(&path.join("record"));
            let read = record.and_then(|record| match digest_of("sha256", &path) {
                Some(chain_id) if record.version == VERSION && path.join("fs").is_dir() => {
                    Ok((chain_id, record))
                }
                _ => Err(io::Error::new(io::ErrorKind::InvalidData, "is no layer")),
            });
            match read {
                Ok((chain_id, record)) => {
                    let usage = LayerUsage {
                        bytes: record.bytes,
                        inodes: record.inodes,
                    };
                    let content = Content::Layer(chain_id);
                    self.index().add(content, usage, record.opaque, record.blob);
                }
                // An image that needs it is set aside in turn, and a pull mends it.
                Err(error) => self.discard(&path, &error),
            }
        }
        Ok(())
    }

    fn read_blobs(&self) -> Result<(), Error> {
        for algorithm in ["sha256", "sha512"] {
            for path in entries(&self.layout.blobs(algorithm))? {
                let file = std::fs::symlink_metadata(&path).map_err(failed("look at", &path))?;
                match digest_of(algorithm, &path).filter(|_| file.is_file()) {
                    Some(digest) => {
                        let usage = LayerUsage {
                            bytes: file.len(),
                            inodes: 1,
                        };
                        self.index().add(Content::Blob(digest), usage, false, None);
                    }
                    None => self.discard(&path, &io::ErrorKind::InvalidData.into()),
                }
            }
        }
        Ok(())
    }

    fn read_leases(&self) -> Result<(), Error> {
        for path in entries(&self.layout.rootfs_root())? {
            let Some(key) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            let read = read_record::<RootfsRecord>(&path.join("record"))
                .map_err(|e| e.to_string())
                .and_then(|record| Held::new(record.image, record.config_json.into()));
            match (check_key(key), read) {
                (Ok(()), Ok(image)) => {
                    self.index().insert_lease(key.to_owned(), image);
                }
                (Err(error), _) => self.discard(&path, &io::Error::other(error)),
                (_, Err(why)) => self.discard(&path, &io::Error::other(why)),
            }
        }
        Ok(())
    }

    fn read_images(&self) -> Result<(), Error> {
        for path in entries(&self.layout.images())? {
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match self.read_image(&path) {
                Ok(held) => self.merge(held),
                Err(why) => quarantine(&path, &why),
            }
        }
        Ok(())
    }

    fn read_image(&self, path: &Path) -> Result<Held, String> {
        let record: ImageRecord = read_record(path).map_err(|e| e.to_string())?;
        if self.layout.image(&record.id) != path {
            return Err(format!("is the record of {}", record.id));
        }
        let blob = self.layout.blob(&record.id);
        let config = read_bounded(&blob, DOCUMENT_MAX)
            .map_err(|e| format!("configuration {}: {e}", blob.display()))?;
        let held = Held::new(record, shared_text(config)?)?;
        let index = self.index();
        let missing = held
            .layers()
            .iter()
            .find(|l| !index.has(&Content::Layer(l.chain_id.clone())));
        if let Some(layer) = missing {
            return Err(format!("lacks layer {}", layer.chain_id));
        }
        drop(index);
        Ok(held)
    }

    /// A crash while a tag moved leaves it in two records: the later one is right.
    fn merge(&self, mut held: Held) {
        let mut index = self.index();
        let order = |held: &Held, tag: &String| held.record.tags.get(tag).copied();
        let mut lost: Vec<(Digest, String)> = Vec::new();
        let tags: Vec<String> = held.tags().cloned().collect();
        for tag in tags {
            let rival = index.names.get(&tag).and_then(|id| index.images.get(id));
            let Some(rival) = rival else { continue };
            if order(rival, &tag) > order(&held, &tag) {
                held.record.tags.remove(&tag);
            } else {
                lost.push((rival.id().clone(), tag));
            }
        }
        for (id, tag) in lost {
            if let Some(mut rival) = index.images.get(&id).cloned() {
                rival.record.tags.remove(&tag);
                index.insert(rival);
            }
        }
        index.insert(held);
    }

    /// What images name was synced before they were written. Of the rest a power
    /// cut may have left holes, so in another boot it goes.
    fn after_boot(&self) -> Result<(), Error> {
        {
            let mut index = self.index();
            for entry in index.content.values_mut() {
                entry.synced = entry.orphan_since.is_none();
            }
        }
        let boot_id = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
        let path = self.layout.boot();
        if std::fs::read_to_string(&path).is_ok_and(|before| before == boot_id) {
            self.sweep_partials(self.config.partial_keep);
            return Ok(());
        }
        self.collect_older(Duration::ZERO);
        self.sweep_partials(Duration::ZERO);
        std::fs::write(&path, boot_id).map_err(failed("write", &path))
    }

    fn discard(&self, path: &Path, error: &io::Error) {
        tracing::warn!(path = %path.display(), %error, "unusable, discarded");
        match self.layout.trash(path) {
            Ok(trash) => drop(trash),
            Err(error) => tracing::warn!(%error, "cannot discard"),
        }
    }
}

/// Kept, under a name that is no record's, for whoever wants to know.
fn quarantine(path: &Path, why: &str) {
    tracing::warn!(path = %path.display(), why, "unusable image record, set aside");
    let aside = path.with_extension("json.bad");
    if let Err(error) = std::fs::rename(path, &aside) {
        tracing::warn!(path = %path.display(), %error, "cannot set aside");
    }
}

fn take_lock(path: &Path) -> Result<OwnedFd, Error> {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed("open", path))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| {
        let what = format!(
            "lock image store {}: another process uses it",
            path.display()
        );
        Error::Io {
            what,
            source: errno.into(),
        }
    })?;
    Ok(file.into())
}

fn entries(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let read = || -> io::Result<Vec<PathBuf>> {
        std::fs::read_dir(path)?
            .map(|entry| Ok(entry?.path()))
            .collect()
    };
    read().map_err(failed("list", path))
}

fn digest_of(algorithm: &str, path: &Path) -> Option<Digest> {
    let name = path.file_name()?.to_str()?;
    Digest::parse(&format!("{algorithm}:{name}")).ok()
}
