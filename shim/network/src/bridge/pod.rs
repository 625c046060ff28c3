//! One pod's cable, addresses and host ports: made, checked, undone.

use std::os::fd::{AsFd, OwnedFd};

use carpel_failpoint::step;

use super::addresses::mac;
use super::base::Base;
use super::driver::{Inner, Request, lock};
use super::names;
use super::record::{POD_INTERFACE, Phase, PodAddress, PodRecord};
use super::state::Wish;
use super::{listeners, ports};
use crate::driver::{Attachment, Error, Protocol};
use crate::error::{collected, context, invalid};
use crate::netlink::{Flows, Socket, VethPair, forget_flows};
use crate::netns;

impl Inner {
    pub(super) fn setup(&self, request: &Request) -> Result<Attachment, Error> {
        let pod_id = &request.pod_id;
        if !names::is_pod_id(pod_id) {
            return Err(invalid("pod id", format!("{pod_id:?} cannot name a file")));
        }
        let host_ports = ports::wanted(&request.host_ports)?;
        let _pod = self.pod_lock(pod_id);
        let known = lock(&self.state).pod(pod_id).cloned();
        if let Some(known) = known {
            if known.host_ports == host_ports && self.damage(&known)?.is_none() {
                return Ok(known.attachment());
            }
            self.undo(&known)?;
        }

        let wish = Wish {
            pod_id,
            pod: &request.pod,
            host_ports: &host_ports,
        };
        let base = self.ensure_base()?;
        if !host_ports.is_empty() {
            // A host that cannot do host ports says so before anything is made.
            self.ensure_table()?;
        }
        let record = self.reserve(&wish)?;
        match self.connect(&record, &base, &request.netns) {
            Ok(()) => Ok(record.attachment()),
            Err(error) => {
                if let Err(left) = self.undo(&record) {
                    tracing::warn!(pod_id, error = %left, "undoing a failed network set-up failed");
                }
                Err(error)
            }
        }
    }

    fn reserve(&self, wish: &Wish<'_>) -> Result<PodRecord, Error> {
        let taken = |name: &str| {
            let found = self.netlink.socket().link(name);
            Ok(found
                .map_err(context(|| format!("look for {name}")))?
                .is_some())
        };
        lock(&self.state).reserve(wish, taken, listeners::check_free)
    }

    fn connect(&self, record: &PodRecord, base: &Base, netns: &OwnedFd) -> Result<(), Error> {
        let name = &record.host_interface;
        let ip = record
            .ips()
            .next()
            .ok_or_else(|| invalid(&record.pod_id, "has no address"))?;
        let pair = VethPair {
            host_name: name,
            bridge: base.index,
            pod_name: POD_INTERFACE,
            pod_netns: netns.as_fd(),
            pod_mac: mac(&ip),
            mtu: base.mtu,
        };
        {
            let mut netlink = self.netlink.socket();
            netlink.add_veth(&pair).map_err(context(|| {
                format!(
                    "create {name} and {POD_INTERFACE} for pod {}",
                    record.pod_id
                )
            }))?;
            let alias = format!("pod {}", record.pod);
            netlink
                .set_port_up(name, &alias, self.config.hairpin)
                .map_err(context(|| format!("bring up {name}")))?;
        }
        step("the pod's cable is made");
        netns::within(netns, || inside(record))?;
        step("the pod's end is set up");
        if !record.host_ports.is_empty() {
            self.open_ports(record)?;
            step("the pod's host ports are open");
        }
        lock(&self.state).done(&record.pod_id)
    }

    fn open_ports(&self, record: &PodRecord) -> Result<(), Error> {
        self.change_table(&self.ruleset(Vec::new()).add(record), None)?;
        // Senders that tried before now have flows that lead nowhere.
        for port in record
            .host_ports
            .iter()
            .filter(|port| port.protocol == Protocol::Udp)
        {
            for v6 in [false, true] {
                forget(Flows::UdpTo {
                    port: port.host_port,
                    v6,
                });
            }
        }
        Ok(())
    }

    fn close_ports(&self, record: &PodRecord) -> Result<(), Error> {
        let batch = self.ruleset(Vec::new()).remove(record);
        self.change_table(&batch, Some(&record.pod_id))?;
        record.ips().for_each(|ip| forget(Flows::AnsweredBy(ip)));
        Ok(())
    }

    /// Applies a change to the table; renews the table when it is not as we left it
    /// or was not yet made, without the pod that is on its way out.
    fn change_table(&self, batch: &str, leaving: Option<&str>) -> Result<(), Error> {
        let mut installed = lock(&self.installed);
        if *installed && self.nft.run(batch).is_ok() {
            return Ok(());
        }
        *installed = false;
        self.install_table(leaving)?;
        *installed = true;
        Ok(())
    }

    /// By the record alone, for the pod's namespace may be gone.
    pub(super) fn teardown(&self, pod_id: &str) -> Result<(), Error> {
        let _pod = self.pod_lock(pod_id);
        let record = lock(&self.state).pod(pod_id).cloned();
        match record {
            Some(record) => self.undo(&record),
            // Its record may have been lost: then its device tells.
            None => self.delete_link(&names::host_interface(pod_id, 0)),
        }
    }

