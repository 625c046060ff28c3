//! The daemon at the other end of the control socket.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use carpel_proto::holder::Packet;
use carpel_sys::seqpacket;
use prost::Message;
use rustix::event::{PollFd, PollFlags, Timespec};

/// Packets kept for a daemon that does not read; with more it is taken for dead.
const QUEUE: usize = 256;

/// A request, so that its reply reaches the connection that it came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) connection: u32,
    pub(crate) request: u64,
}

#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    /// Different for each connection.
    pub(crate) serial: u32,
    queue: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
}

impl Connection {
    pub(crate) fn new(socket: OwnedFd, serial: u32) -> Self {
        Self {
            socket,
            serial,
            queue: VecDeque::new(),
        }
    }

    /// Sends a packet, now or when there is room; an error ends the connection.
    pub(crate) fn send(&mut self, packet: &Packet, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        if self.queue.len() >= QUEUE {
            return Err(io::Error::other("the daemon does not read"));
        }
        let fd = fd.map(|fd| fd.try_clone_to_owned()).transpose()?;
        self.queue.push_back((packet.encode_to_vec(), fd));
        self.flush()
    }

    /// Sends what waits, as far as there is room.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while let Some((packet, fd)) = self.queue.front() {
            let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
            match seqpacket::send(&self.socket, packet, &fds) {
                Ok(()) => drop(self.queue.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if self.queue.is_empty() {
            // A burst leaves no memory behind.
            self.queue.shrink_to(0);
        }
        Ok(())
    }

    /// Whether packets wait for room.
    pub(crate) fn is_behind(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Gives the last packets a chance before the process ends.
    pub(crate) fn flush_within(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.flush().is_ok() && self.is_behind() {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut wanted = [PollFd::new(&self.socket, PollFlags::OUT)];
            if !rustix::event::poll(&mut wanted, Some(&left)).is_ok_and(|ready| ready > 0) {
                break;
            }
        }
    }

    /// Takes one packet; `None` if there is none yet.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<seqpacket::Received>> {
        match seqpacket::receive(&self.socket, buffer) {
            Ok(packet) => Ok(Some(packet)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
