//! What the driver knows: the pods' records and the node's, in memory and on disk.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::addresses::{gateway, next_free, pods};
use super::config::{BridgeConfig, check_cidrs};
use super::record::{Phase, PodAddress, PodRecord};
use super::store::{NodeRecord, Store, boot_id};
use super::{names, ports};
use crate::driver::{Error, HostPort, Pool};
use crate::error::invalid;

/// Tries for a name of the host's end that nothing else has.
const MAX_NAMES: u32 = 16;

#[derive(Debug)]
pub(super) struct State {
    store: Store,
    node: NodeRecord,
    pods: BTreeMap<String, PodRecord>,
}

/// What a pod wants, before it has an address.
#[derive(Debug)]
pub(super) struct Wish<'a> {
    pub(super) pod_id: &'a str,
    pub(super) pod: &'a str,
    pub(super) host_ports: &'a [HostPort],
}

impl State {
    /// Reads the records. Those of an earlier boot tell of nothing that exists.
    pub(super) fn open(config: &BridgeConfig) -> Result<Self, Error> {
        let store = Store::open(&config.state_dir)?;
        let boot_id = boot_id()?;
        let mut node = store.node()?;
        if node.configured != config.pod_cidrs {
            node.configured.clone_from(&config.pod_cidrs);
            node.pod_cidrs.clone_from(&config.pod_cidrs);
        }
        if node.boot_id != boot_id {
            node.boot_id.clone_from(&boot_id);
            node.made_bridge = false;
            node.settings.clear();
        }
        store.write_node(&node)?;
        let mut pods = BTreeMap::new();
        for pod in store.pods()? {
            if pod.boot_id == boot_id {
                pods.insert(pod.pod_id.clone(), pod);
            } else {
                store.remove_pod(&pod.pod_id)?;
            }
        }
        Ok(Self { store, node, pods })
    }

    pub(super) fn pod(&self, pod_id: &str) -> Option<&PodRecord> {
        self.pods.get(pod_id)
    }

    pub(super) fn pods(&self) -> impl Iterator<Item = &PodRecord> {
        self.pods.values()
    }

    pub(super) fn pod_cidrs(&self) -> &[IpNet] {
        &self.node.pod_cidrs
    }

    /// How full the pod CIDRs are.
    pub(super) fn pools(&self) -> Vec<Pool> {
        let ips = || self.pods.values().flat_map(PodRecord::ips);
        let pool = |cidr: &IpNet| Pool {
            cidr: cidr.trunc(),
            used: ips().filter(|ip| cidr.contains(ip)).count() as u64,
            total: u64::try_from(pods(cidr)).unwrap_or(u64::MAX),
        };
        self.node.pod_cidrs.iter().map(pool).collect()
    }

    /// The networks in which pods have or will have their addresses: those of
    /// earlier pod CIDRs too, as long as a pod is in them.
    pub(super) fn networks(&self) -> Vec<IpNet> {
        let old = self
            .pods
            .values()
            .flat_map(|pod| &pod.addresses)
            .map(|a| a.address.trunc());
        let mut networks: Vec<_> = self
            .node
            .pod_cidrs
            .iter()
            .map(IpNet::trunc)
            .chain(old)
            .collect();
        networks.sort_unstable();
        networks.dedup();
        networks
    }

    /// Changes where new pods get their addresses. None are no change: a kubelet
    /// may not know them yet.
    pub(super) fn set_pod_cidrs(&mut self, cidrs: &[IpNet]) -> Result<(), Error> {
        check_cidrs(cidrs)?;
        if cidrs.is_empty() {
            return Ok(());
        }
        self.change_node(|node| node.pod_cidrs = cidrs.to_vec())
    }

    /// Notes that we are about to change a setting of the host from `old`.
    pub(super) fn note_setting(&mut self, key: &str, old: &str) -> Result<(), Error> {
        if self.node.settings.iter().any(|(known, _)| known == key) {
            return Ok(());
        }
        self.change_node(|node| node.settings.push((key.to_owned(), old.to_owned())))
    }

    pub(super) fn settings(&self) -> &[(String, String)] {
        &self.node.settings
    }

    /// Notes that we are about to make the bridge.
    pub(super) fn note_bridge(&mut self) -> Result<(), Error> {
        self.change_node(|node| node.made_bridge = true)
    }

    pub(super) fn made_bridge(&self) -> bool {
        self.node.made_bridge
    }

