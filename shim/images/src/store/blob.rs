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
        let size = temp
            .path()
            .metadata()
            .map_err(failed("look at", temp.path()))?
            .len();
        let mut index = self.index();
        temp.rename(&self.layout.blob(digest))?;
        step("a blob is in its place");
        let content = Content::Blob(digest.clone());
        if !index.has(&content) {
            index.add(
                content,
                LayerUsage {
                    bytes: size,
                    inodes: 1,
                },
                false,
            );
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

/// A blob on its way in: read by the unpacker, written to disk in passing.
pub(super) struct Feed {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    tee: File,
    ended: bool,
}

impl Feed {
    pub(super) fn new(pieces: mpsc::Receiver<Piece>, tee: File) -> Self {
        Self {
            pieces,
            current: Bytes::new(),
            tee,
            ended: false,
        }
    }

    /// Takes what the unpacker left, up to the verified end.
    pub(super) fn drain(&mut self) -> Result<(), Fault> {
        io::copy(self, &mut io::sink()).map_err(|e| Fault::read("layer", e))?;
        Ok(())
    }
}

impl Read for Feed {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => {
                    self.tee
                        .write_all(&bytes)
                        .map_err(|e| Fault::io("write blob", e).into_io())?;
                    self.current = bytes;
                }
                Some(Piece::End) => self.ended = true,
                None => return Err(Fault::corrupt("the rest of the layer never came").into_io()),
            }
        }
        let n = self.current.len().min(buf.len());
        self.current.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
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

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
