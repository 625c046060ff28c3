//! The info maps of verbose answers.

use carpel_conformance::{Node, spec};
use carpel_proto::cri;
use serde_json::Value;

use crate::checks::{Outcome, Pod, node};
use crate::crictl::json;
use crate::whole;

fn parsed(info: &std::collections::HashMap<String, String>, key: &str) -> anyhow::Result<Value> {
    anyhow::ensure!(info.len() == 1, "{info:?}");
    Ok(serde_json::from_str(&info[key])?)
}

/// What a verbose PodSandboxStatus tells.
pub(crate) async fn of_pod(node: &Node, id: &str) -> anyhow::Result<Value> {
    let request = cri::PodSandboxStatusRequest {
        pod_sandbox_id: id.to_owned(),
        verbose: true,
    };
    let mut runtime = whole::runtime(node).await?;
    let reply = runtime.pod_sandbox_status(request);
    parsed(&reply.await?.into_inner().info, "info")
}

async fn of_container(node: &Node, id: &str) -> anyhow::Result<Value> {
    let request = cri::ContainerStatusRequest {
        container_id: id.to_owned(),
        verbose: true,
    };
    let mut runtime = whole::runtime(node).await?;
    let reply = runtime.container_status(request);
    parsed(&reply.await?.into_inner().info, "info")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_verbose_has_no_info() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("quiet")).await?;
    let id = pod.start(&node, &spec::sleeper("quiet")).await?;
    let mut runtime = whole::runtime(&node).await?;
    let request = cri::StatusRequest { verbose: false };
    let status = runtime.status(request).await?.into_inner();
    let request = cri::PodSandboxStatusRequest {
        pod_sandbox_id: pod.id.clone(),
        verbose: false,
    };
    let of_pod = runtime.pod_sandbox_status(request).await?.into_inner();
    let request = cri::ContainerStatusRequest {
        container_id: id,
        verbose: false,
    };
    let of_container = runtime.container_status(request).await?.into_inner();
    let request = cri::ImageStatusRequest {
        image: Some(cri::ImageSpec {
            image: spec::BUSYBOX.into(),
            ..Default::default()
        }),
        verbose: false,
    };
    let of_image = whole::images(&node).await?.image_status(request).await?;
    for info in [
        status.info,
        of_pod.info,
        of_container.info,
        of_image.into_inner().info,
    ] {
        assert!(info.is_empty(), "{info:?}");
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_status_has_its_containers_and_the_time() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("whole")).await?;
    let one = pod.start(&node, &spec::sleeper("one")).await?;
    let two = pod.start(&node, &spec::shell("two", "exit 5")).await?;
    node.cri().wait_exit(&two).await?;
    let request = cri::PodSandboxStatusRequest {
        pod_sandbox_id: pod.id.clone(),
        verbose: false,
    };
    let mut runtime = whole::runtime(&node).await?;
    let first = runtime
        .pod_sandbox_status(request.clone())
        .await?
        .into_inner();
    let second = runtime.pod_sandbox_status(request).await?.into_inner();
    assert_eq!(first.containers_statuses.len(), 2);
    for status in &first.containers_statuses {
        let expected = if status.id == one { (1, 0) } else { (2, 5) };
        assert_eq!((status.state, status.exit_code), expected, "{status:?}");
        assert!(status.id == one || status.id == two);
    }
    // Nanoseconds: later than the start of the container, and never the same.
    assert!(first.timestamp > first.containers_statuses[0].created_at);
    assert!(second.timestamp > first.timestamp);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_tells_its_process_and_its_whole_configuration() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("told")).await?;
    let mut config = spec::sleeper("told");
    config.labels.insert("tier".into(), "front".into());
    let id = pod.start(&node, &config).await?;
    let info = of_container(&node, &id).await?;
    assert_eq!(info["sandboxID"], *pod.id);
    assert_eq!(info["removing"], false);
    let handler = Some(node.handler()).filter(|name| !name.is_empty());
    assert_eq!(info["runtimeType"], handler.unwrap_or("native"));
    assert_eq!(info["config"]["metadata"]["name"], "told");
    assert_eq!(info["config"]["labels"]["tier"], "front");
    let pid = info["pid"].as_i64().expect("a pid");
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
    assert!(command.contains("sleep 100000"), "{command:?}");
    let spec = &info["runtimeSpec"];
    assert!(spec["ociVersion"].is_string(), "{spec}");
    assert_eq!(spec["process"]["args"][0], "/bin/sh");
    let namespaces = spec["linux"]["namespaces"].as_array().expect("namespaces");
    let kinds: Vec<_> = namespaces
        .iter()
        .filter_map(|n| n["type"].as_str())
        .collect();
    assert!(kinds.contains(&"mount"), "{kinds:?}");
    node.cri().stop(&id, 10).await?;
    assert_eq!(of_container(&node, &id).await?["pid"], 0);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_tells_where_its_namespaces_are_while_it_lives() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("told")).await?;
    let id = pod.start(&node, &spec::sleeper("inside")).await?;
    let info = of_pod(&node, &pod.id).await?;
    assert_eq!(info["netNamespaceClosed"], false);
    assert_eq!(info["config"]["metadata"]["name"], "told");
    assert_eq!(info["addresses"][0], node.cri().pod_ip(&pod.id).await?);
    let namespaces = &info["runtimeSpec"]["linux"]["namespaces"];
    let namespaces = namespaces.as_array().expect("namespaces");
    let network = namespaces.iter().find(|n| n["type"] == "network");
    let path = network.expect("a network")["path"]
        .as_str()
        .expect("a path");
    let inside = &of_container(&node, &id).await?["pid"];
    let same = std::fs::read_link(format!("/proc/{inside}/ns/net"))?;
    assert_eq!(std::fs::read_link(path)?, same);

    node.cri().stop_pod(&pod.id).await?;
    let info = of_pod(&node, &pod.id).await?;
    assert_eq!(
        (&info["pid"], &info["netNamespaceClosed"]),
        (&0.into(), &true.into())
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn crictl_shows_what_is_told_of_everything() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("shown")).await?;
    let id = pod.start(&node, &spec::sleeper("shown")).await?;
    let shown = json(&node, &["inspect", &id])?;
    assert!(shown["info"]["pid"].as_i64().is_some_and(|pid| pid > 1));
    let namespaces = &shown["info"]["runtimeSpec"]["linux"]["namespaces"];
    assert!(namespaces.as_array().is_some_and(|all| !all.is_empty()));
    let shown = json(&node, &["inspectp", &pod.id])?;
    assert!(shown["info"]["pid"].as_i64().is_some_and(|pid| pid > 1));
    let namespaces = &shown["info"]["runtimeSpec"]["linux"]["namespaces"];
    assert!(namespaces[0]["path"].is_string(), "{shown}");
    let shown = json(&node, &["inspecti", spec::BUSYBOX])?;
    let chain = shown["info"]["chainID"].as_str().expect("a chain id");
    assert!(chain.starts_with("sha256:"), "{chain}");
    assert_eq!(shown["info"]["imageSpec"]["rootfs"]["type"], "layers");
    let shown = json(&node, &["info"])?;
    let config = &shown["config"];
    let place = config["stateDir"].as_str().expect("a place");
    assert!(std::path::Path::new(place).is_dir(), "{place}");
    assert_eq!(config["network"]["driver"], "bridge");
    assert!(config["registries"].is_object(), "{config}");
    node.finish().await
}
