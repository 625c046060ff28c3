//! What all pods share: the bridge with the gateways' addresses, forwarding, routes
//! to other nodes, the nftables table. Made when first needed, and again when it
//! has gone.

use ipnet::IpNet;

use super::addresses::{gateway, mac};
use super::driver::{Inner, lock};
use super::ruleset::Ruleset;
use super::sysctl;
use crate::driver::Error;
use crate::error::{collected, context, invalid};
use crate::netlink::{BRIDGE, Link};

const DEFAULT_MTU: u32 = 1500;
const FORWARD_V4: &str = "ipv4/ip_forward";
const FORWARD_V6: &str = "ipv6/conf/all/forwarding";

/// What was made, to see whether it still is what is wanted.
#[derive(Debug, Clone)]
pub(super) struct Base {
    pub(super) index: u32,
    pub(super) mtu: u32,
    cidrs: Vec<IpNet>,
    routed: bool,
}

impl Inner {
    /// Makes what is missing of the base.
    pub(super) fn ensure_base(&self) -> Result<Base, Error> {
        let mut base = lock(&self.base);
        let cidrs = lock(&self.state).pod_cidrs().to_vec();
        if cidrs.is_empty() {
            return Err(Error::NotReady("no pod CIDR yet".into()));
        }
        let link = self.bridge_link()?;
        if let (Some(made), Some(link)) = (base.as_ref(), link.as_ref())
            && made.index == link.index
            && made.cidrs == cidrs
            && made.routed
            && link.up
        {
            return Ok(made.clone());
        }
        let link = self.make_bridge(&cidrs, link.as_ref())?;
        self.allow_forwarding(&cidrs)?;
        *lock(&self.installed) = false;
        if self.config.masquerade {
            self.ensure_table()?;
        }
        let routed = self.make_routes(&cidrs);
        let made = Base {
            index: link.index,
            mtu: link.mtu,
            cidrs,
            routed,
        };
        *base = Some(made.clone());
        Ok(made)
    }

    pub(super) fn bridge_link(&self) -> Result<Option<Link>, Error> {
        let name = &self.config.bridge;
        self.netlink
            .socket()
            .link(name)
            .map_err(context(|| format!("look for bridge {name}")))
    }

    fn make_bridge(&self, cidrs: &[IpNet], found: Option<&Link>) -> Result<Link, Error> {
        let name = &self.config.bridge;
        if let Some(link) = found
            && link.kind.as_deref() != Some(BRIDGE)
        {
            return Err(invalid(name, "is a device, but not a bridge"));
        }
        if found.is_none() {
            let mtu = self.choose_mtu()?;
            let mac = cidrs
                .first()
                .map(|cidr| mac(&gateway(cidr).addr()))
                .unwrap_or_default();
            lock(&self.state).note_bridge()?;
            self.netlink
                .socket()
                .add_bridge(name, mac, mtu)
                .map_err(context(|| format!("create bridge {name}")))?;
        }
        let mut link = self
            .bridge_link()?
            .ok_or_else(|| invalid(name, "vanished"))?;
        let mut netlink = self.netlink.socket();
        if self.config.mtu != 0 && link.mtu != self.config.mtu {
            netlink
                .set_mtu(link.index, self.config.mtu)
                .map_err(context(|| format!("set the MTU of bridge {name}")))?;
            link.mtu = self.config.mtu;
        }
        for cidr in cidrs {
            let address = gateway(cidr);
            netlink
                .add_address(link.index, address)
                .map_err(context(|| format!("give {address} to bridge {name}")))?;
        }
        netlink
            .set_up(link.index)
            .map_err(context(|| format!("bring up bridge {name}")))?;
        Ok(link)
    }

    /// As large as packets can be on their way out of the host.
    fn choose_mtu(&self) -> Result<u32, Error> {
        if self.config.mtu != 0 {
            return Ok(self.config.mtu);
        }
        let mut netlink = self.netlink.socket();
        let what = || "look for the device with the default route";
        let Some(index) = netlink.default_route_link().map_err(context(what))? else {
            return Ok(DEFAULT_MTU);
        };
        let links = netlink.links().map_err(context(what))?;
        let mtu = links
            .iter()
            .find(|link| link.index == index)
            .map_or(DEFAULT_MTU, |l| l.mtu);
        // Some tunnels say a size that no veth takes.
        Ok(mtu.clamp(1280, 65_535))
    }

