//! The bridge with real packets.

use std::fs::Permissions;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;

use crate::support;
use crate::support::{
    Host, IMPATIENCE, Space, ask_tcp, ask_tcp_for, ip, nft, on_host, pod_links, run, serve_tcp,
    sysctl,
};
use carpel_network::{BridgeDriver, Error, NetworkDriver, StaticRoute};

#[test]
fn pods_reach_each_other_and_the_host_both_ways() {
    on_host(async |host: Host| {
        let driver = host.driver();
        let (a, b) = (Space::new("a"), Space::new("b"));
        let first = a.set_up(&driver, &[]).await.unwrap();
        let second = b.set_up(&driver, &[]).await.unwrap();
        assert_eq!(first.addresses, [Ipv4Addr::new(10, 88, 0, 2)]);
        assert_eq!(second.addresses, [Ipv4Addr::new(10, 88, 0, 3)]);
        assert_eq!(first.interface, "eth0");
        assert_eq!(pod_links().len(), 2);
        assert!(pod_links().contains(&first.host_interface));

        b.serve(80);
        serve_tcp(TcpListener::bind("0.0.0.0:81").unwrap(), "host sees ");
        assert_eq!(a.ask_tcp("10.88.0.3:80").unwrap(), "10.88.0.2");
        assert_eq!(b.ask_tcp("127.0.0.1:80").unwrap(), "127.0.0.1", "lo is up");
        assert_eq!(ask_tcp("10.88.0.3:80").unwrap(), "10.88.0.1");
        assert_eq!(a.ask_tcp("10.88.0.1:81").unwrap(), "host sees 10.88.0.2");
        assert_eq!(a.ask_tcp("192.0.2.1:81").unwrap(), "host sees 10.88.0.2");
        driver.check("a").await.unwrap();
        driver.check("b").await.unwrap();
    });
}

#[test]
fn nothing_of_the_host_changes_before_the_first_pod() {
    on_host(async |host: Host| {
        let before = ip("-o address show");
        let driver = host.driver();
        assert!(driver.status().await.ready);
        driver.gc(&[]).await.unwrap();
        driver.teardown("unknown").await.unwrap();
        assert_eq!(ip("-o address show"), before);
        assert_eq!(nft("list ruleset"), "");
        assert_eq!(sysctl("ipv4/ip_forward"), "0");
    });
}

#[test]
fn pods_leave_under_the_nodes_address_but_not_to_known_networks() {
    on_host(async |host: Host| {
        let outside = Space::outside();
        outside.serve(80);
        outside.within(|| ip("route add 10.88.0.0/16 via 198.51.100.1"));
        outside.within(|| ip("address add 10.99.0.2/24 dev eth0"));
        let mut config = host.config();
        let route = |dst: &str, via: &str| StaticRoute {
            dst: dst.parse().unwrap(),
            via: via.parse().unwrap(),
        };
        // The second is this node's own, in a list that all nodes share.
        config.routes = vec![
            route("10.99.0.0/24", "198.51.100.2"),
            route("10.88.0.0/16", "198.51.100.1"),
        ];
        let driver = BridgeDriver::open(config).unwrap();
        let pod = Space::new("pod");
        pod.set_up(&driver, &[]).await.unwrap();
        assert_eq!(pod.ask_tcp("198.51.100.2:80").unwrap(), "198.51.100.1");
        assert_eq!(
            pod.ask_tcp("10.99.0.2:80").unwrap(),
            "10.88.0.2",
            "another node's pod"
        );

        driver.destroy().await.unwrap();
        assert!(!ip("route show").contains("10.99.0.0/24"));
    });
}

#[test]
fn without_masquerade_pods_keep_their_address_and_need_no_table() {
    on_host(async |host: Host| {
        let outside = Space::outside();
        outside.serve(80);
        outside.within(|| ip("route add 10.88.0.0/16 via 198.51.100.1"));
        let mut config = host.config();
        config.masquerade = false;
        let driver = BridgeDriver::open(config).unwrap();
        let pod = Space::new("pod");
        pod.set_up(&driver, &[]).await.unwrap();
        assert_eq!(pod.ask_tcp("198.51.100.2:80").unwrap(), "10.88.0.2");
        assert_eq!(nft("list ruleset"), "");
    });
}

#[test]
fn ipv6_works_beside_ipv4() {
    on_host(async |host: Host| {
        ip("address add 2001:db8::1/64 dev uplink nodad");
        let mut config = host.config();
        config.pod_cidrs.push("fd00:88::/64".parse().unwrap());
        let driver = BridgeDriver::open(config).unwrap();
        let (a, b) = (Space::new("a"), Space::new("b"));
        a.set_up(&driver, &[]).await.unwrap();
        let ports = [support::tcp(8080, 80), support::udp(8080, 80)];
        let attachment = b.set_up(&driver, &ports).await.unwrap();
        let addresses: Vec<_> = attachment
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(addresses, ["10.88.0.3", "fd00:88::3"]);
        b.serve(80);
        assert_eq!(a.ask_tcp("[fd00:88::3]:80").unwrap(), "fd00:88::2");
        assert_eq!(ask_tcp("[fd00:88::3]:80").unwrap(), "fd00:88::1");
        assert_eq!(ask_tcp("[2001:db8::1]:8080").unwrap(), "2001:db8::1");
        assert_eq!(
            support::ask_udp("[2001:db8::1]:8080").unwrap(),
            "2001:db8::1"
        );
        assert_eq!(
            b.ask_tcp("[2001:db8::1]:8080").unwrap(),
            "fd00:88::1",
            "hairpin"
        );
        assert_eq!(ask_tcp("127.0.0.1:8080").unwrap(), "10.88.0.1");
        driver.teardown("b").await.unwrap();
        ask_tcp_for("[2001:db8::1]:8080", IMPATIENCE).unwrap_err();
    });
}

