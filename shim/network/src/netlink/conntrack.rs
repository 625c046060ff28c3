//! Forgets tracked connections that would go on to where a pod was, or was not yet.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::conntrack6;
use super::socket::{next_message, open, receive};

// <linux/netfilter/nfnetlink.h>, <linux/netfilter/nfnetlink_conntrack.h>
const DELETE: u16 = 1 << 8 | 2;
/// From this version on the family and the filter count in a deletion.
const VERSION: u8 = 1;
const NESTED: u16 = 1 << 15;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const FILTER: u16 = 25;
const FILTER_ORIG_FLAGS: u16 = 1;
const FILTER_REPLY_FLAGS: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_SRC: u16 = 1;
const IP_V6_SRC: u16 = 3;
const PROTO_NUM: u16 = 1;
const PROTO_DST_PORT: u16 = 3;
const MATCH_IP_SRC: u32 = 1 << 0;
const MATCH_PROTO_NUM: u32 = 1 << 3;
const MATCH_PROTO_DST_PORT: u32 = 1 << 5;

const FAMILY_INET: u8 = 2;
const FAMILY_INET6: u8 = 10;
const UDP: u8 = 17;
const NLMSG_ERROR: u16 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flows {
    /// That this address answers, whatever address the other side knows it by.
    AnsweredBy(IpAddr),
    /// UDP that was sent to this port, over IPv4 or IPv6.
    UdpTo { port: u16, v6: bool },
}

/// Needs a kernel that filters deletions; an older one refuses, and does nothing.
pub(crate) fn forget_flows(flows: Flows) -> io::Result<()> {
    if let Flows::AnsweredBy(IpAddr::V6(address)) = flows {
        return conntrack6::forget_answered_by(address);
    }
    let raw = open(NETLINK_NETFILTER)?;
    raw.send(&request(flows), 0)?;
    let mut buffer = vec![0; 8192];
    let length = receive(&raw, &mut buffer)?;
    let (message, _) = next_message(&buffer[..length])
        .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    let kind = u16::from_ne_bytes([message[4], message[5]]);
    match message
        .get(16..20)
        .map(|code| i32::from_ne_bytes([code[0], code[1], code[2], code[3]]))
    {
        Some(code) if kind == NLMSG_ERROR && code < 0 => Err(io::Error::from_raw_os_error(-code)),
        _ => Ok(()),
    }
}

fn request(flows: Flows) -> Vec<u8> {
    let (family, tuple, flags) = match flows {
        Flows::AnsweredBy(address) => {
            let (family, source) = match address {
                IpAddr::V4(v4) => (FAMILY_INET, attribute(IP_V4_SRC, &v4.octets())),
                IpAddr::V6(v6) => (FAMILY_INET6, attribute(IP_V6_SRC, &v6.octets())),
            };
            let tuple = nested(TUPLE_REPLY, &nested(TUPLE_IP, &source));
            (
                family,
                tuple,
                attribute(FILTER_REPLY_FLAGS, &MATCH_IP_SRC.to_ne_bytes()),
            )
        }
        Flows::UdpTo { port, v6 } => {
            let family = if v6 { FAMILY_INET6 } else { FAMILY_INET };
            let mut proto = attribute(PROTO_NUM, &[UDP]);
            proto.extend(attribute(PROTO_DST_PORT, &port.to_be_bytes()));
            let tuple = nested(TUPLE_ORIG, &nested(TUPLE_PROTO, &proto));
            let flags = MATCH_PROTO_NUM | MATCH_PROTO_DST_PORT;
            (
                family,
                tuple,
                attribute(FILTER_ORIG_FLAGS, &flags.to_ne_bytes()),
            )
        }
    };
    let mut body = vec![family, VERSION, 0, 0];
    body.extend(tuple);
    body.extend(nested(FILTER, &flags));

    let length = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(DELETE.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend(body);
    message
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nested(kind: u16, attributes: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_but_their_length_is_not() {
        assert_eq!(attribute(1, &[7]), [5, 0, 1, 0, 7, 0, 0, 0]);
        assert_eq!(nested(2, &[]), [4, 0, 2, 0x80]);
    }

    #[test]
    fn the_length_of_the_message_is_in_its_header() {
        for flows in [
            Flows::AnsweredBy("10.0.0.1".parse().unwrap()),
            Flows::AnsweredBy("fd00::1".parse().unwrap()),
            Flows::UdpTo {
                port: 53,
                v6: false,
            },
        ] {
            let message = request(flows);
            assert_eq!(next_message(&message).unwrap().0.len(), message.len());
        }
    }
}
