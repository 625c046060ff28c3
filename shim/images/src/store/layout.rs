//! Where things lie on disk, and how they get there.

use std::fmt::Display;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use carpel_failpoint::step;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::engine::Error;
use crate::reference::Digest;
use crate::unpack::Fault;

use super::delete;
use super::durable::Durability;

/// Longest record; a configuration with all it may hold fits.
const RECORD_MAX: u64 = 32 << 20;

/// An I/O error with what was done on which path; a full disk is exhaustion.
pub(crate) fn failed<E: Into<io::Error>>(
    what: impl Display,
    path: &Path,
) -> impl FnOnce(E) -> Error {
    move |source| Fault::io(format_args!("{what} {}", path.display()), source).of("store")
}

/// The paths of a store.
#[derive(Debug)]
pub(crate) struct Layout {
    root: PathBuf,
    /// Where containers write; the root itself unless told otherwise.
    containers: PathBuf,
    durability: Arc<dyn Durability>,
    /// Of this process, so that no two temporary names are the same.
    stamp: u128,
    next: AtomicU64,
}

impl Layout {
    /// Makes the directories. Only root gets in at the top; below, what a mapped
    /// root must be able to walk through is open for that.
    pub(crate) fn create(
        root: &Path,
        containers: Option<&Path>,
        durability: Arc<dyn Durability>,
    ) -> Result<Self, Error> {
        let stamp = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |age| age.as_nanos());
        let root = top(root)?;
        let containers = match containers {
            Some(path) => top(path)?,
            None => root.clone(),
        };
        let layout = Self {
            root,
            containers,
            durability,
            stamp,
            next: AtomicU64::new(0),
        };
        let shared = [layout.layers(), layout.rootfs_root()];
        let private = [
            layout.blobs("sha256"),
            layout.blobs("sha512"),
            layout.images(),
            layout.ingest(),
        ];
        for (paths, mode) in [(&shared[..], 0o711), (&private[..], 0o700)] {
            for path in paths {
                directory(path, mode)?;
            }
        }
        directory(&layout.tmp(), 0o711)?;
        directory(&layout.containers.join("tmp"), 0o711)?;
        directory(&layout.empty(), 0o755)?;
        Ok(layout)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// What is written in place, on the disk of the containers.
    pub(crate) fn containers(&self) -> &Path {
        &self.containers
    }

    pub(crate) fn durability(&self) -> &dyn Durability {
        &*self.durability
    }

    pub(crate) fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    /// A blob on its way in.
    pub(crate) fn partial(&self, digest: &Digest) -> PathBuf {
        let name = format!("{}-{}", digest.algorithm().name(), digest.hex());
        self.ingest().join(name)
    }

