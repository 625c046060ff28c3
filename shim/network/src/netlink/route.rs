//! Routes of the main table.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use super::Socket;
use super::link::is;

/// Marks the routes as ours; no routing daemon is known by this number.
const OURS: RouteProtocol = RouteProtocol::Other(0xca);

impl Socket {
    pub(crate) fn add_default_route(&mut self, link: u32, via: IpAddr) -> io::Result<()> {
        let mut message = route(everywhere(via), via);
        message.header.protocol = RouteProtocol::Boot;
        message.attributes.push(RouteAttribute::Oif(link));
        self.change(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    /// Sends traffic for `dst` to the node at `via`.
    pub(crate) fn replace_route(&mut self, dst: IpNet, via: IpAddr) -> io::Result<()> {
        let request = RouteNetlinkMessage::NewRoute(route(dst, via));
        self.change(request, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Removes a route that `replace_route` made, and no other.
    pub(crate) fn delete_route(&mut self, dst: IpNet, via: IpAddr) -> io::Result<()> {
        match self.change(RouteNetlinkMessage::DelRoute(route(dst, via)), 0) {
            Err(error) if is(&error, Errno::SRCH) => Ok(()),
            other => other,
        }
    }

    /// The device that leads out of this host.
    pub(crate) fn default_route_link(&mut self) -> io::Result<Option<u32>> {
        let mut query = RouteMessage::default();
        query.header.address_family = AddressFamily::Inet;
        let answers = self.dump(RouteNetlinkMessage::GetRoute(query))?;
        Ok(answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route)
                if route.header.destination_prefix_length == 0
                    && route.header.table == RouteHeader::RT_TABLE_MAIN =>
            {
                route
                    .attributes
                    .iter()
                    .find_map(|attribute| match attribute {
                        RouteAttribute::Oif(index) => Some(*index),
                        _ => None,
                    })
            }
            _ => None,
        }))
    }
}

fn route(dst: IpNet, via: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = match dst {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.header.destination_prefix_length = dst.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = OURS;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    if dst.prefix_len() > 0 {
        message
            .attributes
            .push(RouteAttribute::Destination(RouteAddress::from(
                dst.network(),
            )));
    }
    message
        .attributes
        .push(RouteAttribute::Gateway(RouteAddress::from(via)));
    message
}

fn everywhere(like: IpAddr) -> IpNet {
    match like {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
    }
}
