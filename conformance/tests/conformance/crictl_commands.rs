//! crictl's commands that change something, and those about the runtime itself.

use std::path::Path;
use std::process::Command;

use carpel_conformance::registry::Auth;
use carpel_conformance::{Node, paths, text_of};
use serde_json::json;

use crate::checks::Outcome;
use crate::crictl::{IMAGE, SCRIPT, crictl, files, json, run, start};

#[tokio::test(flavor = "multi_thread")]
async fn one_command_runs_a_pod_with_a_container() -> Outcome {
    let node = Node::with(&[]).await?;
    let files = files(&node, "run", SCRIPT)?;
    // Pulls, unless told not to.
    assert!(
        !run(&node, &["run", "--no-pull", &files.container, &files.pod])?
            .status
            .success()
    );
    crictl(&node, &["rmp", "-a", "-f"])?;
    let container = crictl(&node, &["run", "--with-pull", &files.container, &files.pod])?;
    let container = container.trim();
    let status = json(&node, &["inspect", container])?;
    assert_eq!(status["status"]["state"], "CONTAINER_RUNNING");
    // Running ones are removed only by force.
    assert!(!run(&node, &["rm", container])?.status.success());
    let pods = crictl(&node, &["pods", "-q"])?;
    assert!(!run(&node, &["rmp", pods.trim()])?.status.success());
    let log = status["status"]["logPath"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    crictl(&node, &["rm", "-f", "-k", container])?;
    assert!(Path::new(&log).exists(), "the log was to be kept");
    crictl(&node, &["rmp", "-f", pods.trim()])?;
    assert_eq!(crictl(&node, &["pods", "-q"])?, "");

    for handler in ["native", "no-such-handler"] {
        let done = run(&node, &["runp", "--runtime", handler, &files.pod])?;
        assert_eq!(done.status.success(), handler == "native", "{done:?}");
    }
    let listed = json(&node, &["pods", "-o", "json"])?;
    assert_eq!(listed["items"][0]["runtimeHandler"], "native", "{listed}");
    node.rebase()?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_goes_by_one_word_and_nothing_is_no_error() -> Outcome {
    let node = Node::with(&[IMAGE]).await?;
    start(&node, "web")?;
    start(&node, "db")?;
    crictl(&node, &["stop", "--all"])?;
    assert_eq!(crictl(&node, &["ps", "-q"])?, "");
    crictl(&node, &["rm", "--all"])?;
    assert_eq!(crictl(&node, &["ps", "-a", "-q"])?, "");
    let pods = crictl(&node, &["pods", "-q"])?;
    let pods: Vec<&str> = pods.lines().collect();
    crictl(&node, &[&["stopp"], &pods[..]].concat())?;
    crictl(&node, &["rmp", "--all"])?;
    assert_eq!(crictl(&node, &["pods", "-q"])?, "");
    for command in ["rm", "rmp"] {
        crictl(&node, &[command, "--all"])?;
    }
    // What the kubelet may do twice, an operator may too.
    for command in ["stopp", "stop"] {
        crictl(&node, &[command, "0123456789abcdef"])?;
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_pulled_listed_and_removed() -> Outcome {
    let node = Node::with(&[IMAGE]).await?;
    let private = format!("{}/tools:1", node.registry().host());
    node.registry().set_auth(Auth::basic("someone", "secret"));
    assert!(!run(&node, &["pull", &private])?.status.success());
    crictl(&node, &["pull", "--creds", "someone:secret", &private])?;
    crictl(&node, &["rmi", &private])?;
    // base64 of the same.
    crictl(&node, &["pull", "--auth", "c29tZW9uZTpzZWNyZXQ=", &private])?;
    node.registry().set_auth(Auth::Open);
    crictl(&node, &["pull", "registry.k8s.io/pause:3.9"])?;

    let listed = crictl(&node, &["images", "--digests", "--no-trunc"])?;
    assert_eq!(listed.lines().count(), 4, "{listed}");
    assert!(listed.matches("sha256:").count() >= 6, "{listed}");
    assert_eq!(crictl(&node, &["images", "-q"])?.lines().count(), 3);
    let one = crictl(&node, &["images", "-q", "registry.k8s.io/pause:3.9"])?;
    assert_eq!(one.lines().count(), 1, "{one}");
    let found = crictl(&node, &["images", "-q", "--filter", "reference=.*tools.*"])?;
    assert_eq!(found.lines().count(), 1, "{found}");
    let pinned = crictl(&node, &["images", "--pinned"])?;
    assert!(
        pinned.contains("PINNED") && pinned.contains("false"),
        "{pinned}"
    );
    let verbose = crictl(&node, &["images", "-v"])?;
    assert!(verbose.contains("RepoTags"), "{verbose}");
    let images = json(&node, &["images", "-o", "json"])?;
    assert_eq!(
        images["images"].as_array().map(Vec::len),
        Some(3),
        "{images}"
    );
    let yaml = crictl(&node, &["images", "-o", "yaml"])?;
    assert!(yaml.contains("repoTags"), "{yaml}");

    let (pod, _) = start(&node, "user")?;
    crictl(&node, &["rmi", "--prune"])?;
    let left = crictl(&node, &["images"])?;
    assert!(
        left.contains("busybox") && !left.contains("pause"),
        "{left}"
    );
    crictl(&node, &["rmp", "-f", &pod])?;
    crictl(&node, &["rmi", "--all"])?;
    assert_eq!(crictl(&node, &["images", "-q"])?, "");
    for gone in ["rmi", "inspecti"] {
        let done = run(&node, &[gone, &private])?;
        assert_eq!(done.status.success(), false, "{gone}: {done:?}");
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runtime_tells_of_itself_and_takes_its_range() -> Outcome {
    let node = Node::with(&[]).await?;
    assert!(crictl(&node, &["version"])?.contains("RuntimeApiVersion:  v1"));
    let config = crictl(&node, &["runtime-config"])?;
    assert!(config.contains("CGROUPFS"), "{config}");
    crictl(
        &node,
        &["update-runtime-config", "--pod-cidr", "10.78.0.0/16"],
    )?;
    let pod = crictl(&node, &["runp", &files(&node, "ranged", SCRIPT)?.pod])?;
    let status = json(&node, &["inspectp", pod.trim()])?;
    let address = status["status"]["network"]["ip"]
        .as_str()
        .unwrap_or_default();
    assert!(address.starts_with("10.78."), "{status}");
    let info = json(&node, &["info"])?;
    assert!(
        info["features"]["supplemental_groups_policy"] == json!(true),
        "{info}"
    );
    assert!(
        info["runtimeHandlers"]
            .as_array()
            .is_some_and(|all| all.len() >= 2),
        "{info}"
    );
    crictl(&node, &["rmp", "-f", pod.trim()])?;
    // The rules of all pods have the new range.
    node.rebase()?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_no_runtime_works_too() -> Outcome {
    let node = Node::with(&[]).await?;
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            crictl(&node, &["completion", shell])?.contains("crictl"),
            "{shell}"
        );
    }
    let file = node.folder("config")?.join("crictl.yaml");
    let endpoint = format!("unix://{}", node.socket().display());
    std::fs::write(&file, format!("runtime-endpoint: {endpoint}\n"))?;
    let with_file = |arguments: &[&str]| {
        let mut command = Command::new(paths::tool("crictl")?);
        text_of(&node.command(command.arg("--config").arg(&file).args(arguments))?)
    };
    with_file(&["config", "--set", "timeout=20"])?;
    assert_eq!(with_file(&["config", "--get", "timeout"])?.trim(), "20");
    assert!(with_file(&["config", "--list"])?.contains(&endpoint));
    assert!(with_file(&["version"])?.contains("carpel"));
    assert!(crictl(&node, &["--help"])?.contains("USAGE"));
    node.finish().await
}
