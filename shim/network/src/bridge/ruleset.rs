//! Our nftables table as batches of text. Pure.
//!
//! Everything of a pod is an element of a map or set, so that its host ports come
//! and go without any rule being touched.

use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;

use super::record::PodRecord;
use crate::driver::{HostPort, Protocol};

/// What the rules say for all pods.
#[derive(Debug)]
pub(super) struct Ruleset<'a> {
    pub(super) table: &'a str,
    pub(super) bridge: &'a str,
    pub(super) masquerade: bool,
    /// Where this node's pods have their addresses.
    pub(super) local: Vec<IpNet>,
    /// Where pods' own addresses are known, beside the local ones.
    pub(super) known: Vec<IpNet>,
}

/// Map or set, and what is in it.
type Element = (&'static str, String);

impl Ruleset<'_> {
    /// Makes or renews the whole table with these pods and no others.
    pub(super) fn install<'a>(&self, pods: impl Iterator<Item = &'a PodRecord>) -> String {
        let mut text = self.declarations();
        self.rules(&mut text);
        for cidr in IpNet::aggregate(&self.local) {
            self.element(
                &mut text,
                "add",
                &(family(&cidr, ["local4", "local6"]), cidr.to_string()),
            );
        }
        let known: Vec<_> = self.local.iter().chain(&self.known).copied().collect();
        for cidr in IpNet::aggregate(&known) {
            self.element(
                &mut text,
                "add",
                &(family(&cidr, ["known4", "known6"]), cidr.to_string()),
            );
        }
        for pod in pods {
            text.push_str(&self.change("add", pod, true));
        }
        text
    }

    pub(super) fn add(&self, pod: &PodRecord) -> String {
        self.change("add", pod, true)
    }

    pub(super) fn remove(&self, pod: &PodRecord) -> String {
        self.change("delete", pod, false)
    }

    /// Succeeds only when all that `add` added is there.
    pub(super) fn look_up(&self, pod: &PodRecord) -> String {
        self.change("get", pod, false)
    }

    pub(super) fn destroy(&self) -> String {
        // Deleting what is not there fails: so it is made first.
        format!("add table inet {0}\ndelete table inet {0}\n", self.table)
    }

    /// `add` and `flush` of all, so that the same text makes and renews the table.
    fn declarations(&self) -> String {
        let table = self.table;
        let mut text = format!("add table inet {table}\n");
        for (name, kind) in [
            (
                "ports4",
                "inet_proto . inet_service : ipv4_addr . inet_service",
            ),
            (
                "ports6",
                "inet_proto . inet_service : ipv6_addr . inet_service",
            ),
            (
                "ports4_at",
                "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service",
            ),
            (
                "ports6_at",
                "ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service",
            ),
        ] {
            writes(
                &mut text,
                format_args!("add map inet {table} {name} {{ type {kind}; }}"),
            );
            writes(&mut text, format_args!("flush map inet {table} {name}"));
        }
        for (name, kind) in [
            ("targets4", "ipv4_addr . inet_proto . inet_service;"),
            ("targets6", "ipv6_addr . inet_proto . inet_service;"),
            ("local4", "ipv4_addr; flags interval;"),
            ("local6", "ipv6_addr; flags interval;"),
            ("known4", "ipv4_addr; flags interval;"),
            ("known6", "ipv6_addr; flags interval;"),
        ] {
            writes(
                &mut text,
                format_args!("add set inet {table} {name} {{ type {kind} }}"),
            );
            writes(&mut text, format_args!("flush set inet {table} {name}"));
        }
        for (name, hook) in [
            ("hostports", ""),
            ("prerouting", "{ type nat hook prerouting priority -100; }"),
            ("output", "{ type nat hook output priority -100; }"),
            ("postrouting", "{ type nat hook postrouting priority 100; }"),
            ("guard", "{ type filter hook prerouting priority -300; }"),
        ] {
            writes(
                &mut text,
                format_args!("add chain inet {table} {name} {hook}"),
            );
            writes(&mut text, format_args!("flush chain inet {table} {name}"));
        }
        text
    }

    fn rules(&self, text: &mut String) {
        let bridge = self.bridge;
        let mut rule = |chain: &str, rule: &str| {
            writes(
                text,
                format_args!("add rule inet {} {chain} {rule}", self.table),
            );
        };
        // The loopback addresses are routed from the bridge for host ports on
        // 127.0.0.1; a pod must not reach the node's own services by that.
        rule(
            "guard",
            &format!("iifname \"{bridge}\" ip daddr 127.0.0.0/8 drop"),
        );

        const PORTS: &str = "meta l4proto { tcp, udp, sctp }";
        for (ip, at, any) in [
            ("ip", "ports4_at", "ports4"),
            ("ip6", "ports6_at", "ports6"),
        ] {
            rule(
                "hostports",
                &format!("{PORTS} dnat {ip} to {ip} daddr . meta l4proto . th dport map @{at}"),
            );
            rule(
                "hostports",
                &format!("{PORTS} dnat {ip} to meta l4proto . th dport map @{any}"),
            );
        }
        // There is no way back to ::1 from another device.
        for chain in ["prerouting", "output"] {
            rule(chain, "ip6 daddr ::1 return");
            rule(chain, "fib daddr type local goto hostports");
        }

        // A pod that answers another of its own network would answer directly, from
        // an address that was not asked: such flows pass through the node both ways.
        // Told by the source, for bridged packets have no device that they came by.
        for (ip, local, targets) in [("ip", "local4", "targets4"), ("ip6", "local6", "targets6")] {
            let flow = format!("{ip} daddr . meta l4proto . ct original proto-dst @{targets}");
            let from = format!("{ip} saddr @{local} ct status dnat");
            rule(
                "postrouting",
                &format!("oifname \"{bridge}\" {from} {PORTS} {flow} masquerade"),
            );
        }
        rule(
            "postrouting",
            &format!("oifname \"{bridge}\" ip saddr 127.0.0.0/8 masquerade"),
        );
        if self.masquerade {
            for (ip, local, known) in [("ip", "local4", "known4"), ("ip6", "local6", "known6")] {
                rule(
                    "postrouting",
                    &format!(
                        "oifname != \"{bridge}\" {ip} saddr @{local} {ip} daddr != @{known} masquerade"
                    ),
                );
            }
        }
    }

    /// One command an element: a deletion names the key only.
    fn change(&self, verb: &str, pod: &PodRecord, with_value: bool) -> String {
        let mut text = String::new();
        for element in elements(pod, with_value) {
            self.element(&mut text, verb, &element);
        }
        text
    }

    fn element(&self, text: &mut String, verb: &str, (set, value): &Element) {
        writes(
            text,
            format_args!("{verb} element inet {} {set} {{ {value} }}", self.table),
        );
    }
}

