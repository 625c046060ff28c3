//! Who we are: the host's name and the address of the pod.

use std::fs;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

pub(crate) fn hostname() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// The first address that is not the loopback's; IPv4 before IPv6.
pub(crate) fn pod_ip() -> String {
    let addresses = getifaddrs().into_iter().flatten().filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    });
    let mut addresses: Vec<IpAddr> = addresses.filter(|ip| !ip.is_loopback()).collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses
        .first()
        .map_or_else(|| "none".to_owned(), IpAddr::to_string)
}
