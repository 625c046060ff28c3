//! Network devices.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use rustix::io::Errno;

use super::Socket;

/// The kernel's name of the kind.
pub(crate) const BRIDGE: &str = "bridge";
const LOOPBACK_INDEX: u32 = 1;
/// A group of devices that no one else uses: "carpel" on a telephone.
const LEAVING: u32 = 227_735;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) up: bool,
    pub(crate) mtu: u32,
    /// The bridge it is a port of.
    pub(crate) controller: Option<u32>,
    pub(crate) kind: Option<String>,
}

/// Two ends of one cable: the host's on the bridge, the pod's in its namespace.
#[derive(Debug)]
pub(crate) struct VethPair<'a> {
    pub(crate) host_name: &'a str,
    pub(crate) bridge: u32,
    pub(crate) pod_name: &'a str,
    pub(crate) pod_netns: BorrowedFd<'a>,
    pub(crate) pod_mac: [u8; 6],
    pub(crate) mtu: u32,
}

impl Socket {
    pub(crate) fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        match self.get(RouteNetlinkMessage::GetLink(named(name))) {
            Ok(RouteNetlinkMessage::NewLink(message)) => Ok(Some(Link::from(message))),
            Ok(_) => Err(io::Error::other(
                "the kernel answered with something else than a link",
            )),
            Err(error) if is(&error, Errno::NODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn links(&mut self) -> io::Result<Vec<Link>> {
        let answers = self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        let links = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Some(Link::from(message)),
            _ => None,
        });
        Ok(links.collect())
    }

    pub(crate) fn add_bridge(&mut self, name: &str, mac: [u8; 6], mtu: u32) -> io::Result<()> {
        let mut message = named(name);
        message.attributes.extend([
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ]);
        self.change(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Makes both ends at once, the pod's already in its namespace.
    pub(crate) fn add_veth(&mut self, pair: &VethPair<'_>) -> io::Result<()> {
        let mut peer = named(pair.pod_name);
        peer.attributes.extend([
            LinkAttribute::Mtu(pair.mtu),
            LinkAttribute::Address(pair.pod_mac.to_vec()),
            LinkAttribute::NetNsFd(pair.pod_netns.as_raw_fd()),
        ]);
        let mut message = named(pair.host_name);
        message.attributes.extend([
            LinkAttribute::Mtu(pair.mtu),
            LinkAttribute::Controller(pair.bridge),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ]);
        self.change(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Sets up a port of a bridge; `alias` tells people what it belongs to.
    pub(crate) fn set_port_up(&mut self, name: &str, alias: &str, hairpin: bool) -> io::Result<()> {
        let mut message = named(name);
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes.extend([
            LinkAttribute::IfAlias(alias.to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::PortKind(InfoPortKind::Bridge),
                LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(
                    hairpin,
                )])),
            ]),
        ]);
        self.change(RouteNetlinkMessage::NewLink(message), 0)
    }

    pub(crate) fn set_up(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.change(RouteNetlinkMessage::NewLink(message), 0)
    }

    pub(crate) fn set_mtu(&mut self, index: u32, mtu: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.change(RouteNetlinkMessage::NewLink(message), 0)
    }

    pub(crate) fn set_loopback_up(&mut self) -> io::Result<()> {
        self.set_up(LOOPBACK_INDEX)
    }

    /// Having none is fine.
    pub(crate) fn delete_link(&mut self, name: &str) -> io::Result<()> {
        self.delete(named(name))
    }

    /// Marks a device for `delete_leaving`. False when there is none.
    pub(crate) fn mark_leaving(&mut self, name: &str) -> io::Result<bool> {
        let mut message = named(name);
        message.attributes.push(LinkAttribute::Group(LEAVING));
        match self.change(RouteNetlinkMessage::NewLink(message), 0) {
            Ok(()) => Ok(true),
            Err(error) if is(&error, Errno::NODEV) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes all marked devices, in the time that the kernel takes for one.
    pub(crate) fn delete_leaving(&mut self) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::Group(LEAVING));
        self.delete(message)
    }

    fn delete(&mut self, message: LinkMessage) -> io::Result<()> {
        match self.change(RouteNetlinkMessage::DelLink(message), 0) {
            Err(error) if is(&error, Errno::NODEV) => Ok(()),
            other => other,
        }
    }
}

pub(super) fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    message
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            up: message.header.flags.contains(LinkFlags::Up),
            mtu: 0,
            controller: None,
            kind: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Controller(index) => link.controller = Some(index),
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.into_iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        link
    }
}
