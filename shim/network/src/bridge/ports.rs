//! Which host ports a pod may have. Pure: who listens on the host is not asked here.

use std::net::IpAddr;

use super::record::PodRecord;
use crate::driver::{Error, HostPort};
use crate::error::invalid;

/// The mappings that need something done: a host port of 0 means none.
pub(super) fn wanted(ports: &[HostPort]) -> Result<Vec<HostPort>, Error> {
    let wanted: Vec<_> = ports
        .iter()
        .filter(|port| port.host_port != 0)
        .cloned()
        .collect();
    for (i, port) in wanted.iter().enumerate() {
        if port.container_port == 0 {
            return Err(invalid(describe(port), "has no container port"));
        }
        if wanted[..i].iter().any(|other| overlap(port, other)) {
            return Err(invalid(describe(port), "is asked for twice by the pod"));
        }
    }
    Ok(wanted)
}

/// A host address must be of a family in which the pod has an address.
pub(super) fn check_family(
    port: &HostPort,
    pod_has_v4: bool,
    pod_has_v6: bool,
) -> Result<(), Error> {
    let reachable = match port.host_ip {
        None => true,
        Some(IpAddr::V4(_)) => pod_has_v4,
        Some(IpAddr::V6(_)) => pod_has_v6,
    };
    // Many write :: for every address, on nodes without IPv6 too.
    if reachable || port.host_ip.is_some_and(|ip| ip.is_unspecified()) {
        return Ok(());
    }
    Err(invalid(
        describe(port),
        "is on an address of a family that pods do not have",
    ))
}

/// Fails when another pod has one of the ports.
pub(super) fn check_free<'a>(
    wanted: &[HostPort],
    others: impl Iterator<Item = &'a PodRecord>,
) -> Result<(), Error> {
    for other in others {
        for taken in &other.host_ports {
            if let Some(port) = wanted.iter().find(|port| overlap(port, taken)) {
                return Err(Error::PortInUse {
                    port: port.host_port,
                    protocol: port.protocol,
                    by: format!("pod {} ({})", other.pod, other.pod_id),
                });
            }
        }
    }
    Ok(())
}

/// Whether a packet could be meant for both.
fn overlap(a: &HostPort, b: &HostPort) -> bool {
    a.protocol == b.protocol
        && a.host_port == b.host_port
        && match (a.host_ip, b.host_ip) {
            (None, _) | (_, None) => true,
            (Some(a), Some(b)) => {
                a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
            }
        }
}

fn describe(port: &HostPort) -> String {
    format!("host port {}/{:?}", port.host_port, port.protocol)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::record::Phase;
    use crate::driver::Protocol;

    fn port(host_port: u16, host_ip: Option<&str>) -> HostPort {
        HostPort {
            protocol: Protocol::Tcp,
            host_port,
            container_port: 80,
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        }
    }

    fn pod_with(port: HostPort) -> PodRecord {
        PodRecord {
            pod_id: "other".into(),
            pod: "ns/other".into(),
            phase: Phase::Intended,
            boot_id: String::new(),
            host_interface: String::new(),
            addresses: Vec::new(),
            host_ports: vec![port],
        }
    }

    #[test]
    fn port_zero_means_no_mapping() {
        assert_eq!(
            wanted(&[port(0, None), port(80, None)]).unwrap(),
            [port(80, None)]
        );
        assert_eq!(wanted(&[port(0, None), port(0, None)]).unwrap(), []);
    }

    #[test]
    fn nonsense_is_refused() {
        wanted(&[HostPort {
            container_port: 0,
            ..port(80, None)
        }])
        .unwrap_err();
        wanted(&[port(80, None), port(80, Some("127.0.0.1"))]).unwrap_err();
        wanted(&[port(80, Some("127.0.0.2")), port(80, Some("127.0.0.1"))]).unwrap();
        check_family(&port(80, Some("fd00::1")), true, false).unwrap_err();
        check_family(&port(80, Some("::")), true, false).unwrap();
        check_family(&port(80, Some("10.0.0.1")), true, false).unwrap();
    }

    #[test]
    fn ports_clash_on_the_same_or_every_address() {
        let clashes = |mine: &HostPort, theirs: HostPort| {
            check_free(std::slice::from_ref(mine), [pod_with(theirs)].iter()).is_err()
        };
        let on = |ip| port(80, Some(ip));
        assert!(clashes(&port(80, None), port(80, None)));
        assert!(clashes(&port(80, None), on("10.0.0.1")));
        assert!(clashes(&on("10.0.0.1"), port(80, None)));
        assert!(clashes(&on("10.0.0.1"), on("10.0.0.1")));
        assert!(clashes(&on("10.0.0.1"), on("0.0.0.0")));
        assert!(!clashes(&on("10.0.0.1"), on("10.0.0.2")));
        assert!(!clashes(&on("::"), on("10.0.0.2")));
        assert!(!clashes(&port(81, None), port(80, None)));
        let udp = HostPort {
            protocol: Protocol::Udp,
            ..port(80, None)
        };
        assert!(!clashes(&udp, port(80, None)));
    }

    #[test]
    fn the_error_names_the_other_pod() {
        let error = check_free(&[port(80, None)], [pod_with(port(80, None))].iter()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "host port 80/Tcp is in use by pod ns/other (other)"
        );
    }
}
