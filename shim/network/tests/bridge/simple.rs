//! The drivers without a network of their own.

use crate::support::{Host, Space, ip, on_host};
use carpel_network::{HostDriver, NetworkDriver, NoneDriver};

#[test]
fn none_gives_a_pod_its_loopback_and_no_more() {
    on_host(async |_: Host| {
        let before = ip("-o link show");
        let pod = Space::new("pod");
        let attachment = pod.set_up(&NoneDriver, &[]).await.unwrap();
        assert!(attachment.addresses.is_empty());
        pod.serve(80);
        assert_eq!(pod.ask_tcp("127.0.0.1:80").unwrap(), "127.0.0.1");
        assert_eq!(pod.within(|| ip("-o link show")).lines().count(), 1);
        assert_eq!(ip("-o link show"), before);
        NoneDriver.teardown("pod").await.unwrap();
    });
}

#[test]
fn host_changes_nothing() {
    on_host(async |_: Host| {
        let pod = Space::new("pod");
        let attachment = pod.set_up(&HostDriver, &[]).await.unwrap();
        assert!(attachment.addresses.is_empty() && attachment.interface.is_empty());
        assert!(!pod.within(|| ip("link show lo")).contains(",UP"));
        assert!(HostDriver.status().await.ready);
        HostDriver.check("pod").await.unwrap();
        HostDriver.teardown("pod").await.unwrap();
    });
}