fn elements(pod: &PodRecord, with_value: bool) -> Vec<Element> {
    let mut elements: Vec<Element> = Vec::new();
    for port in &pod.host_ports {
        for ip in pod.ips() {
            let Some((map, key)) = key(port, ip) else {
                continue;
            };
            let value = if with_value {
                format!("{key} : {ip} . {}", port.container_port)
            } else {
                key
            };
            elements.push((map, value));
            let targets = if ip.is_ipv4() { "targets4" } else { "targets6" };
            let target = (
                targets,
                format!("{ip} . {} . {}", word(port.protocol), port.host_port),
            );
            // The same port on two addresses of the host is one target.
            if !elements.contains(&target) {
                elements.push(target);
            }
        }
    }
    elements
}

/// Where a port is looked up, if it leads to an address of this family.
fn key(port: &HostPort, ip: IpAddr) -> Option<(&'static str, String)> {
    let any = format!("{} . {}", word(port.protocol), port.host_port);
    match (port.host_ip, ip) {
        (Some(host), _) if host.is_ipv4() != ip.is_ipv4() => None,
        (Some(host), IpAddr::V4(_)) if !host.is_unspecified() => {
            Some(("ports4_at", format!("{host} . {any}")))
        }
        (Some(host), IpAddr::V6(_)) if !host.is_unspecified() => {
            Some(("ports6_at", format!("{host} . {any}")))
        }
        (_, IpAddr::V4(_)) => Some(("ports4", any)),
        (_, IpAddr::V6(_)) => Some(("ports6", any)),
    }
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

fn family(cidr: &IpNet, [v4, v6]: [&'static str; 2]) -> &'static str {
    if cidr.addr().is_ipv4() { v4 } else { v6 }
}

fn writes(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::record::{Phase, PodAddress};

    fn ruleset() -> Ruleset<'static> {
        Ruleset {
            table: "t",
            bridge: "br",
            masquerade: true,
            local: vec![
                "10.88.0.0/16".parse().unwrap(),
                "10.88.4.0/24".parse().unwrap(),
            ],
            known: vec!["10.99.0.0/24".parse().unwrap()],
        }
    }

    fn pod(host_ips: &[Option<&str>]) -> PodRecord {
        let address = |address: &str, gateway: &str| PodAddress {
            address: address.parse().unwrap(),
            gateway: gateway.parse().unwrap(),
        };
        PodRecord {
            pod_id: "p".into(),
            pod: "ns/p".into(),
            phase: Phase::Done,
            boot_id: String::new(),
            host_interface: String::new(),
            addresses: vec![
                address("10.88.0.2/16", "10.88.0.1"),
                address("fd00::2/64", "fd00::1"),
            ],
            host_ports: host_ips
                .iter()
                .map(|ip| HostPort {
                    protocol: Protocol::Tcp,
                    host_port: 8080,
                    container_port: 80,
                    host_ip: ip.map(|ip| ip.parse().unwrap()),
                })
                .collect(),
        }
    }

    #[test]
    fn a_port_on_every_address_is_in_the_maps_of_both_families() {
        assert_eq!(
            ruleset().add(&pod(&[None])),
            "add element inet t ports4 { tcp . 8080 : 10.88.0.2 . 80 }\n\
             add element inet t targets4 { 10.88.0.2 . tcp . 8080 }\n\
             add element inet t ports6 { tcp . 8080 : fd00::2 . 80 }\n\
             add element inet t targets6 { fd00::2 . tcp . 8080 }\n"
        );
    }

    #[test]
    fn a_port_on_one_address_is_in_the_map_of_its_family() {
        assert_eq!(
            ruleset().remove(&pod(&[Some("127.0.0.1"), Some("192.0.2.1")])),
            "delete element inet t ports4_at { 127.0.0.1 . tcp . 8080 }\n\
             delete element inet t targets4 { 10.88.0.2 . tcp . 8080 }\n\
             delete element inet t ports4_at { 192.0.2.1 . tcp . 8080 }\n"
        );
        assert!(ruleset().add(&pod(&[Some("0.0.0.0")])).contains("ports4 {"));
        assert!(!ruleset().add(&pod(&[Some("0.0.0.0")])).contains("ports6 {"));
    }

    #[test]
    fn networks_within_others_are_told_once() {
        let text = ruleset().install(std::iter::empty());
        assert!(text.contains("add element inet t local4 { 10.88.0.0/16 }\n"));
        assert!(!text.contains("10.88.4.0/24"));
        assert!(text.contains("add element inet t known4 { 10.99.0.0/24 }\n"));
    }

    #[test]
    fn masquerade_can_be_left_out() {
        let rule = "ip saddr @local4 ip daddr != @known4 masquerade";
        assert!(ruleset().install(std::iter::empty()).contains(rule));
        let without = Ruleset {
            masquerade: false,
            ..ruleset()
        };
        assert!(!without.install(std::iter::empty()).contains(rule));
    }
}
