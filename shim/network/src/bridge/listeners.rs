//! Whether a process of the host has a port, and which.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with, sockopt};

use crate::driver::{Error, HostPort, Protocol};

/// Bounds the search for a port's owner, which is only for the message.
const MAX_PROCESSES: usize = 20_000;

/// Fails when a process of the host listens where the mapping would take packets.
/// Asks by binding, in the calling thread's network namespace.
pub(super) fn check_free(port: &HostPort) -> Result<(), Error> {
    let ips = match port.host_ip {
        Some(ip) => vec![ip],
        None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    };
    for ip in ips {
        // Any other refusal (no such address here, no IPv6, no SCTP) is not a listener.
        if !matches!(
            try_bind(port.protocol, SocketAddr::new(ip, port.host_port)),
            Err(Errno::ADDRINUSE)
        ) {
            continue;
        }
        // A connection on its way out may also stand in the way of a bind; it keeps
        // its packets, for they were tracked before the mapping.
        let Some(listener) = Listener::find(port.protocol, port.host_port, ip) else {
            continue;
        };
        return Err(Error::PortInUse {
            port: port.host_port,
            protocol: port.protocol,
            by: listener.describe(),
        });
    }
    Ok(())
}

fn try_bind(protocol: Protocol, address: SocketAddr) -> Result<(), Errno> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let (kind, protocol) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol))?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if protocol != ipproto::UDP {
        // Lets past what only waits for its end; a listener still refuses.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)
}

#[derive(Debug, PartialEq, Eq)]
struct Listener {
    address: SocketAddr,
    inode: u64,
}

impl Listener {
    fn find(protocol: Protocol, port: u16, ip: IpAddr) -> Option<Self> {
        let tables: &[&str] = match (protocol, ip) {
            (Protocol::Tcp, IpAddr::V4(_)) => &["tcp", "tcp6"],
            (Protocol::Tcp, IpAddr::V6(_)) => &["tcp6"],
            (Protocol::Udp, IpAddr::V4(_)) => &["udp", "udp6"],
            (Protocol::Udp, IpAddr::V6(_)) => &["udp6"],
            // Its table has another form; a bind that fails must do.
            (Protocol::Sctp, _) => {
                return Some(Self {
                    address: SocketAddr::new(ip, port),
                    inode: 0,
                });
            }
        };
        tables.iter().find_map(|table| {
            let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).ok()?;
            text.lines()
                .skip(1)
                .filter_map(Self::parse)
                .find(|listener| {
                    let theirs = listener.address.ip();
                    let same_family = theirs.is_ipv4() == ip.is_ipv4();
                    listener.address.port() == port
                        && (theirs.is_unspecified()
                            || (same_family && (ip.is_unspecified() || theirs == ip)))
                })
        })
    }

    /// A line of `/proc/net/{tcp,udp}{,6}`, when it is of a socket without a peer.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let local = fields.nth(1)?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?.parse().ok()?;
        // TCP_LISTEN, and TCP_CLOSE, which is what an unconnected UDP socket has.
        if !matches!(state, "0A" | "07") {
            return None;
        }
        let (ip, port) = local.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        Some(Self {
            address: SocketAddr::new(parse_ip(ip)?, port),
            inode,
        })
    }

    fn describe(&self) -> String {
        match owner(self.inode) {
            Some((pid, name)) => format!("process {pid} ({name}) on {}", self.address),
            None => format!("a process on {}", self.address),
        }
    }
}

/// 32 bit words in the machine's byte order.
fn parse_ip(hex: &str) -> Option<IpAddr> {
    let words = hex
        .as_bytes()
        .chunks(8)
        .map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok())
        .collect::<Option<Vec<_>>>()?;
    let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
    if let Ok(v4) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes.as_slice())
        .ok()
        .map(IpAddr::from)
}

/// The process that holds the socket, as far as we may look.
fn owner(inode: u64) -> Option<(u32, String)> {
    if inode == 0 {
        return None;
    }
    let target = format!("socket:[{inode}]");
    let holds = |pid: u32| -> io::Result<bool> {
        for fd in fs::read_dir(format!("/proc/{pid}/fd"))? {
            if fs::read_link(fd?.path()).is_ok_and(|link| link.as_os_str() == target.as_str()) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let pid = fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .take(MAX_PROCESSES)
        .find(|pid| holds(*pid).unwrap_or(false))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some((pid, name.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::time::Duration;

    use super::*;

    fn port(protocol: Protocol, host_port: u16, host_ip: Option<&str>) -> HostPort {
        let host_ip = host_ip.map(|ip| ip.parse().unwrap());
        HostPort {
            protocol,
            host_port,
            container_port: 80,
            host_ip,
        }
    }

    #[test]
    fn tables_lines_are_read() {
        let listening = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 \
            00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0";
        let expected = Listener {
            address: "127.0.0.1:8080".parse().unwrap(),
            inode: 4711,
        };
        if cfg!(target_endian = "little") {
            assert_eq!(Listener::parse(listening), Some(expected));
        }
        assert_eq!(
            Listener::parse(&listening.replace(" 0A ", " 01 ")),
            None,
            "connected"
        );
        assert_eq!(Listener::parse("nonsense"), None);
    }

    #[test]
    fn a_listener_of_the_host_is_found_and_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = listener.local_addr().unwrap().port();
        for ip in [None, Some("127.0.0.1"), Some("0.0.0.0")] {
            let error = check_free(&port(Protocol::Tcp, number, ip)).unwrap_err();
            let Error::PortInUse { by, .. } = error else {
                panic!("{error}")
            };
            let me = format!("process {} ", std::process::id());
            assert!(by.starts_with(&me), "{by}");
            assert!(by.ends_with(&format!("on 127.0.0.1:{number}")), "{by}");
        }
        check_free(&port(Protocol::Tcp, number, Some("127.0.0.2"))).unwrap();
        check_free(&port(Protocol::Udp, number, Some("127.0.0.3"))).unwrap();
        drop(listener);
        // Another test may just be between fork and exec, with all our descriptors.
        let freed = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            check_free(&port(Protocol::Tcp, number, None)).is_ok()
        });
        assert!(freed);
    }

    #[test]
    fn a_udp_socket_of_the_host_is_found() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let number = socket.local_addr().unwrap().port();
        assert!(matches!(
            check_free(&port(Protocol::Udp, number, None)),
            Err(Error::PortInUse { .. })
        ));
    }
}
