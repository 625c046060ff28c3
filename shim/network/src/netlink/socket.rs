//! A blocking rtnetlink socket: one request, its answer.

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket as Raw, SocketAddr};
use rustix::net::sockopt;

/// The kernel answers within the call, so this only bounds a lost answer.
const ANSWER: Duration = Duration::from_secs(10);
/// As large as the kernel ever makes a part of a dump.
const BUFFER: usize = 64 * 1024;
/// Of datagrams for one request.
const MAX_PARTS: usize = 100_000;

/// Speaks to the network namespace in which it was opened, from any thread.
pub(crate) struct Socket {
    raw: Raw,
    sequence: u32,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket")
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self {
            raw: open(NETLINK_ROUTE)?,
            sequence: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// Sends a change and waits until it is made.
    pub(super) fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags)
            .map(drop)
    }

    /// Asks for one object; the answer is the object or an error.
    pub(super) fn get(&mut self, message: RouteNetlinkMessage) -> io::Result<RouteNetlinkMessage> {
        let mut answers = self.exchange(message, NLM_F_REQUEST)?;
        answers
            .pop()
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
    }

    pub(super) fn dump(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_DUMP)
    }

    fn exchange(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.raw.send(&bytes, 0)?;
        self.answers(flags)
    }

    fn answers(&mut self, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        let single = flags & (NLM_F_ACK | NLM_F_DUMP) == 0;
        let mut found = Vec::new();
        for _ in 0..MAX_PARTS {
            let length = receive(&self.raw, &mut self.buffer)?;
            let mut rest = &self.buffer[..length];
            while let Some((bytes, after)) = next_message(rest) {
                rest = after;
                // A dump may hold what the parser does not know: that one is passed over.
                let message = match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
                    Ok(message) => message,
                    Err(_) if flags & NLM_F_DUMP == NLM_F_DUMP => continue,
                    Err(error) => return Err(io::Error::other(error.to_string())),
                };
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::InnerMessage(inner) => {
                        found.push(inner);
                        if single {
                            return Ok(found);
                        }
                    }
                    _ => {}
                }
            }
        }
        Err(io::Error::other("netlink answer without an end"))
    }
}

/// A connected netlink socket with a bound on how long an answer may take.
pub(super) fn open(protocol: isize) -> io::Result<Raw> {
    let mut raw = Raw::new(protocol)?;
    raw.bind_auto()?;
    raw.connect(&SocketAddr::new(0, 0))?;
    sockopt::set_socket_timeout(&raw, sockopt::Timeout::Recv, Some(ANSWER))?;
    Ok(raw)
}

pub(super) fn receive(raw: &Raw, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut space = &mut *buffer;
        match raw.recv(&mut space, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "no answer from the kernel",
                ));
            }
            other => return other,
        }
    }
}

/// Splits the first message off a datagram.
pub(super) fn next_message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length >= 16)?;
    let message = bytes.get(..length)?;
    Some((
        message,
        bytes.get(length.next_multiple_of(4)..).unwrap_or_default(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_splits_into_its_messages() {
        let mut datagram = Vec::new();
        for length in [18_u32, 16] {
            let mut message = vec![0; length.next_multiple_of(4) as usize];
            message[..4].copy_from_slice(&length.to_ne_bytes());
            datagram.extend(message);
        }
        let (first, rest) = next_message(&datagram).unwrap();
        assert_eq!((first.len(), rest.len()), (18, 16));
        let (second, rest) = next_message(rest).unwrap();
        assert_eq!((second.len(), rest.len()), (16, 0));
        assert!(next_message(rest).is_none());
        assert!(
            next_message(&[3, 0, 0, 0]).is_none(),
            "a length below a header's"
        );
        assert!(next_message(&[200, 0, 0, 0, 0]).is_none(), "cut off");
    }
}
