//! Blobs: content by its digest, as it came.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, Bytes};
use carpel_failpoint::step;
use tokio::sync::mpsc;

use crate::engine::{Error, LayerUsage};
use crate::reference::Digest;
use crate::unpack::Fault;

use super::engine::Inner;
use super::index::Content;
use super::layout::{Temp, failed, read_bounded};

/// Longest document (manifest, configuration) kept as a blob.
pub(crate) const DOCUMENT_MAX: u64 = 16 << 20;

impl Inner {
    pub(crate) fn has_blob(&self, digest: &Digest) -> bool {
        self.index().has(&Content::Blob(digest.clone()))
    }

    /// Puts a finished file in its place. Its content was verified.
    pub(crate) fn add_blob(&self, digest: &Digest, temp: Temp) -> Result<(), Error> {
        let path = temp.path();
        let file = File::open(path).map_err(failed("open", path))?;
        let size = file.metadata().map_err(failed("look at", path))?.len();
        let content = Content::Blob(digest.clone());
        if self.index().has(&content) {
            // An image on disk may count on the one that this takes the place of.
            self.layout.sync_file(&file, path)?;
        }
        let mut index = self.index();
        temp.rename(&self.layout.blob(digest))?;
        step("a blob is in its place");
        if !index.has(&content) {
            let usage = LayerUsage {
                bytes: size,
                inodes: 1,
            };
            index.add(content, usage, false, None);
        }
        Ok(())
    }

    /// Stores a document whose digest is known to be right.
    pub(crate) fn add_document(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        if self.has_blob(digest) {
            return Ok(());
        }
        let (temp, mut file) = self.layout.temp_file("blob")?;
        file.write_all(bytes)
            .map_err(failed("write", temp.path()))?;
        self.add_blob(digest, temp)
    }

    pub(super) fn discard_blob(&self, digest: &Digest) -> Result<(), Error> {
        let mut index = self.index();
        index.content.remove(&Content::Blob(digest.clone()));
        self.layout.trash(&self.layout.blob(digest)).map(drop)
    }

    pub(crate) fn read_document(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let path = self.layout.blob(digest);
        read_bounded(&path, DOCUMENT_MAX).map_err(failed("read", &path))
    }
}

/// What the fetching side hands to the unpacking side.
pub(super) enum Piece {
    Bytes(Bytes),
    /// All has come, and its digest is right.
    End,
}

/// A blob on its way in: read by the unpacker, first what is on disk already, then
/// what comes, which is written behind that in passing.
pub(super) struct Feed {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    file: File,
    /// Bytes that the file has and nobody has read.
    stored: u64,
    ended: bool,
}

impl Feed {
    pub(super) fn new(pieces: mpsc::Receiver<Piece>, file: File, stored: u64) -> Self {
        Self {
            pieces,
            current: Bytes::new(),
            file,
            stored,
            ended: false,
        }
    }

    fn read_stored(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.pieces.is_closed() && self.pieces.is_empty() {
            return Err(never_came());
        }
        let most = usize::try_from(self.stored).map_or(buf.len(), |stored| stored.min(buf.len()));
        let n = self.file.read(&mut buf[..most])?;
        if n == 0 && most > 0 {
            return Err(Fault::corrupt("what was kept of the layer got shorter").into_io());
        }
        self.stored -= n as u64;
        Ok(n)
    }

    /// Takes what the unpacker left, up to the verified end.
    pub(super) fn drain(&mut self) -> Result<(), Fault> {
        io::copy(self, &mut io::sink()).map_err(|e| Fault::read("layer", e))?;
        Ok(())
    }
}

impl Read for Feed {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.stored > 0 {
            return self.read_stored(buf);
        }
        while self.current.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => {
                    self.file
                        .write_all(&bytes)
                        .map_err(|e| Fault::io("write blob", e).into_io())?;
                    self.current = bytes;
                }
                Some(Piece::End) => self.ended = true,
                None => return Err(never_came()),
            }
        }
        let n = self.current.len().min(buf.len());
        self.current.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}

fn never_came() -> io::Error {
    Fault::corrupt("the rest of the layer never came").into_io()
}

/// A source that ends when nobody waits for what comes of it any more.
pub(crate) struct Until<R> {
    inner: R,
    cancelled: Arc<AtomicBool>,
}

impl<R: Read> Until<R> {
    pub(crate) fn new(inner: R, cancel: &Cancel) -> Self {
        let cancelled = Arc::clone(&cancel.0);
        Self { inner, cancelled }
    }
}

impl<R: Read> Read for Until<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Fault::corrupt("cancelled").into_io());
        }
        self.inner.read(buf)
    }
}

/// Ends every [`Until`] made of it when dropped, with the future that holds it.
#[derive(Debug, Default)]
pub(crate) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub(super) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