    fn allow_forwarding(&self, cidrs: &[IpNet]) -> Result<(), Error> {
        let bridge = &self.config.bridge;
        sysctl::set_if_there(&format!("ipv4/conf/{bridge}/send_redirects"), "0")?;
        if cidrs.iter().any(|cidr| cidr.addr().is_ipv4()) {
            self.change_setting(FORWARD_V4, "1")?;
            sysctl::set(&format!("ipv4/conf/{bridge}/forwarding"), "1")?;
        }
        if cidrs.iter().any(|cidr| cidr.addr().is_ipv6()) {
            self.change_setting(FORWARD_V6, "1")?;
            sysctl::set(&format!("ipv6/conf/{bridge}/forwarding"), "1")?;
        }
        Ok(())
    }

    /// Changes a setting of the whole host, to be put back by `destroy`.
    fn change_setting(&self, key: &str, value: &str) -> Result<(), Error> {
        let old = sysctl::get(key)?;
        if old == value {
            return Ok(());
        }
        lock(&self.state).note_setting(key, &old)?;
        sysctl::set(key, value)
    }

    /// Whether all routes are there. Pods of this node do without those to others:
    /// a route that cannot be made now is tried again with the next pod. All nodes
    /// may have the same list: what leads to our own pods is passed over.
    fn make_routes(&self, cidrs: &[IpNet]) -> bool {
        let mut all = true;
        let own = |dst: &IpNet| cidrs.iter().any(|cidr| cidr.contains(dst));
        for route in self.config.routes.iter().filter(|route| !own(&route.dst)) {
            if let Err(error) = self.netlink.socket().replace_route(route.dst, route.via) {
                tracing::warn!(dst = %route.dst, via = %route.via, %error, "no route to pods");
                all = false;
            }
        }
        all
    }

    /// Installs the table, unless that was done, with all pods' host ports.
    pub(super) fn ensure_table(&self) -> Result<(), Error> {
        let mut installed = lock(&self.installed);
        if *installed {
            return Ok(());
        }
        self.install_table(None)?;
        *installed = true;
        Ok(())
    }

    /// Renews the whole table by the records, all but one pod's.
    pub(super) fn install_table(&self, without: Option<&str>) -> Result<(), Error> {
        let batch = {
            let state = lock(&self.state);
            let pods = state
                .pods()
                .filter(|pod| Some(pod.pod_id.as_str()) != without);
            self.ruleset(state.networks()).install(pods)
        };
        self.nft.run(&batch)?;
        // Only now, for the table guards what this opens.
        let bridge = &self.config.bridge;
        sysctl::set_if_there(&format!("ipv4/conf/{bridge}/route_localnet"), "1")
    }

    pub(super) fn ruleset(&self, local: Vec<IpNet>) -> Ruleset<'_> {
        let elsewhere = self.config.routes.iter().map(|route| route.dst);
        Ruleset {
            table: &self.config.table,
            bridge: &self.config.bridge,
            masquerade: self.config.masquerade,
            local,
            known: elsewhere
                .chain(self.config.no_masquerade.iter().copied())
                .collect(),
        }
    }

    /// Undoes `ensure_base`, when no pod is left.
    pub(super) fn remove_base(&self) -> Result<(), Error> {
        let mut errors = Vec::new();
        let mut base = lock(&self.base);
        *base = None;
        *lock(&self.installed) = false;
        for route in &self.config.routes {
            let gone = self.netlink.socket().delete_route(route.dst, route.via);
            errors.extend(
                gone.map_err(context(|| format!("delete route {}", route.dst)))
                    .err(),
            );
        }
        let (settings, made_bridge) = {
            let state = lock(&self.state);
            (state.settings().to_vec(), state.made_bridge())
        };
        if made_bridge {
            let name = &self.config.bridge;
            let gone = self.netlink.socket().delete_link(name);
            errors.extend(
                gone.map_err(context(|| format!("delete bridge {name}")))
                    .err(),
            );
        }
        if self.nft.find().is_some() {
            let batch = self.ruleset(Vec::new()).destroy();
            errors.extend(self.nft.run(&batch).err());
        }
        for (key, old) in settings.iter().rev() {
            errors.extend(sysctl::set(key, old).err());
        }
        if errors.is_empty() {
            errors.extend(lock(&self.state).destroy().err());
        }
        collected(errors)
    }
}