#[test]
fn fifty_pods_at_once_have_fifty_addresses() {
    on_host(async |host: Host| {
        let driver = std::sync::Arc::new(host.driver());
        let mut tasks = tokio::task::JoinSet::new();
        for i in 0..50 {
            let driver = driver.clone();
            tasks.spawn(async move {
                let pod = Space::new(&format!("pod-{i}"));
                let ports = if i % 10 == 0 {
                    vec![support::tcp(8000 + i, 80)]
                } else {
                    vec![]
                };
                let attachment = pod.set_up(&*driver, &ports).await.unwrap();
                (pod, attachment)
            });
        }
        let all = tasks.join_all().await;
        let addresses: std::collections::HashSet<_> = all
            .iter()
            .map(|(_, attachment)| attachment.addresses[0])
            .collect();
        assert_eq!(addresses.len(), 50);
        assert_eq!(pod_links().len(), 50);
        let (first, last) = (&all[0], &all[49]);
        last.0.serve(80);
        first
            .0
            .ask_tcp(&format!("{}:80", last.1.addresses[0]))
            .unwrap();

        let mut tasks = tokio::task::JoinSet::new();
        for (pod, _) in &all {
            let (driver, id) = (driver.clone(), pod.id.clone());
            tasks.spawn(async move { driver.teardown(&id).await.unwrap() });
        }
        tasks.join_all().await;
        assert!(pod_links().is_empty() && host.records().is_empty());
        assert_eq!(support::port_elements(), 0);
    });
}

#[test]
fn a_full_network_says_so_and_recovers() {
    on_host(async |host: Host| {
        let mut config = host.config();
        config.pod_cidrs = vec!["10.5.0.0/29".parse().unwrap()];
        let driver = BridgeDriver::open(config).unwrap();
        let pods: Vec<_> = (0..6).map(|i| Space::new(&format!("pod-{i}"))).collect();
        for pod in &pods[..5] {
            pod.set_up(&driver, &[]).await.unwrap();
        }
        let error = pods[5].set_up(&driver, &[]).await.unwrap_err();
        assert!(matches!(error, Error::Exhausted(_)), "{error}");
        assert_eq!(pod_links().len(), 5);
        driver.teardown("pod-2").await.unwrap();
        let attachment = pods[5].set_up(&driver, &[]).await.unwrap();
        assert_eq!(attachment.addresses, [Ipv4Addr::new(10, 5, 0, 4)]);
    });
}

#[test]
fn a_new_pod_cidr_is_for_new_pods() {
    on_host(async |host: Host| {
        let mut config = host.config();
        config.pod_cidrs.clear();
        let driver = BridgeDriver::open(config).unwrap();
        let (old, new) = (Space::new("old"), Space::new("new"));
        assert_eq!(driver.status().await.reason, "NoPodCIDR");
        let error = old.set_up(&driver, &[]).await.unwrap_err();
        assert!(matches!(error, Error::NotReady(_)), "{error}");

        driver
            .set_pod_cidrs(&["10.1.0.0/24".parse().unwrap()])
            .await
            .unwrap();
        assert!(driver.status().await.ready);
        old.set_up(&driver, &[]).await.unwrap();
        driver
            .set_pod_cidrs(&["10.2.0.0/24".parse().unwrap()])
            .await
            .unwrap();
        let attachment = new.set_up(&driver, &[]).await.unwrap();
        assert_eq!(attachment.addresses, [Ipv4Addr::new(10, 2, 0, 2)]);

        old.serve(80);
        new.serve(80);
        assert_eq!(old.ask_tcp("10.2.0.2:80").unwrap(), "10.1.0.2");
        assert_eq!(new.ask_tcp("10.1.0.2:80").unwrap(), "10.2.0.2");
        assert_eq!(ask_tcp("10.1.0.2:80").unwrap(), "10.1.0.1");
    });
}

#[test]
fn the_mtu_follows_the_way_out_or_the_config() {
    on_host(async |host: Host| {
        ip("link set uplink mtu 1400");
        ip("route add default dev uplink");
        let pod = Space::new("pod");
        let driver = host.driver();
        pod.set_up(&driver, &[]).await.unwrap();
        assert!(pod.within(|| ip("link show eth0")).contains("mtu 1400"));
        driver.destroy().await.unwrap();

        let mut config = host.config();
        config.mtu = 1300;
        let driver = BridgeDriver::open(config).unwrap();
        pod.set_up(&driver, &[]).await.unwrap();
        assert!(pod.within(|| ip("link show eth0")).contains("mtu 1300"));
        assert!(ip("link show carpel0").contains("mtu 1300"));
    });
}

