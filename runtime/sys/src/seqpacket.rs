//! Packets with descriptors over a unix socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// Most descriptors in one packet; the kernel's own limit is 253.
pub const MAX_FDS: usize = 250;

fn socket() -> io::Result<OwnedFd> {
    let family = AddressFamily::UNIX;
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(
        family,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

/// Makes a socket file and listens on it.
pub fn listen(path: impl AsRef<Path>, backlog: i32) -> io::Result<OwnedFd> {
    let socket = socket()?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path.as_ref())?)?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket)
}

/// Connects to a socket file.
pub fn connect(path: impl AsRef<Path>) -> io::Result<OwnedFd> {
    let socket = socket()?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path.as_ref())?)?;
    Ok(socket)
}

/// Takes a connection; the new socket does not block.
pub fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::accept_with(listener, flags)?)
}

/// The user id that the peer had when it connected.
pub fn peer_uid(socket: impl AsFd) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(socket)?.uid.as_raw())
}

/// Sends one packet, whole or not at all; a closed peer is an error, no signal.
pub fn send(socket: impl AsFd, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if fds.len() > MAX_FDS
        || (!fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)))
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{} descriptors in one packet, the limit is {MAX_FDS}",
                fds.len()
            ),
        ));
    }
    let data = [IoSlice::new(packet)];
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket.as_fd(), &data, &mut control, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// A packet as it came.
#[derive(Debug)]
pub struct Received {
    /// Length in the caller's buffer; 0 is the end of the connection.
    pub len: usize,
    pub fds: Vec<OwnedFd>,
    /// The buffer, or room for descriptors, was too small: the packet is spoilt.
    pub truncated: bool,
}

/// Takes one packet; all its descriptors are close-on-exec.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::io::retry_on_intr(|| {
        let mut data = [IoSliceMut::new(buffer)];
        rustix::net::recvmsg(
            socket.as_fd(),
            &mut data,
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    let spoilt = ReturnFlags::TRUNC | ReturnFlags::CTRUNC;
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    Ok(Received {
        len: message.bytes,
        fds,
        truncated: message.flags.intersects(spoilt),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;
    use std::path::PathBuf;

    fn pair(name: &str) -> (OwnedFd, OwnedFd) {
        let path = PathBuf::from(format!("/tmp/seqpacket-{name}-{}", std::process::id()));
        let listener = listen(&path, 1).unwrap();
        let client = connect(&path).unwrap();
        let server = accept(&listener).unwrap();
        std::fs::remove_file(path).unwrap();
        (client, server)
    }

    #[test]
    fn packets_keep_their_bounds_and_carry_descriptors() {
        let (client, server) = pair("bounds");
        let file = crate::memfd::sealed("x", b"inside").unwrap();
        send(&client, b"one", &[file.as_fd()]).unwrap();
        send(&client, b"three", &[]).unwrap();
        let mut buffer = [0; 16];
        let mut one = receive(&server, &mut buffer).unwrap();
        assert_eq!((&buffer[..one.len], one.fds.len()), (&b"one"[..], 1));
        let mut text = String::new();
        let fd = one.fds.pop().unwrap();
        let flags = rustix::io::fcntl_getfd(&fd).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        rustix::fs::seek(&fd, rustix::fs::SeekFrom::Start(0)).unwrap();
        File::from(fd).read_to_string(&mut text).unwrap();
        assert_eq!(text, "inside");
        assert_eq!(receive(&server, &mut buffer).unwrap().len, 5);
        drop(client);
        assert_eq!(receive(&server, &mut buffer).unwrap().len, 0);
    }

    #[test]
    fn a_packet_that_does_not_fit_is_told() {
        let (client, server) = pair("fit");
        send(&client, b"123456", &[]).unwrap();
        assert!(receive(&server, &mut [0; 3]).unwrap().truncated);
    }

    #[test]
    fn the_peer_is_known_and_its_end_is_an_error() {
        let (client, server) = pair("peer");
        assert_eq!(
            peer_uid(&server).unwrap(),
            rustix::process::geteuid().as_raw()
        );
        drop(server);
        let error = send(&client, b"x", &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn too_many_descriptors_are_refused() {
        let (client, _server) = pair("many");
        let fds = vec![client.as_fd(); MAX_FDS + 1];
        let error = send(&client, b"x", &fds).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