    /// Frees the address only when nothing is left that uses it.
    fn undo(&self, record: &PodRecord) -> Result<(), Error> {
        let mut errors = Vec::new();
        errors.extend(self.delete_link(&record.host_interface).err());
        step("the pod's cable is gone");
        if !record.host_ports.is_empty() {
            errors.extend(self.close_ports(record).err());
            step("the pod's host ports are closed");
        }
        if errors.is_empty() {
            errors.extend(lock(&self.state).release(&record.pod_id).err());
            step("the pod's addresses are free");
        }
        collected(errors)
    }

    /// The kernel takes long to let go of a device, but no longer for many: those
    /// who wait for their turn find that the one before them has taken theirs along.
    fn delete_link(&self, name: &str) -> Result<(), Error> {
        let delete = || {
            if !self.netlink.socket().mark_leaving(name)? {
                return Ok(());
            }
            let _turn = lock(&self.deleting);
            let mut socket = self.netlink.socket();
            if socket.link(name)?.is_some() {
                socket.delete_leaving()?;
            }
            Ok(())
        };
        delete().map_err(context(|| format!("delete {name}")))
    }

    pub(super) fn check(&self, pod_id: &str) -> Result<(), Error> {
        let damaged = |why: String| Error::Damaged {
            pod_id: pod_id.to_owned(),
            why,
        };
        let record = lock(&self.state).pod(pod_id).cloned();
        let record = record.ok_or_else(|| damaged("it has no network".into()))?;
        if let Some(why) = self.damage(&record)? {
            return Err(damaged(why));
        }
        if record.host_ports.is_empty() {
            return Ok(());
        }
        let look = self.ruleset(Vec::new()).look_up(&record);
        self.nft
            .run(&look)
            .map_err(|error| damaged(format!("its host ports: {error}")))
    }

    /// What is wrong with the pod's cable.
    fn damage(&self, record: &PodRecord) -> Result<Option<String>, Error> {
        if record.phase != Phase::Done {
            return Ok(Some("its set-up was not finished".into()));
        }
        let name = &record.host_interface;
        let found = self.netlink.socket().link(name);
        let Some(link) = found.map_err(context(|| format!("look for {name}")))? else {
            return Ok(Some(format!("{name} is gone")));
        };
        let bridge = self.bridge_link()?.map(|bridge| bridge.index);
        Ok(if !link.up {
            Some(format!("{name} is down"))
        } else if link.controller.is_none() || link.controller != bridge {
            Some(format!("{name} is not on {}", self.config.bridge))
        } else {
            None
        })
    }

    pub(super) fn gc(&self, live: &[String]) -> Result<(), Error> {
        let mut errors = Vec::new();
        errors.extend(self.delete_strays().err());
        let dead: Vec<_> = lock(&self.state)
            .pods()
            .map(|pod| pod.pod_id.clone())
            .filter(|pod_id| !live.contains(pod_id))
            .collect();
        for pod_id in dead {
            errors.extend(self.teardown(&pod_id).err());
        }
        // Someone may have flushed it meanwhile.
        let mut installed = lock(&self.installed);
        if *installed {
            let renewed = self.install_table(None);
            *installed = renewed.is_ok();
            errors.extend(renewed.err());
        }
        collected(errors)
    }

    /// Devices of ours on our bridge that no record knows.
    fn delete_strays(&self) -> Result<(), Error> {
        let Some(bridge) = self.bridge_link()? else {
            return Ok(());
        };
        // In this order: a pod being set up has its record before its device.
        let links = self
            .netlink
            .socket()
            .links()
            .map_err(context(|| "list devices"))?;
        let mut errors = Vec::new();
        for link in links {
            let ours =
                link.name.starts_with(names::PREFIX) && link.controller == Some(bridge.index);
            let known = || {
                lock(&self.state)
                    .pods()
                    .any(|pod| pod.host_interface == link.name)
            };
            if ours && !known() {
                tracing::warn!(
                    device = link.name,
                    "deleting a device that belongs to no pod"
                );
                errors.extend(self.delete_link(&link.name).err());
            }
        }
        collected(errors)
    }
}

/// The pod's own part, on a thread in its namespace.
fn inside(record: &PodRecord) -> Result<(), Error> {
    let what = |part: &str| format!("{part} in pod {}", record.pod_id);
    let mut socket = Socket::open().map_err(context(|| what("open a netlink socket")))?;
    let link = socket
        .link(POD_INTERFACE)
        .map_err(context(|| what("look for eth0")))?
        .ok_or_else(|| invalid(what("eth0"), "vanished"))?;
    for PodAddress { address, .. } in record.addresses.iter().copied() {
        socket
            .add_address(link.index, address)
            .map_err(context(|| what(&format!("add address {address}"))))?;
    }
    socket
        .set_loopback_up()
        .map_err(context(|| what("bring up lo")))?;
    socket
        .set_up(link.index)
        .map_err(context(|| what("bring up eth0")))?;
    for PodAddress { gateway, .. } in record.addresses.iter().copied() {
        socket
            .add_default_route(link.index, gateway)
            .map_err(context(|| {
                what(&format!("add the default route by {gateway}"))
            }))?;
    }
    Ok(())
}

fn forget(flows: Flows) {
    if let Err(error) = forget_flows(flows) {
        tracing::debug!(?flows, %error, "tracked flows stay until they time out");
    }
}
