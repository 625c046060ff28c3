//! What is written down about a pod before anything is made for it.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::driver::{Attachment, HostPort};

/// Of the pod's interface, inside.
pub(super) const POD_INTERFACE: &str = "eth0";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    /// Anything of it may or may not exist.
    Intended,
    Done,
}

/// An address of a pod with its prefix, and its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PodAddress {
    pub(super) address: IpNet,
    pub(super) gateway: IpAddr,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PodRecord {
    pub(super) pod_id: String,
    /// Namespace and name, for people.
    pub(super) pod: String,
    pub(super) phase: Phase,
    pub(super) boot_id: String,
    pub(super) host_interface: String,
    pub(super) addresses: Vec<PodAddress>,
    #[serde(default)]
    pub(super) host_ports: Vec<HostPort>,
}

impl PodRecord {
    pub(super) fn attachment(&self) -> Attachment {
        Attachment {
            addresses: self.ips().collect(),
            interface: POD_INTERFACE.into(),
            host_interface: self.host_interface.clone(),
        }
    }

    pub(super) fn ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().map(|address| address.address.addr())
    }

    pub(super) fn has(&self, ip: &IpAddr) -> bool {
        self.ips().any(|own| own == *ip)
    }
}
