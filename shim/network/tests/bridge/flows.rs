//! What the kernel remembers of connections to host ports, and what others' rules
//! see of ours.

use carpel_network::{BridgeDriver, NetworkDriver};

use crate::support::{Host, Space, ask_tcp, ask_udp, ip, nft, on_host, tcp, udp};

/// Tracked flows of the calling thread's namespace that name one of these.
fn tracked(words: &[&str]) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap();
    table
        .lines()
        .filter(|line| line.split(' ').any(|word| words.contains(&word)))
        .map(str::to_owned)
        .collect()
}

#[test]
fn no_flow_of_a_host_port_outlives_its_pod() {
    on_host(async |host: Host| {
        if std::fs::metadata("/proc/thread-self/net/nf_conntrack").is_err() {
            eprintln!("skipped: this kernel does not show tracked flows in /proc");
            return;
        }
        ip("address add 2001:db8::1/64 dev uplink nodad");
        let mut config = host.config();
        config.pod_cidrs.push("fd00:88::/64".parse().unwrap());
        let driver = BridgeDriver::open(config).unwrap();
        let (a, b) = (Space::new("a"), Space::new("b"));
        a.set_up(&driver, &[tcp(8080, 80), udp(8081, 80)])
            .await
            .unwrap();
        b.set_up(&driver, &[tcp(9090, 80), udp(9091, 80)])
            .await
            .unwrap();
        a.serve(80);
        b.serve(80);
        for host in ["127.0.0.1", "192.0.2.1", "[2001:db8::1]"] {
            ask_tcp(&format!("{host}:8080")).expect(host);
            ask_udp(&format!("{host}:8081")).expect(host);
            ask_tcp(&format!("{host}:9090")).expect(host);
            ask_udp(&format!("{host}:9091")).expect(host);
        }
        let of_a = ["dport=8080", "dport=8081"];
        let of_b = ["dport=9090", "dport=9091"];
        assert!(tracked(&of_a).len() >= 6, "{:#?}", tracked(&of_a));
        let kept = tracked(&of_b).len();
        driver.teardown("a").await.unwrap();
        assert_eq!(tracked(&of_a), Vec::<String>::new());
        assert_eq!(tracked(&of_b).len(), kept, "flows of another pod");
        driver.teardown("b").await.unwrap();
        assert_eq!(tracked(&of_b), Vec::<String>::new());
    });
}

#[test]
fn tables_of_others_stay_as_they_are() {
    on_host(async |host: Host| {
        nft("add table ip others");
        nft("add chain ip others input { type filter hook input priority 0; }");
        nft("add rule ip others input tcp dport 4 accept");
        let before = nft("list table ip others");
        let driver = host.driver();
        let a = Space::new("a");
        a.set_up(&driver, &[tcp(8080, 80), udp(8080, 80)])
            .await
            .unwrap();
        let tables: Vec<_> = nft("list tables").lines().map(str::to_owned).collect();
        assert_eq!(tables, ["table ip others", "table inet carpel"]);
        assert_eq!(nft("list table ip others"), before);
        driver.destroy().await.unwrap();
        assert_eq!(nft("list ruleset"), before);
    });
}

/// A change that fails in its middle is not applied in part.
#[test]
fn a_batch_is_applied_whole_or_not_at_all() {
    on_host(async |host: Host| {
        let driver = host.driver();
        let (a, b) = (Space::new("a"), Space::new("b"));
        a.set_up(&driver, &[tcp(8080, 80)]).await.unwrap();
        // Somebody has taken the second of the two ports away under our feet.
        nft("add element inet carpel ports4 { udp . 8081 : 10.9.9.9 . 9 }");
        b.set_up(&driver, &[tcp(8082, 80), udp(8081, 80)])
            .await
            .unwrap();
        let ports = nft("list map inet carpel ports4");
        assert!(
            !ports.contains("10.9.9.9"),
            "the table is ours, and was renewed: {ports}"
        );
        for port in ["8080", "8081", "8082"] {
            assert_eq!(ports.matches(&format!(". {port} :")).count(), 1, "{ports}");
        }
    });
}
