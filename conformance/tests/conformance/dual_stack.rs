//! Pods with an address of each family, and networks that are full.

use carpel_conformance::{Node, Settings, spec};
use k8s_cri::v1 as cri;

use crate::checks::{Outcome, Pod, assert_refused, retry};
use crate::network::echo;

const BOTH: &str = "10.77.0.0/16, fd77::/64";

fn both_protocols(host_port: i32, host_ip: &str) -> Vec<cri::PortMapping> {
    [cri::Protocol::Tcp, cri::Protocol::Udp]
        .map(|protocol| cri::PortMapping {
            host_ip: host_ip.to_owned(),
            ..spec::port(protocol, host_port, 80)
        })
        .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_has_an_address_and_a_route_of_each_family() -> Outcome {
    let settings = Settings::default().images(&[spec::TOOLS]).pod_cidr(BOTH);
    let node = Node::start(settings).await?;
    node.run("ip", &["addr", "add", "2001:db8::7/128", "dev", "lo"])?;
    let mut config = spec::pod("both");
    config.port_mappings = both_protocols(8080, "");
    let pod = Pod::run(&node, config).await?;
    let id = pod.start(&node, &echo("echo", 80)).await?;
    let network = node.cri().pod(&pod.id).await?.network.expect("a network");
    assert!(network.ip.starts_with("10.77."), "{network:?}");
    assert_eq!(network.additional_ips.len(), 1);
    let v6 = &network.additional_ips[0].ip;
    assert!(v6.starts_with("fd77::"), "{v6}");
    let routes = node.cri().output(&id, &["ip", "-6", "route"]).await?;
    assert!(routes.contains("default via fd77::1"), "{routes}");

    let direct = format!("[{v6}]:80");
    assert_eq!(retry(|| node.echo_tcp(&direct, "direct")).await?, "direct");
    for address in ["127.0.0.1:8080", "[2001:db8::7]:8080", "[fd77::1]:8080"] {
        assert_eq!(node.echo_tcp(address, "mapped")?, "mapped", "{address}");
    }
    node.cri().stop_pod(&pod.id).await?;
    assert!(node.echo_tcp("[2001:db8::7]:8080", "gone").is_err());
    node.run("ip", &["addr", "del", "2001:db8::7/128", "dev", "lo"])?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_ip_of_each_family_restricts_the_port_to_it() -> Outcome {
    let settings = Settings::default().images(&[spec::TOOLS]).pod_cidr(BOTH);
    let node = Node::start(settings).await?;
    node.run("ip", &["addr", "add", "2001:db8::7/128", "dev", "lo"])?;
    for (host_ip, here, elsewhere) in [
        ("2001:db8::7", "[2001:db8::7]:8081", "127.0.0.1:8081"),
        ("127.0.0.1", "127.0.0.1:8081", "[2001:db8::7]:8081"),
    ] {
        let mut config = spec::pod("bound");
        config.port_mappings = both_protocols(8081, host_ip);
        let pod = Pod::run(&node, config).await?;
        pod.start(&node, &echo("echo", 80)).await?;
        assert_eq!(retry(|| node.echo_tcp(here, "x")).await?, "x", "{here}");
        assert!(node.echo_tcp(elsewhere, "x").is_err(), "{elsewhere}");
        node.cri().stop_pod(&pod.id).await?;
        node.cri().remove_pod(&pod.id).await?;
    }
    node.run("ip", &["addr", "del", "2001:db8::7/128", "dev", "lo"])?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_network_is_exhausted_until_a_pod_goes() -> Outcome {
    let settings = Settings::default().pod_cidr("10.78.0.0/30");
    let node = Node::start(settings).await?;
    let first = Pod::run(&node, spec::pod("first")).await?;
    let address = node.cri().pod_ip(&first.id).await?;
    let refused = node.cri().run_pod(&spec::pod("second")).await;
    assert_refused(refused, tonic::Code::ResourceExhausted, &["10.78.0.0/30"]);
    // A stopped pod has given its address back.
    node.cri().stop_pod(&first.id).await?;
    let second = Pod::run(&node, spec::pod("second")).await?;
    assert_eq!(node.cri().pod_ip(&second.id).await?, address);
    node.finish().await
}
