//! Which address of a pod CIDR is whose.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Offset of the gateway, the bridge's own address.
const GATEWAY: u128 = 1;
const FIRST_POD: u128 = 2;

/// The bridge's address, with the CIDR's prefix.
pub(super) fn gateway(cidr: &IpNet) -> IpNet {
    at(cidr, GATEWAY)
}

/// The next free address after `last`, going round, so that one that was given
/// back rests as long as it can. Never the network, gateway or broadcast address.
pub(super) fn next_free(
    cidr: &IpNet,
    last: Option<IpAddr>,
    used: impl Fn(&IpAddr) -> bool,
) -> Option<IpNet> {
    let count = pods(cidr);
    let start = last
        .filter(|last| cidr.contains(last))
        .map(|last| bits(&last) - bits(&cidr.network()))
        .filter(|offset| (FIRST_POD..FIRST_POD + count).contains(offset))
        .map_or(0, |offset| (offset - FIRST_POD + 1) % count);
    (0..count)
        .map(|i| at(cidr, FIRST_POD + (start + i) % count))
        .find(|address| !used(&address.addr()))
}

/// A hardware address that follows from the pod's: whoever remembers the address
/// from an earlier pod still reaches the present one.
pub(super) fn mac(address: &IpAddr) -> [u8; 6] {
    let [.., a, b, c, d] = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    [0x0a, 0xca, a, b, c, d]
}

/// How many addresses pods can have. Of a large IPv6 network only the first 2^32
/// are used, which also keeps hardware addresses apart.
pub(super) fn pods(cidr: &IpNet) -> u128 {
    let host_bits = (cidr.max_prefix_len() - cidr.prefix_len()).min(32);
    let size = 1_u128 << host_bits;
    let broadcast = u128::from(cidr.addr().is_ipv4());
    size - FIRST_POD - broadcast
}

fn at(cidr: &IpNet, offset: u128) -> IpNet {
    let number = bits(&cidr.network()) + offset;
    let address = match cidr {
        // Offsets stay within the CIDR, so the number has 32 bits.
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    };
    IpNet::new_assert(address, cidr.prefix_len())
}

fn bits(address: &IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_small_network_gives_every_pod_address_once_and_no_other() {
        let cidr = net("10.0.0.8/29");
        let mut used = HashSet::new();
        let mut last = None;
        while let Some(address) = next_free(&cidr, last, |a| used.contains(a)) {
            assert_eq!(address.prefix_len(), 29);
            assert!(used.insert(address.addr()));
            last = Some(address.addr());
        }
        let expected: HashSet<_> = (10..=14).map(|n| ip(&format!("10.0.0.{n}"))).collect();
        assert_eq!(used, expected);
    }

    #[test]
    fn an_address_given_back_waits_for_its_turn() {
        let cidr = net("10.0.0.0/29");
        let free = |last: &str| next_free(&cidr, Some(ip(last)), |_| false).unwrap().addr();
        assert_eq!(free("10.0.0.2"), ip("10.0.0.3"));
        assert_eq!(free("10.0.0.6"), ip("10.0.0.2"), "round");
    }

    #[test]
    fn a_last_address_of_another_network_starts_from_the_beginning() {
        let cidr = net("10.0.1.0/24");
        for last in ["10.0.0.77", "fd00::9", "10.0.1.0", "10.0.1.255"] {
            let address = next_free(&cidr, Some(ip(last)), |_| false).unwrap();
            assert_eq!(address.addr(), ip("10.0.1.2"), "{last}");
        }
    }

    #[test]
    fn the_gateway_is_the_first_host() {
        assert_eq!(gateway(&net("10.88.3.7/16")), net("10.88.0.1/16"));
        assert_eq!(gateway(&net("fd00:1::/64")), net("fd00:1::1/64"));
    }

    #[test]
    fn large_ipv6_networks_are_walked_too() {
        let cidr = net("fd00:1::/64");
        assert_eq!(
            next_free(&cidr, None, |_| false).unwrap(),
            net("fd00:1::2/64")
        );
        let last = Some(ip("fd00:1::ffff"));
        assert_eq!(
            next_free(&cidr, last, |_| false).unwrap(),
            net("fd00:1::1:0/64")
        );
    }

    #[test]
    fn hardware_addresses_are_local_unicast_and_follow_the_address() {
        let mac = mac(&ip("10.88.1.2"));
        assert_eq!(mac, [0x0a, 0xca, 10, 88, 1, 2]);
        assert_eq!(mac[0] & 0b11, 0b10);
    }
}
