//! A network namespace that plays the host, others that play pods, and servers
//! and clients in them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::thread;
use std::time::Duration;

use carpel_network::{
    Attachment, BridgeConfig, BridgeDriver, Error, HostPort, NetworkDriver, PodNetwork, Protocol,
};
use nix::sched::{CloneFlags, setns, unshare};
use tempfile::TempDir;

pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// For what must not work.
pub(crate) const IMPATIENCE: Duration = Duration::from_millis(400);

pub(crate) struct Host {
    dir: TempDir,
}

impl Host {
    pub(crate) fn config(&self) -> BridgeConfig {
        BridgeConfig::new(self.dir.path().join("network"))
    }

    pub(crate) fn driver(&self) -> BridgeDriver {
        BridgeDriver::open(self.config()).unwrap()
    }

    /// Names of the pods' records.
    pub(crate) fn records(&self) -> Vec<String> {
        let pods = self.config().state_dir.join("pods");
        let Ok(entries) = std::fs::read_dir(pods) else {
            return Vec::new();
        };
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

/// Runs a test on a thread whose network namespace is a host of its own, with
/// 192.0.2.1 as an address beside the loopback's.
pub(crate) fn on_host(test: impl AsyncFnOnce(Host) + Send + 'static) {
    let thread = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip("link set lo up");
        ip("link add uplink type bridge");
        ip("address add 192.0.2.1/24 dev uplink");
        ip("link set uplink up");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        runtime.block_on(test(Host { dir }));
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a program in the calling thread's namespace.
pub(crate) fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn ip(arguments: &str) -> String {
    run("ip", arguments)
}

pub(crate) fn nft(arguments: &str) -> String {
    run("nft", arguments)
}

pub(crate) fn sysctl(key: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/net/{key}"))
        .unwrap()
        .trim()
        .to_owned()
}

/// Our devices on the host, by name.
pub(crate) fn pod_links() -> Vec<String> {
    let names = ip("-o link show");
    let names = names.lines().filter_map(|line| line.split(": ").nth(1));
    let ours = names.filter(|name| name.starts_with("cpl"));
    ours.map(|name| name.split('@').next().unwrap_or(name).to_owned())
        .collect()
}

/// Elements that the table has for pods' host ports over IPv4: two a port.
pub(crate) fn port_elements() -> usize {
    if !nft("list tables").contains("table inet carpel") {
        return 0;
    }
    [
        "map inet carpel ports4",
        "map inet carpel ports4_at",
        "set inet carpel targets4",
    ]
    .iter()
    .filter_map(|set| {
        let text = nft(&format!("list {set}"));
        Some(text.split_once("elements = {")?.1.split(',').count())
    })
    .sum()
}

/// Another network namespace: a pod's, or a machine's outside.
pub(crate) struct Space {
    pub(crate) id: String,
    pub(crate) netns: OwnedFd,
}

impl Space {
    pub(crate) fn new(id: &str) -> Self {
        let netns = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self {
            id: id.to_owned(),
            netns: netns.join().unwrap().into(),
        }
    }

    /// A machine at 198.51.100.2, for which the host is 198.51.100.1.
    pub(crate) fn outside() -> Self {
        let outside = Self::new("outside");
        let host = nix::unistd::gettid();
        outside.within(|| {
            ip(&format!(
                "link add eth0 type veth peer name wan netns {host}"
            ));
            ip("address add 198.51.100.2/24 dev eth0");
            ip("link set eth0 up");
            ip("link set lo up");
        });
        ip("address add 198.51.100.1/24 dev wan");
        ip("link set wan up");
        outside
    }

    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.netns, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    pub(crate) async fn set_up(
        &self,
        driver: &impl NetworkDriver,
        host_ports: &[HostPort],
    ) -> Result<Attachment, Error> {
        let pod = PodNetwork {
            pod_id: &self.id,
            name: &self.id,
            namespace: "ns",
            uid: "uid",
            netns: self.netns.as_fd(),
            host_ports,
        };
        driver.setup(&pod).await
    }

    /// Serves TCP and UDP on the port: each answer says who asked.
    pub(crate) fn serve(&self, port: u16) {
        self.serve_named(port, "");
    }

    pub(crate) fn serve_named(&self, port: u16, name: &'static str) {
        let (tcp, udp) = self.within(|| {
            // Both families, where there are both.
            let address = SocketAddr::from(([0_u16; 8], port));
            (
                TcpListener::bind(address).unwrap(),
                UdpSocket::bind(address).unwrap(),
            )
        });
        serve_tcp(tcp, name);
        serve_udp(udp, name);
    }

    pub(crate) fn ask_tcp(&self, address: &str) -> io::Result<String> {
        self.within(|| ask_tcp(address))
    }

    pub(crate) fn ask_udp(&self, address: &str) -> io::Result<String> {
        self.within(|| ask_udp(address))
    }
}

pub(crate) fn serve_tcp(listener: TcpListener, name: &'static str) {
    thread::spawn(move || {
        for _ in 0..64 {
            let Ok((mut stream, peer)) = listener.accept() else {
                break;
            };
            drop(stream.write_all(format!("{name}{}", plain(peer.ip())).as_bytes()));
        }
    });
}

pub(crate) fn serve_udp(socket: UdpSocket, name: &'static str) {
    thread::spawn(move || {
        let mut buffer = [0; 16];
        for _ in 0..64 {
            let Ok((_, peer)) = socket.recv_from(&mut buffer) else {
                break;
            };
            drop(socket.send_to(format!("{name}{}", plain(peer.ip())).as_bytes(), peer));
        }
    });
}

fn plain(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// A neighbour that is looked for only now may be found late on a busy machine.
pub(crate) fn ask_tcp(address: &str) -> io::Result<String> {
    for _ in 0..3 {
        match ask_tcp_for(address, PATIENCE) {
            Err(error) if error.kind() == io::ErrorKind::HostUnreachable => {}
            answer => return answer,
        }
    }
    ask_tcp_for(address, PATIENCE)
}

pub(crate) fn ask_tcp_for(address: &str, patience: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), patience)?;
    stream.set_read_timeout(Some(patience))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

pub(crate) fn ask_udp(address: &str) -> io::Result<String> {
    let any = if address.starts_with('[') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    ask_udp_from(&UdpSocket::bind(any)?, address, PATIENCE)
}

pub(crate) fn ask_udp_from(
    socket: &UdpSocket,
    address: &str,
    patience: Duration,
) -> io::Result<String> {
    socket.set_read_timeout(Some(patience))?;
    let address: SocketAddr = address.parse().unwrap();
    socket.send_to(b"?", address)?;
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer)?;
    assert_eq!(from, address, "an answer from where it was not asked");
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

pub(crate) fn tcp(host_port: u16, container_port: u16) -> HostPort {
    HostPort {
        protocol: Protocol::Tcp,
        host_port,
        container_port,
        host_ip: None,
    }
}

pub(crate) fn udp(host_port: u16, container_port: u16) -> HostPort {
    HostPort {
        protocol: Protocol::Udp,
        ..tcp(host_port, container_port)
    }
}

pub(crate) fn on(ip: &str, mut port: HostPort) -> HostPort {
    port.host_ip = Some(ip.parse().unwrap());
    port
}
