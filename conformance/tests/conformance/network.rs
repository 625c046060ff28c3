//! Pod addresses and who reaches whom.

use std::collections::BTreeSet;
use std::process::Command;

use carpel_conformance::{Namespaces, Node, Settings, spec};
use k8s_cri::v1 as cri;

use crate::checks::{Outcome, Pod, node};

/// A node with our helpers and busybox.
async fn tools_node() -> anyhow::Result<Node> {
    Node::with(&[spec::TOOLS]).await
}

/// A container that answers on a port.
pub(crate) fn echo(name: &str, port: u16) -> cri::ContainerConfig {
    spec::container(name, spec::TOOLS, &["/echo", &port.to_string()])
}

#[tokio::test(flavor = "multi_thread")]
async fn each_pod_has_an_address_of_its_own_from_the_range() -> Outcome {
    let node = Node::start(Settings::default().pod_cidr("10.99.7.0/24")).await?;
    let mut addresses = BTreeSet::new();
    for _ in 0..10 {
        let id = node.cri().run_pod(&spec::pod("addressed")).await?;
        let address = node.cri().pod_ip(&id).await?;
        assert!(address.starts_with("10.99.7."), "{address}");
        assert!(addresses.insert(address));
    }
    assert!(!addresses.contains("10.99.7.0") && !addresses.contains("10.99.7.255"));
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_and_the_node_reach_each_other() -> Outcome {
    let node = tools_node().await?;
    let server = Pod::run(&node, spec::pod("server")).await?;
    server.start(&node, &echo("echo", 80)).await?;
    let client = Pod::run(&node, spec::pod("client")).await?;
    let mut sleeper = spec::sleeper("c");
    sleeper.image = Some(spec::image(spec::TOOLS));
    let id = client.start(&node, &sleeper).await?;

    let address = node.cri().pod_ip(&server.id).await?;
    assert_eq!(
        node.echo_tcp(&format!("{address}:80"), "from the node")?,
        "from the node"
    );
    assert_eq!(
        node.echo_udp(&format!("{address}:80"), "from the node")?,
        "from the node"
    );
    let script = format!("echo from the pod | nc -w 3 {address} 80");
    assert_eq!(
        node.cri().output(&id, &["sh", "-c", &script]).await?,
        "from the pod\n"
    );
    node.cri()
        .output(&id, &["ping", "-c", "1", "-W", "3", &address])
        .await?;

    let gateway = node
        .cri()
        .output(&id, &["sh", "-c", "ip route | grep default"])
        .await?;
    let gateway = gateway
        .split_whitespace()
        .nth(2)
        .expect("a default route")
        .to_owned();
    node.cri()
        .output(&id, &["ping", "-c", "1", "-W", "3", &gateway])
        .await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_pod_reach_each_other_over_localhost() -> Outcome {
    let node = tools_node().await?;
    let pod = Pod::run(&node, spec::pod("localhost")).await?;
    pod.start(&node, &echo("server", 8080)).await?;
    let mut sleeper = spec::sleeper("client");
    sleeper.image = Some(spec::image(spec::TOOLS));
    let id = pod.start(&node, &sleeper).await?;
    let script = "echo over localhost | nc -w 3 127.0.0.1 8080";
    assert_eq!(
        node.cri().output(&id, &["sh", "-c", script]).await?,
        "over localhost\n"
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pods_answer_on_the_same_container_port() -> Outcome {
    let node = tools_node().await?;
    let mut addresses = Vec::new();
    for number in 0..5 {
        let mut config = spec::pod("same-port");
        config.port_mappings = vec![spec::port(cri::Protocol::Tcp, 0, 80)];
        let pod = Pod::run(&node, config).await?;
        let script = format!("while :; do echo pod {number} | nc -l -p 80; done");
        let mut server = spec::shell("server", &script);
        server.image = Some(spec::image(spec::TOOLS));
        pod.start(&node, &server).await?;
        addresses.push((number, node.cri().pod_ip(&pod.id).await?));
    }
    for (number, address) in addresses {
        let said = crate::checks::retry(|| node.echo_tcp(&format!("{address}:80"), "")).await?;
        assert_eq!(said, format!("pod {number}\n"));
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_reaches_the_outside_by_the_address_of_the_node() -> Outcome {
    let node = tools_node().await?;
    let outside = Namespaces::new("outside")?;
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(outside.network());
    let namespace = format!("/proc/{}/fd/{descriptor}", std::process::id());
    for command in [
        "ip link add up0 type veth peer name down0".to_owned(),
        format!("ip link set down0 netns {namespace}"),
        "ip addr add 192.0.2.1/24 dev up0".to_owned(),
        "ip link set up0 up".to_owned(),
    ] {
        let words: Vec<_> = command.split(' ').collect();
        node.run(words[0], &words[1..])?;
    }
    let listener = outside.enter(|| -> anyhow::Result<std::net::TcpListener> {
        for command in ["ip addr add 192.0.2.2/24 dev down0", "ip link set down0 up"] {
            let words: Vec<_> = command.split(' ').collect();
            anyhow::ensure!(Command::new(words[0]).args(&words[1..]).status()?.success());
        }
        Ok(std::net::TcpListener::bind("192.0.2.2:7000")?)
    })??;
    node.rebase()?;

    let pod = Pod::run(&node, spec::pod("outwards")).await?;
    let mut sleeper = spec::sleeper("c");
    sleeper.image = Some(spec::image(spec::TOOLS));
    let id = pod.start(&node, &sleeper).await?;
    // Dropping the connection at once is what ends `nc`.
    let accepted = tokio::task::spawn_blocking(move || listener.accept().map(|(_, peer)| peer));
    node.cri()
        .output(&id, &["sh", "-c", "echo hello | nc -w 3 192.0.2.2 7000"])
        .await?;
    let peer = tokio::time::timeout(std::time::Duration::from_secs(5), accepted).await???;
    assert_eq!(
        peer.ip().to_string(),
        "192.0.2.1",
        "the node's address stands for the pod's"
    );
    node.run("ip", &["link", "del", "up0"])?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_kept_over_a_restart_and_never_given_twice() -> Outcome {
    let node = node().await?;
    let mut given = BTreeSet::new();
    let mut pods = Vec::new();
    for _ in 0..4 {
        let id = node.cri().run_pod(&spec::pod("kept")).await?;
        let address = node.cri().pod_ip(&id).await?;
        assert!(given.insert(address.clone()));
        pods.push((id, address));
    }
    node.kill()?;
    node.restart().await?;
    for (id, address) in &pods {
        assert_eq!(&node.cri().pod_ip(id).await?, address);
    }
    for _ in 0..4 {
        let id = node.cri().run_pod(&spec::pod("later")).await?;
        assert!(given.insert(node.cri().pod_ip(&id).await?));
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_is_used_up_is_told_and_grows_free_again() -> Outcome {
    let node = Node::start(Settings::default().pod_cidr("10.99.8.0/29")).await?;
    let mut pods = Vec::new();
    let refused = loop {
        match node.cri().run_pod(&spec::pod("full")).await {
            Ok(id) => pods.push(id),
            Err(status) => break status,
        }
        assert!(pods.len() < 8, "more pods than addresses");
    };
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("10.99.8.0/29"), "{refused}");
    assert!(pods.len() >= 4, "{}", pods.len());
    let freed = pods.pop().expect("a pod");
    node.cri().stop_pod(&freed).await?;
    node.cri().remove_pod(&freed).await?;
    node.cri().run_pod(&spec::pod("again")).await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_pod_whose_holder_was_killed() -> Outcome {
    let node = tools_node().await?;
    let mut config = spec::pod("killed");
    config.port_mappings = vec![spec::port(cri::Protocol::Tcp, 9080, 80)];
    let pod = Pod::run(&node, config).await?;
    pod.start(&node, &echo("echo", 80)).await?;
    for pid in crate::checks::pod_processes(&node)? {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).ok();
    }
    crate::checks::until("the pod is not ready", || async {
        Ok(node.cri().pod(&pod.id).await?.state() == cri::PodSandboxState::SandboxNotready)
    })
    .await?;
    node.cri().stop_pod(&pod.id).await?;
    node.cri().remove_pod(&pod.id).await?;
    node.assert_clean().await?;
    node.finish().await
}