    pub(crate) fn blobs(&self, algorithm: &str) -> PathBuf {
        self.root.join("blobs").join(algorithm)
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs(digest.algorithm().name()).join(digest.hex())
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(crate) fn layer(&self, chain_id: &Digest) -> PathBuf {
        self.layers().join(chain_id.hex())
    }

    /// The directory that goes into overlays.
    pub(crate) fn layer_fs(&self, chain_id: &Digest) -> PathBuf {
        self.layer(chain_id).join("fs")
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(crate) fn image(&self, id: &Digest) -> PathBuf {
        self.images().join(format!("{}.json", id.hex()))
    }

    pub(crate) fn rootfs_root(&self) -> PathBuf {
        self.containers.join("rootfs")
    }

    /// `key` was checked to be one plain path component.
    pub(crate) fn rootfs(&self, key: &str) -> PathBuf {
        self.rootfs_root().join(key)
    }

    pub(crate) fn empty(&self) -> PathBuf {
        self.root.join("empty")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// The directories for what is in the making, each once.
    pub(crate) fn all_tmp(&self) -> Vec<PathBuf> {
        let mut all = vec![self.tmp()];
        if self.containers != self.root {
            all.push(self.containers.join("tmp"));
        }
        all
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(crate) fn boot(&self) -> PathBuf {
        self.root.join("boot")
    }

    fn fresh(&self, base: &Path, what: &str) -> PathBuf {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        base.join("tmp")
            .join(format!("{what}-{:x}-{n}", self.stamp))
    }

    /// Where something must be made that is to stand at `path`.
    fn base_of(&self, path: &Path) -> &Path {
        let theirs = ["rootfs", "tmp"].map(|name| self.containers.join(name));
        if theirs.iter().any(|part| path.starts_with(part)) {
            &self.containers
        } else {
            &self.root
        }
    }

    /// A directory that is gone again unless it gets renamed.
    pub(crate) fn temp_dir(&self, what: &str) -> Result<Temp, Error> {
        self.temp_dir_at(&self.root, what)
    }

    /// The same on the disk of the containers.
    pub(crate) fn temp_rootfs(&self) -> Result<Temp, Error> {
        self.temp_dir_at(&self.containers, "rootfs")
    }

    fn temp_dir_at(&self, base: &Path, what: &str) -> Result<Temp, Error> {
        let temp = Temp {
            path: self.fresh(base, what),
        };
        directory(&temp.path, 0o711)?;
        Ok(temp)
    }

    /// A file that is gone again unless it gets renamed.
    pub(crate) fn temp_file(&self, what: &str) -> Result<(Temp, File), Error> {
        self.temp_file_at(&self.root, what)
    }

    fn temp_file_at(&self, base: &Path, what: &str) -> Result<(Temp, File), Error> {
        let temp = Temp {
            path: self.fresh(base, what),
        };
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temp.path)
            .map_err(failed("make", &temp.path))?;
        Ok((temp, file))
    }

    /// Takes a file of the ingest area into what is in the making.
    pub(crate) fn adopt(&self, path: &Path) -> Result<Temp, Error> {
        let temp = Temp {
            path: self.fresh(&self.root, "blob"),
        };
        std::fs::rename(path, &temp.path).map_err(failed("take", path))?;
        Ok(temp)
    }

    /// Takes something out of its place at once; dropping what is returned deletes it.
    pub(crate) fn trash(&self, path: &Path) -> Result<Option<Temp>, Error> {
        let temp = Temp {
            path: self.fresh(self.base_of(path), "trash"),
        };
        match std::fs::rename(path, &temp.path) {
            Ok(()) => {
                step("something of the store is in the trash");
                Ok(Some(temp))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("remove", path)(error)),
        }
    }

    /// Writes a record so that there is always a whole one, the old or the new.
    pub(crate) fn write_record<T: Serialize>(
        &self,
        path: &Path,
        record: &T,
        durable: bool,
    ) -> Result<(), Error> {
        let json =
            serde_json::to_vec(record).map_err(|e| failed("write", path)(io::Error::other(e)))?;
        let (temp, mut file) = self.temp_file_at(self.base_of(path), "record")?;
        file.write_all(&json).map_err(failed("write", &temp.path))?;
        if durable {
            self.sync_file(&file, &temp.path)?;
        }
        step("a record of the store is written under another name");
        temp.rename(path)?;
        step("a record of the store is in its place");
        if durable {
            self.sync_parent(path)
        } else {
            Ok(())
        }
    }

    pub(crate) fn sync_file(&self, file: &File, path: &Path) -> Result<(), Error> {
        let synced = self.durability.file(file, path);
        synced.map_err(failed("sync", path))
    }

    pub(crate) fn sync_parent(&self, path: &Path) -> Result<(), Error> {
        let parent = path.parent().unwrap_or(path);
        let synced = self.durability.directory(parent);
        synced.map_err(failed("sync", parent))
    }
}

/// A directory that only root gets into.
fn top(path: &Path) -> Result<PathBuf, Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(path)
        .map_err(failed("make directory", path))?;
    let path = std::path::absolute(path).map_err(failed("find", path))?;
    set_mode(&path, 0o700)?;
    Ok(path)
}

/// Something in `tmp`, deleted when dropped.
#[derive(Debug)]
pub(crate) struct Temp {
    path: PathBuf,
}

impl Temp {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves it to its place.
    pub(crate) fn rename(mut self, to: &Path) -> Result<(), Error> {
        std::fs::rename(&self.path, to).map_err(failed("put in place", to))?;
        self.path = PathBuf::new();
        Ok(())
    }
}

impl Drop for Temp {
    /// Deleting may take long: not on a thread that others wait for.
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        if path.as_os_str().is_empty() {
            return;
        }
        if !path.is_dir() {
            delete_or_log(&path);
            return;
        }
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || delete_or_log(&path))),
            Err(_) => delete_or_log(&path),
        }
    }
}

pub(crate) fn delete_or_log(path: &Path) {
    if let Err(error) = delete::path(path) {
        tracing::warn!(path = %path.display(), %error, "cannot delete");
    }
}

/// Reads a record; `Err` says why it is none.
pub(crate) fn read_record<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let bytes = read_bounded(path, RECORD_MAX)?;
    serde_json::from_slice(&bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

pub(crate) fn read_bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "file is too large",
        ));
    }
    Ok(bytes)
}

pub(crate) fn directory(path: &Path, mode: u32) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .create(path)
        .map_err(failed("make directory", path))?;
    set_mode(path, mode)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(failed("set mode of", path))
}

/// Text that many hold.
pub(crate) fn shared_text(bytes: Vec<u8>) -> Result<Arc<str>, String> {
    String::from_utf8(bytes)
        .map(Arc::from)
        .map_err(|_| "is not UTF-8".to_owned())
}
