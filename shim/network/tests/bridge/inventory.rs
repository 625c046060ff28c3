//! What is found on a host when nobody holds the driver.

use carpel_network::{Inventory, NetworkDriver};

use crate::support::{Host, Space, ip, nft, on_host, tcp};

#[test]
fn what_a_pod_has_is_found_and_nothing_of_it_is_stray() {
    on_host(async |host: Host| {
        assert_eq!(
            Inventory::take(&host.config()).unwrap(),
            Inventory::default()
        );
        let driver = host.driver();
        let a = Space::new("a");
        let attachment = a.set_up(&driver, &[tcp(8080, 80)]).await.unwrap();
        let found = Inventory::take(&host.config()).unwrap();
        assert!(found.links.contains(&attachment.host_interface));
        assert!(found.targets.contains(&attachment.addresses[0]));
        assert_eq!(found.records.len(), 1);
        assert_eq!(
            (found.stray_links().count(), found.stray_targets().count()),
            (0, 0)
        );

        ip("link add cplstray0 type bridge");
        nft("add element inet carpel targets4 { 10.88.9.9 . tcp . 1 }");
        let found = Inventory::take(&host.config()).unwrap();
        assert_eq!(found.stray_links().collect::<Vec<_>>(), ["cplstray0"]);
        let targets: Vec<_> = found.stray_targets().map(ToString::to_string).collect();
        assert_eq!(targets, ["10.88.9.9"]);

        let pools = driver.pools();
        assert_eq!((pools.len(), pools[0].used, pools[0].total), (1, 1, 65533));
        driver.teardown("a").await.unwrap();
        assert_eq!(driver.pools()[0].used, 0);
    });
}
