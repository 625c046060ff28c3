//! What the operator decides about the bridge.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};

use crate::driver::Error;
use crate::error::invalid;

/// Longest name of a device, `IFNAMSIZ` less its final zero.
pub(super) const MAX_LINK_NAME: usize = 15;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeConfig {
    /// Made when the first pod comes; one that is there already is used.
    pub bridge: String,
    /// At most one of IPv4 and one of IPv6; the first is the pods' primary address.
    /// Overridden by what the kubelet sets, until this is changed.
    pub pod_cidrs: Vec<IpNet>,
    /// 0: that of the device with the default route, else 1500.
    pub mtu: u32,
    /// Whether pods appear outside the pod networks under the node's address.
    pub masquerade: bool,
    /// Destinations beside the pod networks that see pods' own addresses.
    pub no_masquerade: Vec<IpNet>,
    /// Whether a pod may reach itself through a service's address.
    pub hairpin: bool,
    /// Belongs to this driver alone.
    pub state_dir: PathBuf,
    /// Our nftables table, of family `inet`.
    pub table: String,
    /// To the pods of other nodes.
    pub routes: Vec<StaticRoute>,
    /// A name is looked for in PATH and in the system's directories.
    pub nft: PathBuf,
}

/// Pods in `dst` are reached through the node at `via`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticRoute {
    pub dst: IpNet,
    pub via: IpAddr,
}

impl BridgeConfig {
    /// The defaults, with records below `state_dir`.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            bridge: "carpel0".into(),
            pod_cidrs: vec![IpNet::V4(Ipv4Net::new_assert(
                Ipv4Addr::new(10, 88, 0, 0),
                16,
            ))],
            mtu: 0,
            masquerade: true,
            no_masquerade: Vec::new(),
            hairpin: true,
            state_dir: state_dir.into(),
            table: "carpel".into(),
            routes: Vec::new(),
            nft: "nft".into(),
        }
    }

    /// Whether the driver can work with it.
    pub fn validate(&self) -> Result<(), Error> {
        check_name("bridge", &self.bridge)?;
        if self.bridge.len() > MAX_LINK_NAME {
            return Err(invalid(
                "bridge",
                format!("{} is longer than 15 letters", self.bridge),
            ));
        }
        check_name("nftables table", &self.table)?;
        check_cidrs(&self.pod_cidrs)?;
        if self.mtu != 0 && !(576..=65_535).contains(&self.mtu) {
            return Err(invalid(
                "mtu",
                format!("{} is not 0 or 576 to 65535", self.mtu),
            ));
        }
        for route in &self.routes {
            if route.dst.addr().is_ipv4() != route.via.is_ipv4() {
                let why = format!("{} and {} are of different families", route.dst, route.via);
                return Err(invalid("route", why));
            }
        }
        Ok(())
    }
}

/// Names end up in nftables batches and below `/proc/sys`: only plain words pass.
fn check_name(what: &str, name: &str) -> Result<(), Error> {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic());
    let plain = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if !starts || !plain {
        return Err(invalid(what, format!("{name:?} is not a plain name")));
    }
    Ok(())
}

/// One a family, with room for a pod.
pub(super) fn check_cidrs(cidrs: &[IpNet]) -> Result<(), Error> {
    for (i, cidr) in cidrs.iter().enumerate() {
        if cidr.prefix_len() > cidr.max_prefix_len() - 2 {
            return Err(invalid("pod CIDR", format!("{cidr} has no room for pods")));
        }
        if cidrs[..i]
            .iter()
            .any(|other| other.addr().is_ipv4() == cidr.addr().is_ipv4())
        {
            return Err(invalid(
                "pod CIDR",
                format!("{cidr} is the second of its family"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut BridgeConfig)) -> Result<(), Error> {
        let mut config = BridgeConfig::new("/nowhere");
        change(&mut config);
        config.validate()
    }

    #[test]
    fn the_defaults_are_valid() {
        with(|_| {}).unwrap();
    }

    #[test]
    fn names_that_could_break_out_of_a_batch_are_refused() {
        with(|c| c.bridge = "br\"; flush ruleset".into()).unwrap_err();
        with(|c| c.bridge = "../all".into()).unwrap_err();
        with(|c| c.bridge = "sixteen-letters0".into()).unwrap_err();
        with(|c| c.table = "t; drop".into()).unwrap_err();
        with(|c| c.table = String::new()).unwrap_err();
    }

    #[test]
    fn pod_cidrs_are_one_a_family_and_not_tiny() {
        let net = |s: &str| s.parse::<IpNet>().unwrap();
        with(|c| c.pod_cidrs = vec![net("10.1.0.0/24"), net("fd00::/64")]).unwrap();
        with(|c| c.pod_cidrs = vec![]).unwrap();
        with(|c| c.pod_cidrs = vec![net("10.1.0.0/24"), net("10.2.0.0/24")]).unwrap_err();
        with(|c| c.pod_cidrs = vec![net("10.1.0.0/31")]).unwrap_err();
        with(|c| c.pod_cidrs = vec![net("fd00::/127")]).unwrap_err();
    }

    #[test]
    fn mtu_and_routes_are_checked() {
        with(|c| c.mtu = 9000).unwrap();
        with(|c| c.mtu = 100).unwrap_err();
        let route = |dst: &str, via: &str| StaticRoute {
            dst: dst.parse().unwrap(),
            via: via.parse().unwrap(),
        };
        with(|c| c.routes = vec![route("10.2.0.0/24", "192.0.2.1")]).unwrap();
        with(|c| c.routes = vec![route("10.2.0.0/24", "fd00::1")]).unwrap_err();
    }
}
