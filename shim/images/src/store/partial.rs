//! Blobs on their way in. What has come of one is kept, by its digest, until the rest
//! has: a pull that was cut, cancelled or killed goes on there.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use crate::engine::{Error, LayerUsage};
use crate::reference::Digest;
use crate::registry::Verifier;

use super::engine::Inner;
use super::layout::failed;
use super::record::LayerOfImage;

const BUFFER: usize = 256 << 10;
/// A thread that nobody listens to any more ends within this time.
const WRITERS_END: Duration = Duration::from_secs(5);

/// The beginning of a blob. Whoever has it holds the lock of its digest.
#[derive(Debug)]
pub(super) struct Partial {
    path: PathBuf,
    /// Read to the end of what is there, and then written on.
    pub(super) file: File,
    /// Has hashed what is there.
    pub(super) seen: Verifier,
}

impl Partial {
    pub(super) fn into_parts(self) -> (PathBuf, File, Verifier) {
        (self.path, self.file, self.seen)
    }
}

impl Inner {
    /// Opens what is there of a layer, or begins with nothing. Reads it all to hash it.
    pub(super) fn open_partial(
        &self,
        layer: &LayerOfImage,
        cancelled: &AtomicBool,
    ) -> Result<Partial, Error> {
        let path = self.layout.partial(&layer.digest);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open", &path))?;
        let length = file.metadata().map_err(failed("look at", &path))?.len();
        let mut seen = Verifier::new(&layer.digest);
        if length > layer.size {
            file.set_len(0).map_err(failed("empty", &path))?;
            return Ok(Partial { path, file, seen });
        }
        hash(&mut file, &mut seen, cancelled).map_err(failed("read", &path))?;
        let start = file.seek(SeekFrom::Start(0));
        start.map_err(failed("rewind", &path))?;
        Ok(Partial { path, file, seen })
    }

    /// Deletes what has come of a blob. Its lock is held.
    pub(super) fn drop_partial(&self, digest: &Digest) {
        remove(&self.layout.partial(digest));
    }

    /// The same when nothing has come.
    pub(super) fn drop_empty_partial(&self, digest: &Digest) {
        let path = self.layout.partial(digest);
        if path.metadata().is_ok_and(|file| file.len() == 0) {
            remove(&path);
        }
    }

    /// Gives back the room of blobs that did not fit. Their writers are ending; whoever
    /// holds a lock for longer is another pull, which goes on.
    pub(super) async fn abandon(self: Arc<Self>, digests: Vec<Digest>) {
        for digest in digests {
            let name = digest.to_string();
            let lock = tokio::time::timeout(WRITERS_END, self.blobs.lock(&name));
            if let Ok(_alone) = lock.await {
                self.drop_partial(&digest);
            }
        }
    }

    /// Deletes beginnings that nobody went on with for `keep`, or whose blob came by
    /// another way. Those that are being written are left alone.
    pub(super) fn sweep_partials(&self, keep: Duration) {
        for path in partials(&self.layout.ingest()) {
            let Some(digest) = digest_of(&path) else {
                remove(&path);
                continue;
            };
            let Some(_alone) = self.blobs.try_lock(&digest.to_string()) else {
                continue;
            };
            if self.has_blob(&digest) || age(&path) >= keep {
                remove(&path);
            }
        }
    }

    pub(super) fn partial_usage(&self) -> LayerUsage {
        let files = partials(&self.layout.ingest());
        let files = files.iter().filter_map(|path| path.metadata().ok());
        files.fold(LayerUsage::default(), |sum, file| LayerUsage {
            bytes: sum.bytes + file.len(),
            inodes: sum.inodes + 1,
        })
    }
}

fn hash(file: &mut File, seen: &mut Verifier, cancelled: &AtomicBool) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        if cancelled.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => seen.update(buffer.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn partials(ingest: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(ingest) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

fn digest_of(path: &Path) -> Option<Digest> {
    let (algorithm, hex) = path.file_name()?.to_str()?.split_once('-')?;
    Digest::parse(&format!("{algorithm}:{hex}")).ok()
}

/// Since it last grew. A clock that was set back must not keep it for ever.
fn age(path: &Path) -> Duration {
    let changed = path.metadata().and_then(|file| file.modified());
    match changed.map(|at| SystemTime::now().duration_since(at)) {
        Ok(Ok(age)) => age,
        Ok(Err(ahead)) => ahead.duration(),
        Err(_) => Duration::MAX,
    }
}

fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot delete a partial blob");
        }
        _ => {}
    }
}
