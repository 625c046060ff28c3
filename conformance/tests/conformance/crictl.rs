//! Every crictl command that this release serves. crictl speaks gRPC as kubelets do
//! (grpc-go), which names the server by its socket path.

use std::process::{Command, Output};

use carpel_conformance::{Node, paths, text_of};
use serde_json::Value;

use crate::checks::Outcome;

pub(crate) const IMAGE: &str = "registry.k8s.io/e2e-test-images/busybox:1.29-2";

pub(crate) fn run(node: &Node, arguments: &[&str]) -> anyhow::Result<Output> {
    let endpoint = format!("unix://{}", node.socket().display());
    let mut command = Command::new(paths::tool("crictl")?);
    command.args([
        "--runtime-endpoint",
        &endpoint,
        "--image-endpoint",
        &endpoint,
    ]);
    node.command(command.args(["--timeout", "30s"]).args(arguments))
}

pub(crate) fn crictl(node: &Node, arguments: &[&str]) -> anyhow::Result<String> {
    use anyhow::Context;
    text_of(&run(node, arguments)?).with_context(|| format!("crictl {arguments:?}"))
}

pub(crate) fn json(node: &Node, arguments: &[&str]) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&crictl(node, arguments)?)?)
}

/// A pod and a container in files, as crictl wants them.
pub(crate) struct Files {
    pub(crate) pod: String,
    pub(crate) container: String,
}

pub(crate) fn files(node: &Node, name: &str, script: &str) -> anyhow::Result<Files> {
    let folder = node.folder(&format!("crictl-{name}"))?;
    let (pod_file, container_file) = (folder.join("pod.json"), folder.join("container.json"));
    let pod = serde_json::json!({
        "metadata": {"name": name, "namespace": format!("space-{name}"), "uid": name, "attempt": 1},
        "log_directory": folder.join("logs"),
        "labels": {"app": name},
        "linux": {},
    });
    let container = serde_json::json!({
        "metadata": {"name": format!("main-{name}")},
        "image": {"image": IMAGE},
        "command": ["sh", "-c", script],
        "log_path": "main.log",
        "labels": {"part": name},
        "linux": {},
    });
    std::fs::write(&pod_file, pod.to_string())?;
    std::fs::write(&container_file, container.to_string())?;
    Ok(Files {
        pod: pod_file.display().to_string(),
        container: container_file.display().to_string(),
    })
}

pub(crate) const SCRIPT: &str = "echo in the log; trap 'exit 0' TERM; while :; do sleep 0.1; done";

/// Made and started; the ids of pod and container.
pub(crate) fn start(node: &Node, name: &str) -> anyhow::Result<(String, String)> {
    let files = files(node, name, SCRIPT)?;
    let pod = crictl(node, &["runp", &files.pod])?.trim().to_owned();
    let create = ["create", &pod, &files.container, &files.pod];
    let container = crictl(node, &create)?.trim().to_owned();
    crictl(node, &["start", &container])?;
    Ok((pod, container))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runtime_and_its_images_are_served() -> Outcome {
    let node = Node::with(&[]).await?;
    let version = crictl(&node, &["version"])?;
    assert!(version.contains("RuntimeName:  carpel"), "{version}");
    let info = json(&node, &["info"])?;
    assert!(
        info["status"]["conditions"]
            .to_string()
            .contains("NetworkReady"),
        "{info}"
    );

    let said = crictl(&node, &["pull", IMAGE])?;
    assert!(said.contains("Image is up to date"), "{said}");
    let images = crictl(&node, &["images"])?;
    assert!(
        images.contains("e2e-test-images/busybox") && images.contains("1.29-2"),
        "{images}"
    );
    let image = json(&node, &["inspecti", IMAGE])?;
    assert_eq!(image["status"]["repoTags"][0], IMAGE);
    assert!(image["info"].is_object(), "{image}");
    let usage = json(&node, &["imagefsinfo"])?;
    assert!(
        usage["status"]["imageFilesystems"][0]["usedBytes"].is_object(),
        "{usage}"
    );

    crictl(&node, &["rmi", IMAGE])?;
    assert!(!crictl(&node, &["images"])?.contains("1.29-2"));
    assert!(!run(&node, &["inspecti", IMAGE])?.status.success());
    node.rebase()?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_and_containers_are_served() -> Outcome {
    let node = Node::with(&[IMAGE]).await?;
    let (pod, container) = start(&node, "web")?;
    let pods = crictl(&node, &["pods", "--name", "web"])?;
    assert!(
        pods.contains(&pod[..13]) && pods.contains("Ready"),
        "{pods}"
    );
    let status = json(&node, &["inspectp", &pod[..13]])?;
    assert_eq!(status["status"]["metadata"]["name"], "web");
    assert!(status["info"].is_object(), "{status}");

    let listed = crictl(&node, &["ps"])?;
    assert!(
        listed.contains(&container[..13]) && listed.contains("Running"),
        "{listed}"
    );
    let status = json(&node, &["inspect", &container[..13]])?;
    assert_eq!(status["status"]["state"], "CONTAINER_RUNNING");
    assert!(
        status["info"]["pid"].as_i64().is_some_and(|pid| pid > 1),
        "{status}"
    );

    let said = crictl(&node, &["exec", "-s", &container, "echo", "over crictl"])?;
    assert_eq!(said.trim(), "over crictl");
    assert!(
        !run(&node, &["exec", "-s", &container, "false"])?
            .status
            .success()
    );
    crate::checks::until("the log has a line", || async {
        Ok(crictl(&node, &["logs", &container])? == "in the log\n")
    })
    .await?;
    let stats = crictl(&node, &["stats", "--seconds", "1"])?;
    assert!(stats.contains(&container[..13]), "{stats}");
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_are_updated() -> Outcome {
    let node = Node::with(&[IMAGE]).await?;
    let (_, container) = start(&node, "web")?;
    let limits = ["--memory", "100000000", "--cpu-share", "512"];
    crictl(&node, &[&["update"], &limits[..], &[&container]].concat())?;
    let status = json(&node, &["inspect", &container])?;
    let linux = &status["status"]["resources"]["linux"];
    assert_eq!(linux["memoryLimitInBytes"], "100000000", "{status}");
    assert_eq!(linux["cpuShares"], "512", "{status}");
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_and_pods_are_stopped_and_removed() -> Outcome {
    let node = Node::with(&[IMAGE]).await?;
    let (pod, container) = start(&node, "web")?;
    crictl(&node, &["stop", &container])?;
    let listed = crictl(&node, &["ps", "-a"])?;
    assert!(listed.contains("Exited"), "{listed}");
    crictl(&node, &["rm", &container])?;
    assert!(!crictl(&node, &["ps", "-a"])?.contains(&container[..13]));
    crictl(&node, &["stopp", &pod])?;
    assert!(crictl(&node, &["pods"])?.contains("NotReady"));
    crictl(&node, &["rmp", &pod])?;
    assert!(!crictl(&node, &["pods"])?.contains(&pod[..13]));
    node.assert_clean().await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pods_and_containers_go_by_one_command() -> Outcome {
    let node = Node::with(&[IMAGE]).await?;
    start(&node, "web")?;
    crictl(&node, &["rm", "-a", "-f"])?;
    assert_eq!(crictl(&node, &["ps", "-a", "-q"])?, "");
    crictl(&node, &["rmp", "-a", "-f"])?;
    assert_eq!(crictl(&node, &["pods", "-q"])?, "");
    node.finish().await
}
