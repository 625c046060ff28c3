//! Addresses of devices.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use super::Socket;
use super::link::is;

impl Socket {
    /// Gives the device an address with its prefix; having it already is fine.
    pub(crate) fn add_address(&mut self, link: u32, address: IpNet) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.index = link;
        message.header.prefix_len = address.prefix_len();
        match address {
            IpNet::V4(v4) => {
                message.header.family = AddressFamily::Inet;
                message.attributes.extend([
                    AddressAttribute::Local(IpAddr::V4(v4.addr())),
                    AddressAttribute::Address(IpAddr::V4(v4.addr())),
                    AddressAttribute::Broadcast(v4.broadcast()),
                ]);
            }
            IpNet::V6(v6) => {
                // We alone give these out, and a second of probing is a second lost.
                message.header.family = AddressFamily::Inet6;
                message.header.flags = AddressHeaderFlags::Nodad;
                message
                    .attributes
                    .push(AddressAttribute::Address(IpAddr::V6(v6.addr())));
            }
        }
        let request = RouteNetlinkMessage::NewAddress(message);
        match self.change(request, NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if is(&error, Errno::EXIST) => Ok(()),
            other => other,
        }
    }
}
