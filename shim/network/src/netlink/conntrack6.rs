//! Forgets tracked IPv6 flows one by one: asked to delete by address, as it does
//! for IPv4, the kernel (seen on 6.18) left these flows standing.

use std::io;
use std::net::Ipv6Addr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::Socket as Raw;
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::socket::{next_message, open, receive};

// <linux/netlink.h>, <linux/netfilter/nfnetlink.h>, <linux/netfilter/nfnetlink_conntrack.h>
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const FAMILY_INET6: u8 = 10;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const IP_V6_SRC: u16 = 3;
const KIND: u16 = 0x3fff;
/// Header of a netlink message, and of one of netfilter.
const HEAD: usize = 16;
const HEADS: usize = HEAD + 4;
const NOT_FOUND: i32 = -2;

const BUFFER: usize = 64 * 1024;
/// Of datagrams in a dump: more than a full table has.
const MAX_PARTS: usize = 100_000;

/// Flows that this address answers, whatever address the other side knows it by.
pub(super) fn forget_answered_by(address: Ipv6Addr) -> io::Result<()> {
    let raw = open(NETLINK_NETFILTER)?;
    for original in answered_by(&raw, address)? {
        delete(&raw, &original)?;
    }
    Ok(())
}

/// The original directions of such flows, as the kernel writes them.
fn answered_by(raw: &Raw, address: Ipv6Addr) -> io::Result<Vec<Vec<u8>>> {
    raw.send(&message(GET, NLM_F_REQUEST | NLM_F_DUMP, &[]), 0)?;
    let mut buffer = vec![0; BUFFER];
    let mut found = Vec::new();
    for _ in 0..MAX_PARTS {
        let length = receive(raw, &mut buffer)?;
        let mut rest = &buffer[..length];
        while let Some((message, after)) = next_message(rest) {
            rest = after;
            match kind(message) {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => return code(message).map(|()| found),
                _ => found.extend(original_if(message, address)),
            }
        }
    }
    Err(io::Error::other("a list of tracked flows without an end"))
}

fn original_if(message: &[u8], address: Ipv6Addr) -> Option<Vec<u8>> {
    let flow = message.get(HEADS..)?;
    let reply = attribute(attribute(flow, TUPLE_REPLY)?, TUPLE_IP)?;
    let source: [u8; 16] = attribute(reply, IP_V6_SRC)?.try_into().ok()?;
    (Ipv6Addr::from(source) == address).then_some(())?;
    attribute(flow, TUPLE_ORIG).map(<[u8]>::to_vec)
}

/// One that is gone already is as good.
fn delete(raw: &Raw, original: &[u8]) -> io::Result<()> {
    let length = u16::try_from(4 + original.len()).map_err(io::Error::other)?;
    let mut tuple = length.to_ne_bytes().to_vec();
    tuple.extend((TUPLE_ORIG | 1 << 15).to_ne_bytes());
    tuple.extend(original);
    tuple.resize(tuple.len().next_multiple_of(4), 0);
    raw.send(&message(DELETE, NLM_F_REQUEST | NLM_F_ACK, &tuple), 0)?;
    let mut buffer = vec![0; BUFFER];
    let length = receive(raw, &mut buffer)?;
    match next_message(&buffer[..length]) {
        Some((answer, _)) if kind(answer) == NLMSG_ERROR => code(answer),
        _ => Ok(()),
    }
}

fn message(kind: u16, flags: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADS + attributes.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend([FAMILY_INET6, 0, 0, 0]);
    message.extend(attributes);
    message
}

fn kind(message: &[u8]) -> u16 {
    u16::from_ne_bytes([message[4], message[5]])
}

/// Of an answer that is an error or a confirmation.
fn code(message: &[u8]) -> io::Result<()> {
    let code = message
        .get(HEAD..HEAD + 4)
        .and_then(|code| code.try_into().ok());
    match code.map(i32::from_ne_bytes) {
        None | Some(0 | NOT_FOUND) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
    }
}

/// What an attribute of this kind holds.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some(head) = bytes.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & KIND;
        let value = bytes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nest(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
    }

    #[test]
    fn a_flow_is_known_by_who_answers_it() {
        let pod: Ipv6Addr = "fd00::2".parse().unwrap();
        let reply = nest(
            TUPLE_REPLY | 1 << 15,
            &nest(TUPLE_IP | 1 << 15, &nest(IP_V6_SRC, &pod.octets())),
        );
        let original = nest(TUPLE_ORIG | 1 << 15, &[7; 8]);
        let flow = message(GET, 0, &[original, reply].concat());
        assert_eq!(original_if(&flow, pod), Some(vec![7; 8]));
        assert_eq!(original_if(&flow, "fd00::3".parse().unwrap()), None);
        for cut in 0..flow.len() {
            assert!(original_if(&flow[..cut], pod).is_none(), "{cut}");
        }
    }
}