    /// Chooses addresses and a name for a pod, and writes down that it has them and
    /// its host ports. `name_taken` tells of devices; `port_free` of listeners.
    pub(super) fn reserve(
        &mut self,
        wish: &Wish<'_>,
        name_taken: impl FnMut(&str) -> Result<bool, Error>,
        port_free: impl Fn(&HostPort) -> Result<(), Error>,
    ) -> Result<PodRecord, Error> {
        let cidrs = &self.node.pod_cidrs;
        if cidrs.is_empty() {
            return Err(Error::NotReady("no pod CIDR yet".into()));
        }
        let has = |v4| cidrs.iter().any(|cidr| cidr.addr().is_ipv4() == v4);
        for port in wish.host_ports {
            ports::check_family(port, has(true), has(false))?;
        }
        ports::check_free(wish.host_ports, self.pods.values())?;
        wish.host_ports.iter().try_for_each(port_free)?;

        let record = PodRecord {
            pod_id: wish.pod_id.to_owned(),
            pod: wish.pod.to_owned(),
            phase: Phase::Intended,
            boot_id: self.node.boot_id.clone(),
            host_interface: self.free_name(wish.pod_id, name_taken)?,
            addresses: self.free_addresses()?,
            host_ports: wish.host_ports.to_vec(),
        };
        let last = record.ips().collect();
        self.change_node(|node| node.last = last)?;
        self.store.write_pod(&record)?;
        self.pods.insert(record.pod_id.clone(), record.clone());
        Ok(record)
    }

    /// Notes that everything of the pod is made.
    pub(super) fn done(&mut self, pod_id: &str) -> Result<(), Error> {
        let Some(record) = self.pods.get_mut(pod_id) else {
            return Ok(());
        };
        record.phase = Phase::Done;
        self.store.write_pod(record)
    }

    /// Forgets a pod of which nothing is left: its address is free again.
    pub(super) fn release(&mut self, pod_id: &str) -> Result<(), Error> {
        self.store.remove_pod(pod_id)?;
        self.pods.remove(pod_id);
        Ok(())
    }

    /// Removes the node's record and the directories.
    pub(super) fn destroy(&mut self) -> Result<(), Error> {
        self.node.settings.clear();
        self.node.made_bridge = false;
        self.store.destroy()
    }

    fn free_addresses(&self) -> Result<Vec<PodAddress>, Error> {
        let used = |ip: &IpAddr| self.pods.values().any(|pod| pod.has(ip));
        self.node
            .pod_cidrs
            .iter()
            .map(|cidr| {
                let last = self
                    .node
                    .last
                    .iter()
                    .find(|last| cidr.contains(*last))
                    .copied();
                let address = next_free(cidr, last, used)
                    .ok_or_else(|| Error::Exhausted(cidr.to_string()))?;
                Ok(PodAddress {
                    address,
                    gateway: gateway(cidr).addr(),
                })
            })
            .collect()
    }

    fn free_name(
        &self,
        pod_id: &str,
        mut taken: impl FnMut(&str) -> Result<bool, Error>,
    ) -> Result<String, Error> {
        for attempt in 0..MAX_NAMES {
            let name = names::host_interface(pod_id, attempt);
            if !self.pods.values().any(|pod| pod.host_interface == name) && !taken(&name)? {
                return Ok(name);
            }
        }
        Err(invalid(
            format!("pod {pod_id}"),
            "all names for its interface are taken",
        ))
    }

