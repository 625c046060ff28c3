//! A unix stream whose reading side goes through the rewriter.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tonic::transport::server::{Connected, UdsConnectInfo};

use super::rewrite::Rewriter;

const CHUNK: usize = 16 << 10;

#[derive(Debug)]
pub(crate) struct LenientStream {
    inner: UnixStream,
    rewriter: Rewriter,
    /// Rewritten, and not read yet from `given` on.
    ready: Vec<u8>,
    given: usize,
}

impl LenientStream {
    pub(crate) fn new(inner: UnixStream) -> Self {
        Self {
            inner,
            rewriter: Rewriter::default(),
            ready: Vec::new(),
            given: 0,
        }
    }
}

impl AsyncRead for LenientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.given == this.ready.len() {
            this.ready.clear();
            this.given = 0;
            let mut chunk = [0; CHUNK];
            let mut taken = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.inner).poll_read(context, &mut taken))?;
            if taken.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.rewriter.push(taken.filled(), &mut this.ready);
        }
        let count = buffer.remaining().min(this.ready.len() - this.given);
        buffer.put_slice(&this.ready[this.given..this.given + count]);
        this.given += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LenientStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

impl Connected for LenientStream {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.inner.connect_info()
    }
}
