//! Host ports of the bridge with real packets, each test on a host of its own.

use std::net::{TcpListener, UdpSocket};

use crate::support;
use crate::support::{
    Host, IMPATIENCE, Space, ask_tcp, ask_tcp_for, ask_udp, ask_udp_from, nft, on, on_host,
    pod_links, port_elements, tcp, udp,
};
use carpel_network::{Error, NetworkDriver};

#[test]
fn host_ports_work_on_every_address_and_from_everywhere() {
    on_host(everywhere);
}

/// Where bridged packets pass through the rules of routed ones, and where not.
#[test]
fn host_ports_work_without_netfilter_on_bridges() {
    on_host(async |host: Host| {
        for family in ["ip", "ip6"] {
            let switch = format!("/proc/sys/net/bridge/bridge-nf-call-{family}tables");
            if std::path::Path::new(&switch).exists() {
                std::fs::write(switch, "0").unwrap();
            }
        }
        everywhere(host).await;
    });
}

async fn everywhere(host: Host) {
    let driver = host.driver();
    let outside = Space::outside();
    let (a, b) = (Space::new("a"), Space::new("b"));
    a.set_up(&driver, &[tcp(8080, 80), udp(8081, 80)])
        .await
        .unwrap();
    b.set_up(&driver, &[]).await.unwrap();
    a.serve(80);

    for ip in ["127.0.0.1", "127.0.0.9", "192.0.2.1", "10.88.0.1"] {
        ask_tcp(&format!("{ip}:8080")).expect(ip);
        ask_udp(&format!("{ip}:8081")).expect(ip);
    }
    // From outside, with the client's own address.
    assert_eq!(
        outside.ask_tcp("198.51.100.1:8080").unwrap(),
        "198.51.100.2"
    );
    assert_eq!(
        outside.ask_udp("198.51.100.1:8081").unwrap(),
        "198.51.100.2"
    );
    // From the pod itself and from its neighbour.
    assert_eq!(a.ask_tcp("192.0.2.1:8080").unwrap(), "10.88.0.1");
    assert_eq!(a.ask_udp("192.0.2.1:8081").unwrap(), "10.88.0.1");
    assert_eq!(b.ask_tcp("192.0.2.1:8080").unwrap(), "10.88.0.1");
    assert_eq!(b.ask_udp("192.0.2.1:8081").unwrap(), "10.88.0.1");
    // The neighbour is seen by its address where no mapping is involved.
    assert_eq!(b.ask_tcp("10.88.0.2:80").unwrap(), "10.88.0.3");
    driver.check("a").await.unwrap();

    driver.teardown("a").await.unwrap();
    assert_eq!(port_elements(), 0);
    let error = ask_tcp_for("127.0.0.1:8080", IMPATIENCE).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_host_address_restricts_the_port_to_it() {
    on_host(async |host: Host| {
        let driver = host.driver();
        let (a, b) = (Space::new("a"), Space::new("b"));
        a.set_up(&driver, &[on("127.0.0.1", tcp(8080, 80))])
            .await
            .unwrap();
        b.set_up(&driver, &[on("192.0.2.1", tcp(8080, 80))])
            .await
            .unwrap();
        a.serve_named(80, "a, ");
        b.serve_named(80, "b, ");
        assert!(ask_tcp("127.0.0.1:8080").unwrap().starts_with("a, "));
        assert!(ask_tcp("192.0.2.1:8080").unwrap().starts_with("b, "));
        driver.teardown("b").await.unwrap();
        ask_tcp_for("192.0.2.1:8080", IMPATIENCE).unwrap_err();
        assert!(ask_tcp("127.0.0.1:8080").unwrap().starts_with("a, "));
    });
}

#[test]
fn port_zero_and_no_ports_touch_no_map() {
    on_host(async |host: Host| {
        let driver = host.driver();
        let pod = Space::new("pod");
        pod.set_up(&driver, &[tcp(0, 80), udp(0, 80)])
            .await
            .unwrap();
        assert_eq!(port_elements(), 0);
        pod.serve(80);
        ask_tcp("10.88.0.2:80").unwrap();
    });
}

#[test]
fn a_port_that_someone_has_is_refused_before_anything_is_made() {
    on_host(async |host: Host| {
        let driver = host.driver();
        let (a, b) = (Space::new("a"), Space::new("b"));
        a.set_up(&driver, &[tcp(8080, 80)]).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:9090").unwrap();
        let socket = UdpSocket::bind("192.0.2.1:9091").unwrap();
        let me = format!("process {}", std::process::id());
        for (port, by) in [
            (tcp(8080, 90), "pod ns/a (a)".to_owned()),
            (on("192.0.2.1", tcp(8080, 90)), "pod ns/a (a)".to_owned()),
            (tcp(9090, 80), me.clone()),
            (udp(9091, 80), me),
        ] {
            let error = b.set_up(&driver, &[tcp(7070, 80), port]).await.unwrap_err();
            let Error::PortInUse { by: who, .. } = &error else {
                panic!("{error}")
            };
            assert!(who.starts_with(&by), "{error}");
            assert_eq!(host.records(), ["a.json"]);
            assert_eq!(pod_links().len(), 1);
        }
        // The other protocol and the other address are free.
        let free = [udp(8080, 80), udp(9090, 80), on("192.0.2.1", tcp(9090, 80))];
        b.set_up(&driver, &free).await.unwrap();
        drop((listener, socket));
    });
}

#[test]
fn one_of_many_that_want_a_port_gets_it() {
    on_host(async |host: Host| {
        let driver = std::sync::Arc::new(host.driver());
        let mut tasks = tokio::task::JoinSet::new();
        for i in 0..8 {
            let driver = driver.clone();
            tasks.spawn(async move {
                let pod = Space::new(&format!("pod-{i}"));
                pod.set_up(&*driver, &[tcp(8080, 80)]).await
            });
        }
        let results = tasks.join_all().await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        for error in results.into_iter().filter_map(Result::err) {
            assert!(matches!(error, Error::PortInUse { .. }), "{error}");
        }
        assert_eq!((host.records().len(), port_elements()), (1, 2));
    });
}

#[test]
fn a_udp_client_that_goes_on_sending_finds_the_next_pod() {
    on_host(async |host: Host| {
        let driver = host.driver();
        let outside = Space::outside();
        let client = outside.within(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        let address = "198.51.100.1:5353";
        // Forwarding and tracking begin with some pod.
        Space::new("other")
            .set_up(&driver, &[tcp(1, 1)])
            .await
            .unwrap();
        ask_udp_from(&client, address, IMPATIENCE).unwrap_err();

        for id in ["first", "second"] {
            let pod = Space::new(id);
            pod.set_up(&driver, &[udp(5353, 53)]).await.unwrap();
            pod.serve_named(53, if id == "first" { "first " } else { "second " });
            let answer = ask_udp_from(&client, address, support::PATIENCE).unwrap();
            assert_eq!(answer, format!("{id} 198.51.100.2"));
            driver.teardown(id).await.unwrap();
        }
        // And, when there is none, the host.
        support::serve_udp(UdpSocket::bind(address).unwrap(), "host ");
        let answer = ask_udp_from(&client, address, support::PATIENCE).unwrap();
        assert_eq!(answer, "host 198.51.100.2");
    });
}

#[test]
fn pods_do_not_reach_the_hosts_loopback() {
    on_host(async |host: Host| {
        let driver = host.driver();
        let pod = Space::new("pod");
        pod.set_up(&driver, &[tcp(8080, 80)]).await.unwrap();
        let socket = UdpSocket::bind("127.0.0.1:9999").unwrap();
        socket.set_read_timeout(Some(IMPATIENCE)).unwrap();
        // A pod that may change its own routes sends 127.0.0.1 to the gateway.
        pod.within(|| {
            for route in ["127.0.0.0/8", "127.0.0.1"] {
                support::ip(&format!("route delete table local local {route} dev lo"));
            }
            std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
            support::ip("route add 127.0.0.0/8 via 10.88.0.1 src 10.88.0.2");
        });
        let arrives = || {
            pod.within(|| {
                let socket = UdpSocket::bind("10.88.0.2:0").unwrap();
                socket.send_to(b"?", "127.0.0.1:9999").unwrap();
            });
            socket.recv(&mut [0; 16]).is_ok()
        };
        assert!(!arrives());
        nft("flush chain inet carpel guard");
        assert!(arrives(), "it is the guard that keeps the pod out");
    });
}

#[test]
fn a_table_that_someone_flushed_comes_back() {
    on_host(async |host: Host| {
        let driver = host.driver();
        let (a, b) = (Space::new("a"), Space::new("b"));
        a.set_up(&driver, &[tcp(8080, 80)]).await.unwrap();
        a.serve(80);
        b.serve(80);
        nft("flush ruleset");
        let error = driver.check("a").await.unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");

        driver.gc(&["a".into()]).await.unwrap();
        driver.check("a").await.unwrap();
        ask_tcp("127.0.0.1:8080").unwrap();

        nft("flush ruleset");
        b.set_up(&driver, &[tcp(8081, 80)]).await.unwrap();
        ask_tcp("127.0.0.1:8080").unwrap();
        ask_tcp("127.0.0.1:8081").unwrap();

        nft("flush ruleset");
        driver.teardown("a").await.unwrap();
        ask_tcp("127.0.0.1:8081").unwrap();
        ask_tcp_for("127.0.0.1:8080", IMPATIENCE).unwrap_err();
    });
}