#[test]
fn destroy_leaves_the_host_as_it_was() {
    on_host(async |host: Host| {
        nft("add table ip theirs");
        nft("add chain ip theirs input { type filter hook input priority 0; }");
        nft("add rule ip theirs input counter drop");
        nft("flush chain ip theirs input");
        let state = || (ip("-o address show"), ip("route show"), nft("list ruleset"));
        let before = state();
        let driver = host.driver();
        let (a, b) = (Space::new("a"), Space::new("b"));
        a.set_up(&driver, &[support::tcp(8080, 80)]).await.unwrap();
        b.set_up(&driver, &[]).await.unwrap();
        assert_eq!(sysctl("ipv4/ip_forward"), "1");
        assert!(
            nft("list ruleset").contains(before.2.trim()),
            "others' rules stay"
        );

        // By another driver: all that is needed was written down.
        drop(driver);
        host.driver().destroy().await.unwrap();
        assert_eq!(state(), before);
        assert_eq!(sysctl("ipv4/ip_forward"), "0");
        assert!(!host.config().state_dir.exists());
    });
}

#[test]
fn a_bridge_that_was_there_is_used_and_left() {
    on_host(async |host: Host| {
        ip("link add carpel0 type bridge");
        let driver = host.driver();
        let pod = Space::new("pod");
        pod.set_up(&driver, &[]).await.unwrap();
        pod.serve(80);
        ask_tcp("10.88.0.2:80").unwrap();
        driver.destroy().await.unwrap();
        assert!(ip("link show").contains("carpel0"));

        ip("link delete carpel0");
        ip("link add carpel0 type veth");
        let error = pod.set_up(&host.driver(), &[]).await.unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
        assert!(host.records().is_empty());
    });
}

#[test]
fn a_missing_nft_is_told_before_a_pod_needs_it() {
    on_host(async |host: Host| {
        let mut config = host.config();
        config.nft = "/nowhere/nft".into();
        let driver = BridgeDriver::open(config.clone()).unwrap();
        let status = driver.status().await;
        assert_eq!(
            (status.ready, status.reason.as_str()),
            (false, "NftMissing")
        );

        config.masquerade = false;
        let driver = BridgeDriver::open(config).unwrap();
        assert!(driver.status().await.ready);
        let pod = Space::new("pod");
        let error = pod
            .set_up(&driver, &[support::tcp(8080, 80)])
            .await
            .unwrap_err();
        assert!(matches!(error, Error::NotReady(_)), "{error}");
        assert!(host.records().is_empty() && pod_links().is_empty());
        pod.set_up(&driver, &[]).await.unwrap();
    });
}

#[test]
fn pods_without_host_ports_run_no_program() {
    on_host(async |host: Host| {
        let dir = tempfile::tempdir().unwrap();
        let (script, log) = (dir.path().join("nft"), dir.path().join("log"));
        let text = format!(
            "#!/bin/sh\necho run >> {}\nexec nft \"$@\"\n",
            log.display()
        );
        // Copied by a process of its own: a file that a test beside us still holds open
        // for writing, between fork and exec, cannot be run.
        let draft = dir.path().join("draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::set_permissions(&draft, Permissions::from_mode(0o755)).unwrap();
        run(
            "cp",
            &format!("-p {} {}", draft.display(), script.display()),
        );
        let runs = || {
            std::fs::read_to_string(&log)
                .unwrap_or_default()
                .lines()
                .count()
        };
        let mut config = host.config();
        config.nft = script;
        let driver = BridgeDriver::open(config).unwrap();
        let pods = ["a", "b", "c"].map(Space::new);
        for pod in &pods {
            pod.set_up(&driver, &[]).await.unwrap();
        }
        assert_eq!(runs(), 1, "the table, once");
        for pod in &pods {
            driver.teardown(&pod.id).await.unwrap();
        }
        assert_eq!(runs(), 1);
        pods[0]
            .set_up(&driver, &[support::tcp(8080, 80)])
            .await
            .unwrap();
        driver.teardown("a").await.unwrap();
        assert_eq!(runs(), 3);
    });
}

#[test]
fn hairpin_is_as_configured() {
    on_host(async |host: Host| {
        for hairpin in [true, false] {
            let mut config = host.config();
            config.hairpin = hairpin;
            let driver = BridgeDriver::open(config).unwrap();
            Space::new("other").set_up(&driver, &[]).await.unwrap();
            let pod = Space::new("pod");
            let name = pod.set_up(&driver, &[]).await.unwrap().host_interface;
            let expected = if hairpin { "hairpin on" } else { "hairpin off" };
            assert!(ip(&format!("-d link show {name}")).contains(expected));
            driver.destroy().await.unwrap();
        }
    });
}
