//! SCTP host ports: the rules everywhere, packets where the kernel can.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use carpel_network::{HostPort, NetworkDriver, Protocol};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, accept, bind, connect, ipproto,
    listen, recv, send, socket_with, sockopt,
};

use crate::support::{Host, Space, nft, on_host, tcp};

fn sctp(host_port: u16, container_port: u16) -> HostPort {
    HostPort {
        protocol: Protocol::Sctp,
        ..tcp(host_port, container_port)
    }
}

fn socket() -> Result<OwnedFd, Errno> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        Some(ipproto::SCTP),
    )?;
    sockopt::set_socket_timeout(
        &socket,
        sockopt::Timeout::Recv,
        Some(Duration::from_secs(5)),
    )?;
    Ok(socket)
}

#[test]
fn an_sctp_port_has_its_place_beside_the_others() {
    on_host(async |host: Host| {
        let driver = host.driver();
        let a = Space::new("a");
        a.set_up(&driver, &[sctp(8080, 80), tcp(8080, 81)])
            .await
            .unwrap();
        let ports = nft("list map inet carpel ports4");
        assert!(ports.contains("sctp . 8080 : 10.88.0.2 . 80"), "{ports}");
        assert!(ports.contains("tcp . 8080 : 10.88.0.2 . 81"), "{ports}");
        driver.check("a").await.unwrap();
        driver.teardown("a").await.unwrap();
        assert!(!nft("list map inet carpel ports4").contains("8080"));
    });
}

#[test]
fn an_sctp_client_reaches_the_pod() {
    on_host(async |host: Host| {
        if matches!(socket(), Err(Errno::PROTONOSUPPORT)) {
            eprintln!("skipped: this kernel has no SCTP");
            return;
        }
        let driver = host.driver();
        let a = Space::new("a");
        a.set_up(&driver, &[sctp(8080, 80)]).await.unwrap();
        let listener = a.within(|| {
            let listener = socket().unwrap();
            bind(&listener, &SocketAddr::from(([0, 0, 0, 0], 80))).unwrap();
            listen(&listener, 4).unwrap();
            listener
        });
        let server = thread::spawn(move || {
            let peer = accept(&listener).unwrap();
            send(&peer, b"over sctp", SendFlags::empty()).unwrap();
        });
        let client = socket().unwrap();
        connect(&client, &SocketAddr::from(([192, 0, 2, 1], 8080))).unwrap();
        let mut answer = [0; 64];
        let (_, length) = recv(&client, &mut answer, RecvFlags::empty()).unwrap();
        assert_eq!(&answer[..length], b"over sctp");
        server.join().unwrap();
    });
}
