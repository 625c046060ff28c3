//! What of ours stands on the host, beside what the records say. Looks only.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use serde_json::Value;

use super::config::BridgeConfig;
use super::names;
use super::nft::Nft;
use super::store;
use crate::driver::Error;
use crate::error::context;
use crate::netlink::Socket;

/// A pod as its network record has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recorded {
    pub pod_id: String,
    pub host_interface: String,
    pub addresses: Vec<IpAddr>,
}

/// Devices, rules and records of this driver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    pub records: BTreeSet<Recorded>,
    /// Devices that bear a name of ours and are on our bridge or on none.
    pub links: BTreeSet<String>,
    /// Addresses that host ports lead to.
    pub targets: BTreeSet<IpAddr>,
}

impl Inventory {
    /// Looks at the calling thread's network namespace. A record counts that is
    /// there before or after the look: pods come and go meanwhile.
    pub fn take(config: &BridgeConfig) -> Result<Self, Error> {
        let mut records = records(&config.state_dir)?;
        let links = links(&config.bridge)?;
        let targets = targets(config)?;
        records.extend(self::records(&config.state_dir)?);
        Ok(Self {
            records,
            links,
            targets,
        })
    }

    /// Devices that no record names.
    pub fn stray_links(&self) -> impl Iterator<Item = &String> {
        let known = |link: &&String| self.records.iter().all(|r| r.host_interface != **link);
        self.links.iter().filter(known)
    }

    /// Addresses that rules lead to and no record has.
    pub fn stray_targets(&self) -> impl Iterator<Item = &IpAddr> {
        let known = |ip: &&IpAddr| self.records.iter().all(|r| !r.addresses.contains(ip));
        self.targets.iter().filter(known)
    }
}

fn records(state_dir: &Path) -> Result<BTreeSet<Recorded>, Error> {
    let pods = store::look(state_dir)?;
    Ok(pods
        .into_iter()
        .map(|pod| Recorded {
            addresses: pod.ips().collect(),
            host_interface: pod.host_interface,
            pod_id: pod.pod_id,
        })
        .collect())
}

fn links(bridge: &str) -> Result<BTreeSet<String>, Error> {
    let all = Socket::open()
        .and_then(|mut socket| socket.links())
        .map_err(context(|| "list devices"))?;
    let bridge = all.iter().find(|link| link.name == bridge);
    let bridge = bridge.map(|link| link.index);
    Ok(all
        .iter()
        .filter(|link| link.name.starts_with(names::PREFIX))
        .filter(|link| link.controller.is_none() || link.controller == bridge)
        .map(|link| link.name.clone())
        .collect())
}

fn targets(config: &BridgeConfig) -> Result<BTreeSet<IpAddr>, Error> {
    let nft = Nft::new(config.nft.clone(), config.state_dir.clone());
    if nft.find().is_none() {
        return Ok(BTreeSet::new());
    }
    let mut found = BTreeSet::new();
    for set in ["targets4", "targets6"] {
        if let Some(listed) = nft.list_set(&config.table, set)? {
            found.extend(addresses(&listed));
        }
    }
    Ok(found)
}

/// The addresses among the elements of a set, as `nft -j` prints it.
fn addresses(listed: &str) -> BTreeSet<IpAddr> {
    let value: Value = serde_json::from_str(listed).unwrap_or_default();
    let objects = value["nftables"].as_array().into_iter().flatten();
    let elements = objects.filter_map(|object| object["set"]["elem"].as_array());
    elements
        .flatten()
        .filter_map(|element| element["concat"][0].as_str()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(id: &str, ip: &str) -> Recorded {
        Recorded {
            pod_id: id.into(),
            host_interface: format!("cpl{id}"),
            addresses: vec![ip.parse().unwrap()],
        }
    }

    #[test]
    fn what_no_record_names_is_stray() {
        let inventory = Inventory {
            records: [recorded("a", "10.0.0.2")].into(),
            links: ["cpla".to_owned(), "cplb".to_owned()].into(),
            targets: ["10.0.0.2", "10.0.0.3"]
                .map(|ip| ip.parse().unwrap())
                .into(),
        };
        assert_eq!(inventory.stray_links().collect::<Vec<_>>(), ["cplb"]);
        let stray: Vec<_> = inventory.stray_targets().map(IpAddr::to_string).collect();
        assert_eq!(stray, ["10.0.0.3"]);
    }

    #[test]
    fn addresses_are_read_from_what_nft_prints() {
        let listed = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"set": {"family": "inet", "name": "targets6", "table": "t",
             "elem": [{"concat": ["fd00::2", "tcp", 80]}, {"concat": ["fd00::3", "udp", 53]}]}}]}"#;
        let found: Vec<_> = addresses(listed).iter().map(IpAddr::to_string).collect();
        assert_eq!(found, ["fd00::2", "fd00::3"]);
        assert!(addresses("{\"nftables\": [{\"set\": {\"name\": \"x\"}}]}").is_empty());
        assert!(addresses("no json").is_empty());
    }
}
