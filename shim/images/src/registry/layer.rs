use std::pin::Pin;

use bytes::Bytes;
use tokio::io::AsyncRead;

use super::Descriptor;
use crate::engine::Error;

/// The bytes of a blob.
#[derive(Debug)]
pub struct LayerStream {
    pub(super) descriptor: Descriptor,
}

impl LayerStream {
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The next piece; `None` once the whole blob has come and its digest is right.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        Ok(None)
    }

    /// The same as a reader. Its errors carry an [`Error`], see [`Error::from_io`].
    pub fn into_reader(self) -> Pin<Box<dyn AsyncRead + Send>> {
        Box::pin(tokio::io::empty())
    }
}
