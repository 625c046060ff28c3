//! The control socket, for async use.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net;
use std::path::Path;

use carpel_proto::holder::MAX_PACKET;
use carpel_sys::seqpacket;
use rustix::fs::{Mode, OFlags};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// tokio knows streams, not packets: it waits, and the packets are ours.
#[derive(Debug)]
pub(super) struct Socket(UnixStream);

impl Socket {
    /// Connects to `name` in `dir`, however deep that is: the path of a unix
    /// socket is short, so it leads over the directory's descriptor.
    pub(super) fn connect(dir: &Path, name: &str) -> io::Result<Self> {
        let place = rustix::fs::open(dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let path = format!("/proc/self/fd/{}/{name}", place.as_raw_fd());
        let socket = net::UnixStream::from(seqpacket::connect(path)?);
        socket.set_nonblocking(true)?;
        Ok(Self(UnixStream::from_std(socket)?))
    }

    pub(super) async fn send(&self, packet: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let send = || seqpacket::send(&self.0, packet, &borrowed);
        self.0.async_io(Interest::WRITABLE, send).await
    }

    /// One packet; an empty one is the end of the connection.
    pub(super) async fn receive(&self) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let mut buffer = vec![0; MAX_PACKET];
        let receive = || seqpacket::receive(&self.0, &mut buffer);
        let packet = self.0.async_io(Interest::READABLE, receive).await?;
        if packet.truncated {
            let why = "a packet of the holder is over the limit";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        buffer.truncate(packet.len);
        Ok((buffer, packet.fds))
    }
}
