//! What containers use.

use std::time::Duration;

use carpel_conformance::spec;
use k8s_cri::v1 as cri;

use crate::checks::{Outcome, Pod, node};

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
