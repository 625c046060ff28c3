//! What the bridge driver makes of half-done work and of a world that changed,
//! each test on a host of its own.

use crate::support;
use crate::support::{Host, Space, ask_tcp, ip, on_host, pod_links, port_elements, tcp};
use carpel_network::{Error, NetworkDriver};

/// Rewrites a pod's record as it was before the set-up was done.
fn undo_phase(host: &Host, pod_id: &str) {
    let path = host
        .config()
        .state_dir
        .join("pods")
        .join(format!("{pod_id}.json"));
    let record = std::fs::read_to_string(&path).unwrap();
    assert!(record.contains("\"done\""));
    std::fs::write(&path, record.replace("\"done\"", "\"intended\"")).unwrap();
}

#[test]
fn a_restart_keeps_pods_addresses_and_ports() {
    on_host(async |host: Host| {
        let (a, b) = (Space::new("a"), Space::new("b"));
        let before = a.set_up(&host.driver(), &[tcp(8080, 80)]).await.unwrap();
        a.serve(80);

        let driver = host.driver();
        driver.check("a").await.unwrap();
        let error = b.set_up(&driver, &[tcp(8080, 80)]).await.unwrap_err();
        assert!(matches!(error, Error::PortInUse { .. }), "{error}");
        let second = b.set_up(&driver, &[tcp(8081, 80)]).await.unwrap();
        assert_ne!(second.addresses, before.addresses);
        ask_tcp("127.0.0.1:8080").unwrap();
        // Setting up again what stands is no change.
        assert_eq!(a.set_up(&driver, &[tcp(8080, 80)]).await.unwrap(), before);
        assert_eq!(pod_links().len(), 2);

        let driver = host.driver();
        driver.teardown("a").await.unwrap();
        driver.teardown("a").await.unwrap();
        assert_eq!((pod_links().len(), port_elements()), (1, 2));
        assert_eq!(host.records(), ["b.json"]);
    });
}

#[test]
fn a_crash_in_the_middle_is_undone_by_teardown() {
    on_host(async |host: Host| {
        for without in ["nothing", "address", "device", "all"] {
            let pod = Space::new("pod");
            let driver = host.driver();
            let attachment = pod.set_up(&driver, &[tcp(8080, 80)]).await.unwrap();
            undo_phase(&host, "pod");
            match without {
                "address" => drop(pod.within(|| ip("address flush dev eth0"))),
                "device" => drop(ip(&format!("link delete {}", attachment.host_interface))),
                "all" => {
                    ip(&format!("link delete {}", attachment.host_interface));
                    support::nft("delete table inet carpel");
                }
                _ => {}
            }
            let driver = host.driver();
            let error = driver.check("pod").await.unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{error}");
            driver.teardown("pod").await.unwrap();
            assert!(
                pod_links().is_empty() && host.records().is_empty(),
                "{without}"
            );
            assert_eq!(port_elements(), 0, "{without}");
        }
    });
}

#[test]
fn a_crash_in_the_middle_does_not_stop_the_same_pod() {
    on_host(async |host: Host| {
        let pod = Space::new("pod");
        pod.set_up(&host.driver(), &[tcp(8080, 80)]).await.unwrap();
        undo_phase(&host, "pod");
        pod.set_up(&host.driver(), &[tcp(8080, 80)]).await.unwrap();
        pod.serve(80);
        ask_tcp("127.0.0.1:8080").unwrap();
        assert_eq!((pod_links().len(), port_elements()), (1, 2));
    });
}

#[test]
fn a_failed_set_up_leaves_nothing() {
    on_host(async |host: Host| {
        let driver = host.driver();
        let pod = Space::new("pod");
        pod.within(|| ip("link add eth0 type bridge"));
        let error = pod.set_up(&driver, &[tcp(8080, 80)]).await.unwrap_err();
        assert!(error.to_string().contains("eth0 for pod pod"), "{error}");
        assert!(pod_links().is_empty() && host.records().is_empty());
        assert_eq!(port_elements(), 0);

        pod.within(|| ip("link delete eth0"));
        pod.set_up(&driver, &[tcp(8080, 80)]).await.unwrap();
    });
}

#[test]
fn teardown_needs_no_namespace() {
    on_host(async |host: Host| {
        let driver = host.driver();
        let pod = Space::new("pod");
        pod.set_up(&driver, &[tcp(8080, 80)]).await.unwrap();
        drop(pod);
        driver.teardown("pod").await.unwrap();
        assert!(pod_links().is_empty() && host.records().is_empty());
        assert_eq!(port_elements(), 0);
    });
}

#[test]
fn gc_undoes_what_belongs_to_no_living_pod() {
    on_host(async |host: Host| {
        let driver = host.driver();
        let pods = ["living", "dead", "lost"].map(Space::new);
        for pod in &pods {
            pod.set_up(&driver, &[]).await.unwrap();
        }
        let records = host.config().state_dir.join("pods");
        std::fs::write(records.join("lost.json"), "").unwrap();
        // Not ours, though it looks so: it is on no bridge of ours.
        ip("link add cplforeign type bridge");

        let driver = host.driver();
        driver.gc(&["living".into()]).await.unwrap();
        assert_eq!(host.records(), ["living.json"]);
        assert_eq!(pod_links().len(), 2);
        driver.check("living").await.unwrap();
    });
}

#[test]
fn a_lost_record_does_not_keep_the_device() {
    on_host(async |host: Host| {
        let pod = Space::new("pod");
        pod.set_up(&host.driver(), &[]).await.unwrap();
        std::fs::write(host.config().state_dir.join("pods/pod.json"), "{").unwrap();
        host.driver().teardown("pod").await.unwrap();
        assert!(pod_links().is_empty());
    });
}

#[test]
fn a_bridge_that_someone_deleted_comes_back() {
    on_host(async |host: Host| {
        let driver = host.driver();
        let (a, b) = (Space::new("a"), Space::new("b"));
        a.set_up(&driver, &[]).await.unwrap();
        ip("link delete carpel0");
        let error = driver.check("a").await.unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        b.set_up(&driver, &[]).await.unwrap();
        b.serve(80);
        ask_tcp("10.88.0.3:80").unwrap();
    });
}

#[test]
fn ids_that_are_no_file_names_are_refused() {
    on_host(async |host: Host| {
        let driver = host.driver();
        let error = Space::new("../pod").set_up(&driver, &[]).await.unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
        driver.teardown("../pod").await.unwrap();
    });
}