    fn change_node(&mut self, change: impl FnOnce(&mut NodeRecord)) -> Result<(), Error> {
        let mut node = self.node.clone();
        change(&mut node);
        if node != self.node {
            self.store.write_node(&node)?;
            self.node = node;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::driver::Protocol;

    fn config(dir: &Path, cidrs: &[&str]) -> BridgeConfig {
        let mut config = BridgeConfig::new(dir);
        config.pod_cidrs = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
        config
    }

    fn open(dir: &Path, cidrs: &[&str]) -> State {
        State::open(&config(dir, cidrs)).unwrap()
    }

    fn reserve(state: &mut State, pod_id: &str, ports: &[HostPort]) -> Result<PodRecord, Error> {
        let wish = Wish {
            pod_id,
            pod: "ns/pod",
            host_ports: ports,
        };
        state.reserve(&wish, |_| Ok(false), |_| Ok(()))
    }

    fn address(record: &PodRecord) -> String {
        record
            .ips()
            .map(|ip| ip.to_string())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn addresses_go_round_and_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = open(dir.path(), &["10.0.0.0/29", "fd00::/64"]);
        assert_eq!(
            address(&reserve(&mut state, "a", &[]).unwrap()),
            "10.0.0.2 fd00::2"
        );
        assert_eq!(
            address(&reserve(&mut state, "b", &[]).unwrap()),
            "10.0.0.3 fd00::3"
        );
        state.release("b").unwrap();

        let mut state = open(dir.path(), &["10.0.0.0/29", "fd00::/64"]);
        assert_eq!(state.pods().count(), 1);
        assert_eq!(
            address(&reserve(&mut state, "c", &[]).unwrap()),
            "10.0.0.4 fd00::4"
        );
    }

    #[test]
    fn a_full_network_is_exhausted_until_an_address_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = open(dir.path(), &["10.0.0.0/30"]);
        let first = reserve(&mut state, "a", &[]).unwrap();
        let pool = &state.pools()[0];
        assert_eq!((pool.used, pool.total), (1, 1));
        assert!(matches!(
            reserve(&mut state, "b", &[]),
            Err(Error::Exhausted(_))
        ));
        state.release("a").unwrap();
        assert_eq!(
            address(&reserve(&mut state, "b", &[]).unwrap()),
            address(&first)
        );
    }

    #[test]
    fn the_kubelets_cidrs_stay_until_the_config_changes() {
        let dir = tempfile::tempdir().unwrap();
        let new: IpNet = "10.1.0.0/24".parse().unwrap();
        let mut state = open(dir.path(), &["10.0.0.0/24"]);
        reserve(&mut state, "old", &[]).unwrap();
        state.set_pod_cidrs(&[new]).unwrap();

        let mut state = open(dir.path(), &["10.0.0.0/24"]);
        assert_eq!(state.pod_cidrs(), [new]);
        assert_eq!(
            address(&reserve(&mut state, "new", &[]).unwrap()),
            "10.1.0.2"
        );
        assert_eq!(address(state.pod("old").unwrap()), "10.0.0.2");
        assert_eq!(state.networks(), ["10.0.0.0/24".parse().unwrap(), new]);
        state.set_pod_cidrs(&[]).unwrap();
        assert_eq!(state.pod_cidrs(), [new]);

        assert_eq!(
            open(dir.path(), &["10.2.0.0/24"]).pod_cidrs(),
            ["10.2.0.0/24".parse().unwrap()]
        );
    }

    #[test]
    fn without_a_cidr_there_are_no_addresses() {
        let dir = tempfile::tempdir().unwrap();
        let error = reserve(&mut open(dir.path(), &[]), "a", &[]).unwrap_err();
        assert!(matches!(error, Error::NotReady(_)));
    }

    #[test]
    fn a_refused_pod_takes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = open(dir.path(), &["10.0.0.0/24"]);
        let port = HostPort {
            protocol: Protocol::Tcp,
            host_port: 80,
            container_port: 80,
            host_ip: None,
        };
        reserve(&mut state, "a", std::slice::from_ref(&port)).unwrap();
        let error = reserve(&mut state, "b", &[port]).unwrap_err();
        assert!(matches!(error, Error::PortInUse { .. }));
        assert!(state.pod("b").is_none());
        assert_eq!(address(&reserve(&mut state, "c", &[]).unwrap()), "10.0.0.3");
    }

    #[test]
    fn a_taken_name_leads_to_another() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = open(dir.path(), &["10.0.0.0/24"]);
        let wish = Wish {
            pod_id: "a",
            pod: "ns/a",
            host_ports: &[],
        };
        let first = names::host_interface("a", 0);
        let record = state
            .reserve(&wish, |name| Ok(name == first), |_| Ok(()))
            .unwrap();
        assert_eq!(record.host_interface, names::host_interface("a", 1));
        let error = state.reserve(&wish, |_| Ok(true), |_| Ok(())).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }));
    }

    #[test]
    fn a_reboot_forgets_pods_and_what_was_changed() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = open(dir.path(), &["10.0.0.0/24"]);
        reserve(&mut state, "a", &[]).unwrap();
        state.note_setting("ipv4/ip_forward", "0").unwrap();
        state.note_setting("ipv4/ip_forward", "1").unwrap();
        state.note_bridge().unwrap();
        assert_eq!(
            state.settings(),
            [("ipv4/ip_forward".to_owned(), "0".to_owned())]
        );

        state.node.boot_id = "another".into();
        state.store.write_node(&state.node).unwrap();
        let mut pod = state.pods["a"].clone();
        pod.boot_id = "another".into();
        state.store.write_pod(&pod).unwrap();

        let state = open(dir.path(), &["10.0.0.0/24"]);
        assert_eq!(state.pods().count(), 0);
        assert!(state.settings().is_empty() && !state.made_bridge());
        assert!(
            state.store.pods().unwrap().is_empty(),
            "its file is gone too"
        );
    }
}
