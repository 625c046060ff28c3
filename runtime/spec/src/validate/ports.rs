//! Port mappings of a pod.

use std::net::IpAddr;

use crate::error::{Error, Result};
use crate::intent::PortMapping;

/// Two mappings clash when a connection could belong to both.
pub(super) fn check(mappings: &[PortMapping]) -> Result<()> {
    let mut taken: Vec<(&PortMapping, Option<IpAddr>)> = Vec::new();
    for (index, mapping) in mappings.iter().enumerate() {
        let address = address(index, mapping)?;
        if mapping.host_port == 0 {
            continue;
        }
        if mapping.container_port == 0 {
            let field = format!("port_mappings[{index}].container_port");
            return Err(Error::invalid(field, 0, "is no port"));
        }
        let clashes = |(other, at): &(&PortMapping, Option<IpAddr>)| {
            other.host_port == mapping.host_port
                && other.protocol == mapping.protocol
                && overlap(*at, address)
        };
        if taken.iter().any(clashes) {
            let field = format!("port_mappings[{index}].host_port");
            return Err(Error::invalid(field, mapping.host_port, "is mapped twice"));
        }
        taken.push((mapping, address));
    }
    Ok(())
}

/// `None` stands for every address.
fn address(index: usize, mapping: &PortMapping) -> Result<Option<IpAddr>> {
    if mapping.host_ip.is_empty() {
        return Ok(None);
    }
    mapping.host_ip.parse().map(Some).map_err(|_| {
        let field = format!("port_mappings[{index}].host_ip");
        Error::invalid(field, &mapping.host_ip, "is not an IP address")
    })
}

fn overlap(left: Option<IpAddr>, right: Option<IpAddr>) -> bool {
    match (left, right) {
        (Some(left), Some(right)) if left.is_ipv4() == right.is_ipv4() => {
            left == right || left.is_unspecified() || right.is_unspecified()
        }
        (Some(_), Some(_)) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::Protocol;

    fn map(host_ip: &str, host_port: u16, protocol: Protocol) -> PortMapping {
        PortMapping {
            protocol,
            container_port: 80,
            host_port,
            host_ip: host_ip.to_owned(),
        }
    }

    fn pair(left: &str, right: &str) -> bool {
        check(&[
            map(left, 8080, Protocol::Tcp),
            map(right, 8080, Protocol::Tcp),
        ])
        .is_ok()
    }

    #[test]
    fn one_address_port_and_protocol_is_given_once() {
        assert!(!pair("", ""));
        assert!(!pair("", "10.0.0.1"));
        assert!(!pair("0.0.0.0", "10.0.0.1"));
        assert!(pair("10.0.0.1", "10.0.0.2"));
        assert!(pair("0.0.0.0", "::"));
        let both = [map("", 53, Protocol::Tcp), map("", 53, Protocol::Udp)];
        assert_eq!(check(&both), Ok(()));
    }

    #[test]
    fn no_host_port_means_no_mapping() {
        assert_eq!(
            check(&[map("", 0, Protocol::Tcp), map("", 0, Protocol::Tcp)]),
            Ok(())
        );
    }

    #[test]
    fn field_and_value_are_named() {
        let error = check(&[map("", 1, Protocol::Tcp), map("", 1, Protocol::Tcp)]).unwrap_err();
        assert_eq!(
            error,
            Error::invalid("port_mappings[1].host_port", 1, "is mapped twice")
        );
        let error = check(&[map("localhost", 1, Protocol::Tcp)]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("port_mappings[0].host_ip: \"localhost\"")
        );
        let zero = PortMapping {
            container_port: 0,
            ..map("", 1, Protocol::Tcp)
        };
        assert!(check(&[zero]).is_err());
    }
}
