//! The lists that come in many messages.

use std::collections::BTreeSet;

use carpel_conformance::{Node, spec};
use carpel_proto::cri;
use futures_util::future::try_join_all;
use prost::Message;
use tonic::{Status, Streaming};

use crate::checks::{Outcome, Pod, node};
use crate::whole;

/// Far below the 16 MiB that clients take.
const LARGEST: usize = (1 << 20) + (128 << 10);

/// All messages of a stream, none of them empty or too large.
async fn read<M: Message, I>(
    stream: Result<tonic::Response<Streaming<M>>, Status>,
    items: impl Fn(M) -> Vec<I>,
) -> anyhow::Result<Vec<Vec<I>>> {
    let mut stream = stream?.into_inner();
    let mut all = Vec::new();
    while let Some(message) = stream.message().await? {
        let size = message.encoded_len();
        assert!(size < LARGEST, "a message of {size} bytes");
        let items = items(message);
        assert!(!items.is_empty(), "a message of nothing");
        all.push(items);
    }
    Ok(all)
}

async fn pods(node: &Node, filter: Option<cri::PodSandboxFilter>) -> anyhow::Result<Vec<String>> {
    let mut runtime = whole::runtime(node).await?;
    let request = cri::StreamPodSandboxesRequest {
        filter: filter.clone(),
    };
    let streamed = runtime.stream_pod_sandboxes(request).await;
    let streamed = read(streamed, |message| message.pod_sandboxes)
        .await?
        .concat();
    let request = cri::ListPodSandboxRequest { filter };
    let listed = runtime.list_pod_sandbox(request).await?.into_inner().items;
    assert_eq!(streamed, listed);
    Ok(streamed.into_iter().map(|pod| pod.id).collect())
}

