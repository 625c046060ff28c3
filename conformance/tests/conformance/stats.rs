//! What containers use.

use std::time::Duration;

use carpel_conformance::{Node, spec};
use carpel_proto::cri as cri_whole;
use k8s_cri::v1 as cri;

use crate::checks::{Outcome, Pod, assert_refused, node};
use crate::crictl::crictl;
use crate::whole;

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_container_uses_time_memory_and_disk() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("stats")).await?;
    let script = "head -c 1000000 /dev/zero > /root/file; while :; do :; done";
    let id = pod.start(&node, &spec::shell("busy", script)).await?;
    let time = |stats: &cri::ContainerStats| {
        let cpu = stats.cpu.as_ref().expect("cpu");
        (
            cpu.timestamp,
            cpu.usage_core_nano_seconds.as_ref().expect("usage").value,
        )
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    let first = node.cri().stats(&id).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let second = node.cri().stats(&id).await?;
    assert!(time(&second).0 > time(&first).0);
    assert!(
        time(&second).1 > time(&first).1 + 10_000_000,
        "{first:?} {second:?}"
    );

    let memory = second.memory.as_ref().expect("memory");
    assert!(memory.timestamp > 0);
    assert!(
        memory
            .working_set_bytes
            .as_ref()
            .expect("working set")
            .value
            > 0
    );
    let layer = second.writable_layer.as_ref().expect("writable layer");
    assert!(
        layer.used_bytes.as_ref().expect("used bytes").value >= 1_000_000,
        "{layer:?}"
    );
    assert!(layer.inodes_used.as_ref().expect("inodes").value > 0);
    let attributes = second.attributes.as_ref().expect("attributes");
    assert_eq!(
        (
            &attributes.id,
            attributes
                .metadata
                .as_ref()
                .expect("metadata")
                .name
                .as_str()
        ),
        (&id, "busy")
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_stats_obey_their_filter() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("stats")).await?;
    let mut labelled = spec::sleeper("labelled");
    labelled.labels.insert("foo".into(), "bar".into());
    let labelled = pod.start(&node, &labelled).await?;
    let plain = pod.start(&node, &spec::sleeper("plain")).await?;
    let find = async |filter: Option<cri::ContainerStatsFilter>| -> anyhow::Result<Vec<String>> {
        let stats = node.cri().list_stats(filter).await?;
        let ids = stats.into_iter().filter_map(|stats| stats.attributes);
        Ok(ids.map(|attributes| attributes.id).collect())
    };
    let label = |value: &str| cri::ContainerStatsFilter {
        label_selector: [("foo".to_owned(), value.to_owned())].into(),
        ..Default::default()
    };
    assert_eq!(find(None).await?.len(), 2);
    assert_eq!(find(Some(label("bar"))).await?, [&*labelled]);
    assert!(find(Some(label("baz"))).await?.is_empty());
    let by_id = cri::ContainerStatsFilter {
        id: plain.clone(),
        ..Default::default()
    };
    assert_eq!(find(Some(by_id)).await?, [&*plain]);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_that_images_take_is_told() -> Outcome {
    let node = node().await?;
    let request = cri::ImageFsInfoRequest {};
    let info = node
        .cri()
        .images()
        .image_fs_info(request)
        .await?
        .into_inner();
    let usage = &info.image_filesystems[0];
    let place = &usage.fs_id.as_ref().expect("a filesystem").mountpoint;
    assert!(std::path::Path::new(place).is_dir(), "{place}");
    assert!(usage.timestamp > 0);
    assert!(usage.used_bytes.as_ref().expect("bytes").value > 100_000);
    assert!(usage.inodes_used.as_ref().expect("inodes").value > 10);
    node.finish().await
}

async fn pod_stats(node: &Node, id: &str) -> Result<cri_whole::PodSandboxStats, anyhow::Error> {
    let request = cri_whole::PodSandboxStatsRequest {
        pod_sandbox_id: id.to_owned(),
    };
    let mut runtime = whole::runtime(node).await?;
    let reply = runtime.pod_sandbox_stats(request);
    let stats = reply.await?.into_inner().stats;
    stats.ok_or_else(|| anyhow::anyhow!("a reply without stats"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_uses_what_its_containers_use_and_its_network() -> Outcome {
    let node = node().await?;
    let mut config = spec::pod("busy");
    config.labels.insert("app".into(), "web".into());
    let pod = Pod::run(&node, config).await?;
    let id = pod
        .start(&node, &spec::shell("busy", "while :; do :; done"))
        .await?;
    let ended = pod.start(&node, &spec::shell("ended", "true")).await?;
    node.cri().wait_exit(&ended).await?;
    let first = pod_stats(&node, &pod.id).await?.linux.expect("linux");
    let ping = ["ping", "-c", "2", "-i", "0.2", "-W", "1", "10.77.0.1"];
    node.cri().output(&id, &ping).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let stats = pod_stats(&node, &pod.id).await?;
    let attributes = stats.attributes.as_ref().expect("attributes");
    assert_eq!(
        (&attributes.id, attributes.labels["app"].as_str()),
        (&pod.id, "web")
    );
    let second = stats.linux.expect("linux");

    let cpu = |stats: &cri_whole::LinuxPodSandboxStats| {
        let cpu = stats.cpu.as_ref().expect("cpu");
        (
            cpu.timestamp,
            cpu.usage_core_nano_seconds.expect("usage").value,
        )
    };
    assert!(cpu(&second).0 > cpu(&first).0);
    assert!(cpu(&second).1 > cpu(&first).1 + 10_000_000);
    let rate = second.cpu.as_ref().and_then(|cpu| cpu.usage_nano_cores);
    assert!(rate.is_some_and(|rate| rate.value > 0), "{rate:?}");
    let memory = second.memory.as_ref().expect("memory");
    assert!(memory.timestamp > 0 && memory.working_set_bytes.expect("set").value > 0);
    let process = second.process.as_ref().expect("processes");
    assert!(process.timestamp > 0);
    assert!(process.process_count.expect("a count").value >= 2);

    let eth0 = |stats: &cri_whole::LinuxPodSandboxStats| {
        let network = stats.network.as_ref().expect("network");
        assert!(network.timestamp > 0);
        assert!(
            network
                .interfaces
                .iter()
                .all(|i| i.name != "eth0" && i.name != "lo")
        );
        network.default_interface.clone().expect("eth0")
    };
    let (before, after) = (eth0(&first), eth0(&second));
    assert_eq!(after.name, "eth0");
    assert!(after.tx_bytes.expect("tx").value > before.tx_bytes.expect("tx").value);
    assert!(after.rx_bytes.expect("rx").value > before.rx_bytes.expect("rx").value);
    assert_eq!(after.rx_errors.expect("errors").value, 0);

    let inside: Vec<_> = second
        .containers
        .iter()
        .filter_map(|stats| Some(stats.attributes.as_ref()?.id.as_str()))
        .collect();
    assert_eq!(inside, [&*id], "only what runs");
    let (whole, part) = (
        memory,
        second.containers[0].memory.as_ref().expect("memory"),
    );
    assert!(whole.usage_bytes.expect("usage").value >= part.usage_bytes.expect("usage").value);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_are_not_ready_use_nothing() -> Outcome {
    let node = node().await?;
    let ready = Pod::run(&node, spec::pod("ready")).await?;
    let over = Pod::run(&node, spec::pod("over")).await?;
    node.cri().stop_pod(&over.id).await?;
    let mut runtime = whole::runtime(&node).await?;
    let ask = |id: &str| cri_whole::PodSandboxStatsRequest {
        pod_sandbox_id: id.to_owned(),
    };
    let refused = runtime.pod_sandbox_stats(ask(&over.id)).await;
    assert_refused(refused, tonic::Code::FailedPrecondition, &[&over.id]);
    let refused = runtime.pod_sandbox_stats(ask("no-such-pod")).await;
    assert_refused(refused, tonic::Code::NotFound, &["no-such-pod"]);
    let mut list = async |id: &str| -> anyhow::Result<Vec<String>> {
        let filter = Some(cri_whole::PodSandboxStatsFilter {
            id: id.to_owned(),
            ..Default::default()
        });
        let request = cri_whole::ListPodSandboxStatsRequest { filter };
        let reply = runtime.list_pod_sandbox_stats(request).await?.into_inner();
        let attributes = reply.stats.into_iter().filter_map(|stats| stats.attributes);
        Ok(attributes.map(|attributes| attributes.id).collect())
    };
    assert_eq!(list("").await?, [&*ready.id]);
    assert_eq!(list(&ready.id[..13]).await?, [&*ready.id]);
    assert!(list(&over.id).await?.is_empty());
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_in_the_nodes_network_has_no_traffic_of_its_own() -> Outcome {
    let node = node().await?;
    let mut config = spec::pod("host");
    spec::pod_security(&mut config).namespace_options = Some(spec::namespaces(
        cri::NamespaceMode::Node,
        cri::NamespaceMode::Container,
        cri::NamespaceMode::Pod,
    ));
    let pod = Pod::run(&node, config).await?;
    let stats = pod_stats(&node, &pod.id).await?.linux.expect("linux");
    assert!(stats.network.is_none(), "{stats:?}");
    assert!(stats.cpu.is_some() && stats.memory.is_some());
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn crictl_shows_what_pods_and_containers_use() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("shown")).await?;
    let id = pod.start(&node, &spec::sleeper("shown")).await?;
    let shown = crictl(&node, &["stats", "--seconds", "1"])?;
    assert!(shown.contains(&id[..13]), "{shown}");
    let shown = crictl(&node, &["statsp", "--seconds", "1"])?;
    assert!(
        shown.contains(&pod.id[..13]) && shown.contains("shown"),
        "{shown}"
    );
    node.finish().await
}
