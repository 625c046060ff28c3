//! The bytes of a blob, through cut connections and sick mirrors.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures_util::stream;
use tokio::io::AsyncRead;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;
use tokio_util::io::StreamReader;

use super::failure::{Failure, Failures};
use super::manifest::Descriptor;
use super::retry;
use super::site::{BlobBody, Site};
use super::transport::Pace;
use super::verify::Verifier;
use crate::engine::{Error, LayerState, Progress};
use crate::reference::Reference;

/// A connection that brought this much before it broke was worth having: what
/// follows starts with all its attempts again.
const WORTHWHILE: u64 = 1024 * 1024;

/// A blob as it arrives. Its end is reported only when length and digest are right.
///
/// Dropping it, or a future of it, at any point loses nothing but the connection.
#[derive(Debug)]
pub struct LayerStream {
    layer: Descriptor,
    verifier: Verifier,
    sites: Vec<Arc<Site>>,
    /// Index of the site in use; past the end once all have failed.
    at: usize,
    body: Option<(BlobBody, Pace)>,
    /// Failures in a row at this site, and where the last one left off.
    failed: u32,
    failed_at: u64,
    failures: Failures,
    reference: Reference,
    progress: Arc<dyn Progress>,
    /// Whether bytes came from before this stream.
    inherited: bool,
    /// Sites whose bytes are among those that came, in order.
    givers: Vec<usize>,
    /// Given back at the end or on drop, whichever is first.
    slot: Option<OwnedSemaphorePermit>,
}

impl LayerStream {
    pub(super) fn new(
        layer: Descriptor,
        verifier: Verifier,
        sites: Vec<Arc<Site>>,
        reference: Reference,
        progress: Arc<dyn Progress>,
        slot: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            failed_at: verifier.bytes(),
            inherited: verifier.bytes() > 0,
            givers: Vec::new(),
            layer,
            verifier,
            sites,
            at: 0,
            body: None,
            failed: 0,
            failures: Failures::default(),
            reference,
            progress,
            slot: Some(slot),
        }
    }

    pub fn descriptor(&self) -> &Descriptor {
        &self.layer
    }

    /// Bytes of the blob that have come so far, those before a resumption included.
    pub fn position(&self) -> u64 {
        self.verifier.bytes()
    }

    /// Sees to it that there is a body to read from, unless all has come already.
    pub(super) async fn open(&mut self) -> Result<(), Error> {
        while self.body.is_none() && self.position() < self.layer.size {
            let Some(site) = self.sites.get(self.at).cloned() else {
                return Err(self.failures.to_error(&self.reference));
            };
            match site.blob(&self.layer, self.position()).await {
                Ok(body) => self.body = Some((body, Pace::new(site.transport().timeouts()))),
                Err(failure) => self.setback(&site, failure).await?,
            }
        }
        Ok(())
    }

    /// The next piece; `None` once the whole blob has come and its digest is right.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            self.open().await?;
            let Some((body, pace)) = &mut self.body else {
                return self.finish().map(|()| None);
            };
            match pace.next(&mut body.response).await {
                Ok(Some(mut chunk)) => {
                    let unwanted = body.skip.min(chunk.len() as u64);
                    body.skip -= unwanted;
                    // No more than the chunk's own length, so it fits.
                    chunk.advance(usize::try_from(unwanted).unwrap_or(usize::MAX));
                    if !chunk.is_empty() {
                        return self.accept(chunk).map(Some);
                    }
                }
                Ok(None) if self.position() == self.layer.size => self.body = None,
                Ok(None) => {
                    let (came, size) = (self.position(), self.layer.size);
                    self.broken(Failure::transient(format!(
                        "ended at byte {came} of {size}"
                    )))
                    .await?;
                }
                // All is here; how the connection ends is no matter.
                Err(_) if self.position() == self.layer.size => self.body = None,
                Err(failure) => self.broken(failure).await?,
            }
        }
    }

    fn accept(&mut self, chunk: Bytes) -> Result<Bytes, Error> {
        if chunk.len() as u64 > self.layer.size - self.position() {
            let size = self.layer.size;
            return Err(self.spoilt(&format!("is longer than its {size} bytes")));
        }
        self.verifier.update(&chunk);
        if self.givers.last() != Some(&self.at) {
            self.givers.push(self.at);
        }
        let state = LayerState::Fetching {
            current: self.position(),
            total: self.layer.size,
        };
        self.progress.layer(&self.layer.digest.to_string(), state);
        Ok(chunk)
    }

    fn finish(&mut self) -> Result<(), Error> {
        if self.slot.take().is_none() {
            return Ok(());
        }
        match self.verifier.check() {
            Ok(()) => Ok(()),
            Err(actual) => Err(self.spoilt(&format!("has digest {actual}"))),
        }
    }

    /// Content is wrong: whoever gave it is not believed again, and nothing can be
    /// saved. Where several gave parts of it, the last of them stays innocent until
    /// it gave all by itself.
    fn spoilt(&mut self, why: &str) -> Error {
        if self.givers.last() != Some(&self.at) {
            self.givers.push(self.at);
        }
        let shared = self.inherited || self.givers.len() > 1;
        let guilty = self.givers.len() - usize::from(shared);
        for site in self.givers.iter().take(guilty) {
            if let Some(site) = self.sites.get(*site) {
                site.set_suspect();
            }
        }
        let name = match self.sites.get(self.at) {
            Some(site) => site.name().to_owned(),
            None => self.reference.registry.clone(),
        };
        let failure = Failure::corrupt(format!("layer {} {why}", self.layer.digest));
        self.failures.push(&name, failure);
        self.at = self.sites.len();
        self.body = None;
        self.slot = None;
        self.failures.to_error(&self.reference)
    }

    async fn broken(&mut self, failure: Failure) -> Result<(), Error> {
        self.body = None;
        match self.sites.get(self.at).cloned() {
            Some(site) => self.setback(&site, failure).await,
            None => Err(self.failures.to_error(&self.reference)),
        }
    }

    /// Waits before another attempt at this site, or turns to the next.
    async fn setback(&mut self, site: &Site, failure: Failure) -> Result<(), Error> {
        if self.position() - self.failed_at >= WORTHWHILE {
            self.failed = 0;
        }
        self.failed_at = self.position();
        self.failed += 1;
        if let Some(pause) = retry::pause(site.policy(), &failure, self.failed, retry::jitter()) {
            let at = self.position();
            tracing::debug!(layer = %self.layer.digest, at, why = failure.why(), "layer retried");
            sleep(pause).await;
            return Ok(());
        }
        if !matches!(failure, Failure::Missing(_)) {
            site.set_suspect();
        }
        self.failures.push(site.name(), failure);
        self.failed = 0;
        self.at += 1;
        if self.at < self.sites.len() {
            return Ok(());
        }
        self.slot = None;
        Err(self.failures.to_error(&self.reference))
    }

    /// The same as a reader. Its errors carry an [`Error`]: see [`error_from_io`].
    pub fn into_reader(self) -> Pin<Box<dyn AsyncRead + Send>> {
        let chunks = stream::try_unfold(self, |mut layer: Self| async move {
            match layer.next_chunk().await {
                Ok(Some(chunk)) => Ok(Some((chunk, layer))),
                Ok(None) => Ok(None),
                Err(error) => Err(io::Error::other(error)),
            }
        });
        Box::pin(StreamReader::new(Box::pin(chunks)))
    }
}

/// The error that a reader of ours put into `error`, or what to make of another.
pub fn error_from_io(what: &str, error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(source) => Error::Io {
            what: what.to_owned(),
            source,
        },
    }
}