async fn containers(
    node: &Node,
    filter: Option<cri::ContainerFilter>,
) -> anyhow::Result<Vec<String>> {
    let mut runtime = whole::runtime(node).await?;
    let request = cri::StreamContainersRequest {
        filter: filter.clone(),
    };
    let streamed = runtime.stream_containers(request).await;
    let streamed = read(streamed, |message| message.containers).await?.concat();
    let request = cri::ListContainersRequest { filter };
    let listed = runtime.list_containers(request).await?.into_inner();
    assert_eq!(streamed, listed.containers);
    Ok(streamed.into_iter().map(|found| found.id).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_what_the_list_with_the_same_filter_has() -> Outcome {
    let node = node().await?;
    assert!(pods(&node, None).await?.is_empty());
    assert!(containers(&node, None).await?.is_empty());
    let mut config = spec::pod("labelled");
    config.labels.insert("app".into(), "web".into());
    let labelled = Pod::run(&node, config).await?;
    let stopped = Pod::run(&node, spec::pod("stopped")).await?;
    node.cri().stop_pod(&stopped.id).await?;
    let running = labelled.start(&node, &spec::sleeper("running")).await?;
    let ended = labelled.start(&node, &spec::shell("ended", "true")).await?;
    node.cri().wait_exit(&ended).await?;

    assert_eq!(pods(&node, None).await?.len(), 2);
    let by_label = cri::PodSandboxFilter {
        label_selector: [("app".to_owned(), "web".to_owned())].into(),
        ..Default::default()
    };
    assert_eq!(pods(&node, Some(by_label)).await?, [&*labelled.id]);
    let by_state = cri::PodSandboxFilter {
        state: Some(cri::PodSandboxStateValue {
            state: cri::PodSandboxState::SandboxNotready.into(),
        }),
        ..Default::default()
    };
    assert_eq!(pods(&node, Some(by_state)).await?, [&*stopped.id]);
    let by_state = cri::ContainerFilter {
        state: Some(cri::ContainerStateValue {
            state: cri::ContainerState::ContainerExited.into(),
        }),
        ..Default::default()
    };
    assert_eq!(containers(&node, Some(by_state)).await?, [&*ended]);
    let by_id = cri::ContainerFilter {
        id: running[..20].to_owned(),
        ..Default::default()
    };
    assert_eq!(containers(&node, Some(by_id)).await?, [&*running]);
    let by_pod = cri::ContainerFilter {
        pod_sandbox_id: stopped.id.clone(),
        ..Default::default()
    };
    assert!(containers(&node, Some(by_pod)).await?.is_empty());
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_streamed_as_they_are_listed() -> Outcome {
    let node = node().await?;
    let mut client = whole::images(&node).await?;
    for name in ["", spec::BUSYBOX, "registry.k8s.io/no/such:1"] {
        let filter = Some(cri::ImageFilter {
            image: Some(cri::ImageSpec {
                image: name.to_owned(),
                ..Default::default()
            }),
        });
        let request = cri::StreamImagesRequest {
            filter: filter.clone(),
        };
        let streamed = client.stream_images(request).await;
        let streamed = read(streamed, |message| message.images).await?.concat();
        let listed = client
            .list_images(cri::ListImagesRequest { filter })
            .await?;
        assert_eq!(streamed, listed.into_inner().images);
        assert_eq!(streamed.is_empty(), name.ends_with("such:1"), "{name}");
    }
    node.finish().await
}

/// Containers that are only made, each with much to tell.
async fn talkative(node: &Node, pod: &Pod, count: usize) -> anyhow::Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    for group in (0..count).collect::<Vec<_>>().chunks(8) {
        let made = group.iter().map(|number| async move {
            let mut config = spec::sleeper(&format!("c{number}"));
            config
                .annotations
                .insert("long".into(), "x".repeat(64 << 10));
            node.cri().create(&pod.id, &config, &pod.config).await
        });
        ids.extend(try_join_all(made).await?);
    }
    Ok(ids)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_comes_in_messages_of_moderate_size() -> Outcome {
    const COUNT: usize = 56;
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("long")).await?;
    let ids = talkative(&node, &pod, COUNT).await?;
    let mut runtime = whole::runtime(&node).await?;

    let stream = runtime.stream_containers(cri::StreamContainersRequest { filter: None });
    let messages = read(stream.await, |message| message.containers).await?;
    assert!((3..=7).contains(&messages.len()), "{}", messages.len());
    let seen: Vec<_> = messages
        .concat()
        .into_iter()
        .map(|found| found.id)
        .collect();
    assert_eq!(seen.len(), COUNT);
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), ids);

    // More than are looked at in one go.
    let stream = runtime.stream_container_stats(cri::StreamContainerStatsRequest { filter: None });
    let messages = read(stream.await, |message| message.container_stats).await?;
    assert!((3..=8).contains(&messages.len()), "{}", messages.len());
    let seen: Vec<_> = messages
        .concat()
        .into_iter()
        .filter_map(|stats| Some(stats.attributes?.id))
        .collect();
    assert_eq!(seen.len(), COUNT);
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), ids);

    // Who goes after the first message leaves nothing behind.
    let stream = runtime.stream_containers(cri::StreamContainersRequest { filter: None });
    let mut stream = stream.await?.into_inner();
    assert!(stream.message().await?.is_some());
    drop(stream);
    assert_eq!(node.cri().list_containers(None).await?.len(), COUNT);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_of_pods_are_streamed_as_they_are_listed() -> Outcome {
    let node = node().await?;
    let mut config = spec::pod("labelled");
    config.labels.insert("app".into(), "web".into());
    let pod = Pod::run(&node, config).await?;
    let container = pod.start(&node, &spec::sleeper("inside")).await?;
    let other = Pod::run(&node, spec::pod("other")).await?;
    let mut runtime = whole::runtime(&node).await?;
    let filter = Some(cri::PodSandboxStatsFilter {
        label_selector: [("app".to_owned(), "web".to_owned())].into(),
        ..Default::default()
    });
    let wanted = [(None, 2), (filter, 1)];
    for (filter, count) in wanted {
        let request = cri::StreamPodSandboxStatsRequest { filter };
        let stream = runtime.stream_pod_sandbox_stats(request).await;
        let stats = read(stream, |message| message.pod_sandbox_stats)
            .await?
            .concat();
        assert_eq!(stats.len(), count);
        let ids: Vec<_> = stats
            .iter()
            .filter_map(|stats| Some(stats.attributes.as_ref()?.id.as_str()))
            .collect();
        assert!(ids.contains(&&*pod.id), "{ids:?}");
        assert_eq!(ids.contains(&&*other.id), count == 2);
    }
    let request = cri::StreamContainerStatsRequest {
        filter: Some(cri::ContainerStatsFilter {
            pod_sandbox_id: pod.id.clone(),
            ..Default::default()
        }),
    };
    let stream = runtime.stream_container_stats(request).await;
    let stats = read(stream, |message| message.container_stats)
        .await?
        .concat();
    assert_eq!(stats.len(), 1);
    assert_eq!(
        stats[0].attributes.as_ref().expect("attributes").id,
        container
    );
    assert!(stats[0].cpu.is_some());
    node.finish().await
}
