//! Ports of the node that lead into pods.

use carpel_conformance::{Node, spec};
use k8s_cri::v1 as cri;

use crate::checks::{Outcome, Pod, assert_refused, retry};
use crate::network::echo;

/// A pod that answers on its port 80 for a port of the node, over both protocols.
async fn server(node: &Node, host_port: i32) -> anyhow::Result<Pod> {
    let mut config = spec::pod("server");
    config.port_mappings = vec![
        spec::port(cri::Protocol::Tcp, host_port, 80),
        spec::port(cri::Protocol::Udp, host_port, 80),
    ];
    let pod = Pod::run(node, config).await?;
    pod.start(node, &echo("echo", 80)).await?;
    Ok(pod)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_port_answers_on_every_address_of_the_node() -> Outcome {
    let node = Node::with(&[spec::TOOLS]).await?;
    node.run(
        "ip",
        &[
            "link", "add", "lan0", "type", "veth", "peer", "name", "lan1",
        ],
    )?;
    node.run("ip", &["addr", "add", "198.51.100.7/24", "dev", "lan0"])?;
    node.run("ip", &["link", "set", "lan0", "up"])?;
    node.rebase()?;
    let pod = server(&node, 8080).await?;
    for address in ["127.0.0.1:8080", "198.51.100.7:8080"] {
        let said = retry(|| node.echo_tcp(address, "over tcp")).await;
        assert_eq!(said?, "over tcp", "{address}");
        assert_eq!(node.echo_udp(address, "over udp")?, "over udp", "{address}");
    }
    node.cri().stop_pod(&pod.id).await?;
    assert!(node.echo_tcp("127.0.0.1:8080", "gone").is_err());
    node.run("ip", &["link", "del", "lan0"])?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_pod_reaches_a_host_port_too() -> Outcome {
    let node = Node::with(&[spec::TOOLS]).await?;
    server(&node, 8081).await?;
    let client = Pod::run(&node, spec::pod("client")).await?;
    let mut sleeper = spec::sleeper("c");
    sleeper.image = Some(spec::image(spec::TOOLS));
    let id = client.start(&node, &sleeper).await?;
    let script = "echo hello | nc -w 3 $(ip route | grep default | cut -d' ' -f3) 8081";
    assert_eq!(
        node.cri().output(&id, &["sh", "-c", script]).await?,
        "hello\n"
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_port_of_another_pod_is_refused_until_it_is_free() -> Outcome {
    let node = Node::with(&[spec::TOOLS]).await?;
    let first = server(&node, 8082).await?;
    let mut config = spec::pod("second");
    config.port_mappings = vec![spec::port(cri::Protocol::Tcp, 8082, 90)];
    let result = node.cri().run_pod(&config).await;
    assert_refused(result, tonic::Code::FailedPrecondition, &["8082"]);
    for pod in node.cri().list_pods(None).await? {
        if pod.id != first.id {
            assert_eq!(pod.state(), cri::PodSandboxState::SandboxNotready);
        }
    }
    assert_eq!(node.echo_tcp("127.0.0.1:8082", "first")?, "first");

    node.cri().stop_pod(&first.id).await?;
    let second = Pod::run(&node, config).await?;
    second.start(&node, &echo("echo", 90)).await?;
    assert_eq!(
        retry(|| node.echo_tcp("127.0.0.1:8082", "second")).await?,
        "second"
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_port_that_a_program_of_the_node_uses_is_refused() -> Outcome {
    let node = Node::with(&[spec::TOOLS]).await?;
    let taken = node.inside(|| std::net::TcpListener::bind("0.0.0.0:8083"))??;
    let mut config = spec::pod("taken");
    config.port_mappings = vec![spec::port(cri::Protocol::Tcp, 8083, 80)];
    let result = node.cri().run_pod(&config).await;
    assert_refused(result, tonic::Code::FailedPrecondition, &["8083"]);
    drop(taken);
    node.assert_clean().await?;
    node.cri().run_pod(&config).await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_out_of_range_are_refused_by_value() -> Outcome {
    let node = Node::with(&[]).await?;
    for (host, container) in [(70000, 80), (-1, 80), (8080, 70000), (8080, 0)] {
        let mut config = spec::pod("range");
        config.port_mappings = vec![spec::port(cri::Protocol::Tcp, host, container)];
        let result = node.cri().run_pod(&config).await;
        let wrong = if host == 8080 { container } else { host };
        assert_refused(
            result,
            tonic::Code::InvalidArgument,
            &["port", &wrong.to_string()],
        );
    }
    let mut config = spec::pod("address");
    config.port_mappings = vec![cri::PortMapping {
        host_ip: "not-an-address".to_owned(),
        ..spec::port(cri::Protocol::Tcp, 8084, 80)
    }];
    let result = node.cri().run_pod(&config).await;
    assert_refused(result, tonic::Code::InvalidArgument, &["not-an-address"]);
    assert!(node.cri().list_pods(None).await?.is_empty());
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_port_goes_on_while_the_daemon_is_away() -> Outcome {
    let node = Node::with(&[spec::TOOLS]).await?;
    server(&node, 8085).await?;
    assert_eq!(
        retry(|| node.echo_tcp("127.0.0.1:8085", "before")).await?,
        "before"
    );
    node.kill()?;
    assert_eq!(node.echo_tcp("127.0.0.1:8085", "during")?, "during");
    node.restart().await?;
    assert_eq!(node.echo_udp("127.0.0.1:8085", "after")?, "after");
    node.finish().await
}
