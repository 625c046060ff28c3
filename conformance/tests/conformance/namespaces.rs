//! Which namespaces a container's processes are in.

use std::collections::BTreeMap;

use carpel_conformance::{Node, spec};
use k8s_cri::v1 as cri;
use k8s_cri::v1::NamespaceMode::{Container, Node as Host, Pod as Own, Target};
use tonic::Code;

use crate::checks::{Outcome, Pod, assert_refused, node};

const KINDS: [&str; 5] = ["net", "pid", "ipc", "uts", "mnt"];

type Links = BTreeMap<&'static str, String>;

async fn links(node: &Node, id: &str) -> anyhow::Result<Links> {
    let script = "for k in net pid ipc uts mnt; do readlink /proc/self/ns/$k; done";
    let said = node.cri().output(id, &["sh", "-c", script]).await?;
    let lines = said.lines().map(str::to_owned);
    Ok(KINDS.into_iter().zip(lines).collect())
}

fn of_node(node: &Node) -> anyhow::Result<Links> {
    node.inside(|| {
        let link = |kind: &'static str| {
            let link = std::fs::read_link(format!("/proc/thread-self/ns/{kind}"))?;
            Ok((kind, link.display().to_string()))
        };
        KINDS.into_iter().map(link).collect()
    })?
}

fn with(config: &cri::ContainerConfig, options: cri::NamespaceOption) -> cri::ContainerConfig {
    let mut config = config.clone();
    spec::security(&mut config).namespace_options = Some(options);
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn every_combination_of_a_pods_modes_is_had() -> Outcome {
    let node = node().await?;
    let host = of_node(&node)?;
    for network in [Own, Host] {
        for ipc in [Own, Host] {
            for pid in [Own, Container, Host] {
                let what = format!("network {network:?}, ipc {ipc:?}, pid {pid:?}");
                let options = spec::namespaces(network, pid, ipc);
                let mut config = spec::pod("combination");
                spec::pod_security(&mut config).namespace_options = Some(options.clone());
                let pod = Pod::run(&node, config).await?;
                let first = pod
                    .start(&node, &with(&spec::sleeper("a"), options.clone()))
                    .await?;
                let second = pod
                    .start(&node, &with(&spec::sleeper("b"), options))
                    .await?;
                let (first, second) = (links(&node, &first).await?, links(&node, &second).await?);
                for (kind, mode) in [("net", network), ("ipc", ipc), ("pid", pid)] {
                    let shared = first[kind] == second[kind];
                    assert_eq!(first[kind] == host[kind], mode == Host, "{kind}: {what}");
                    assert_eq!(shared, mode != Container, "{kind}: {what}");
                }
                assert_eq!(first["uts"], second["uts"], "{what}");
                assert_eq!(first["uts"] == host["uts"], network == Host, "uts: {what}");
                assert_ne!(first["mnt"], second["mnt"], "{what}");
                node.cri().remove_pod(&pod.id).await?;
            }
        }
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_may_have_another_pid_namespace_than_its_pod() -> Outcome {
    let node = node().await?;
    let host = of_node(&node)?;
    let pod = Pod::run(&node, spec::pod("mixed")).await?;
    let mut found = Vec::new();
    for (name, mode) in [("pod", Own), ("own", Container), ("host", Host)] {
        let options = spec::namespaces(Own, mode, Own);
        let id = pod
            .start(&node, &with(&spec::sleeper(name), options))
            .await?;
        let first = node.cri().output(&id, &["cat", "/proc/1/cmdline"]).await?;
        found.push((
            links(&node, &id).await?["pid"].clone(),
            first.contains("sleep 100000"),
        ));
    }
    let [(shared, not_first), (own, first), (hosts, _)] = &found[..] else {
        anyhow::bail!("three containers: {found:?}")
    };
    assert!(shared != own && shared != hosts && own != hosts);
    assert!(!not_first && *first);
    assert_eq!(hosts, &host["pid"]);
    node.finish().await
}

fn target(id: &str) -> cri::NamespaceOption {
    cri::NamespaceOption {
        target_id: id.to_owned(),
        ..spec::namespaces(Own, Target, Own)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debug_container_sees_the_processes_of_its_target() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("debug")).await?;
    let alone = with(&spec::sleeper("app"), spec::namespaces(Own, Container, Own));
    let app = pod.start(&node, &alone).await?;
    let debug = pod
        .start(&node, &with(&spec::sleeper("debug"), target(&app)))
        .await?;
    assert_eq!(
        links(&node, &app).await?["pid"],
        links(&node, &debug).await?["pid"]
    );
    let seen = node
        .cri()
        .output(&debug, &["cat", "/proc/1/cmdline"])
        .await?;
    assert!(seen.contains("sleep 100000"), "{seen}");
    // Its root is in reach, as kubectl debug promises.
    node.cri().output(&app, &["touch", "/mark"]).await?;
    let mut capable = with(&spec::sleeper("capable"), target(&app));
    spec::security(&mut capable).capabilities = Some(cri::Capability {
        add_capabilities: vec!["SYS_PTRACE".to_owned()],
        ..Default::default()
    });
    let capable = pod.start(&node, &capable).await?;
    node.cri()
        .output(&capable, &["test", "-e", "/proc/1/root/mark"])
        .await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_must_run_and_be_of_the_same_pod() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("one")).await?;
    let other = Pod::run(&node, spec::pod("two")).await?;
    let stranger = other.start(&node, &spec::sleeper("stranger")).await?;
    let created = node
        .cri()
        .create(&pod.id, &spec::sleeper("created"), &pod.config)
        .await?;
    let ended = pod.start(&node, &spec::shell("ended", "exit 0")).await?;
    node.cri().wait_exit(&ended).await?;
    for (name, id, code) in [
        ("of-another", stranger.as_str(), Code::InvalidArgument),
        ("not-started", &created, Code::FailedPrecondition),
        ("over", &ended, Code::FailedPrecondition),
        ("unknown", "0123456789ab", Code::NotFound),
        ("missing", "", Code::InvalidArgument),
    ] {
        let config = with(&spec::sleeper(name), target(id));
        let result = node.cri().create(&pod.id, &config, &pod.config).await;
        let named = if id.is_empty() { "target_id" } else { id };
        assert_refused(result, code, &[named]);
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_shared_is_refused() -> Outcome {
    let node = node().await?;
    for (field, options) in [
        ("network", spec::namespaces(Container, Own, Own)),
        ("network", spec::namespaces(Target, Own, Own)),
        ("ipc", spec::namespaces(Own, Own, Container)),
        ("ipc", spec::namespaces(Own, Own, Target)),
        ("pid", spec::namespaces(Own, Target, Own)),
    ] {
        let mut config = spec::pod("refused");
        spec::pod_security(&mut config).namespace_options = Some(options);
        let result = node.cri().run_pod(&config).await;
        assert_refused(result, Code::InvalidArgument, &[field]);
    }
    let pod = Pod::run(&node, spec::pod("plain")).await?;
    for (field, options) in [
        ("network", spec::namespaces(Host, Own, Own)),
        ("network", spec::namespaces(Container, Own, Own)),
        ("ipc", spec::namespaces(Own, Own, Host)),
        ("ipc", spec::namespaces(Own, Own, Target)),
    ] {
        let config = with(&spec::sleeper("c"), options);
        let result = node.cri().create(&pod.id, &config, &pod.config).await;
        assert_refused(result, Code::InvalidArgument, &[field]);
    }
    node.finish().await
}
