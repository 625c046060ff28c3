//! Too few descriptors, too few processes, too many processes.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use carpel_conformance::{Cri, Node, spec};
use k8s_cri::v1 as cri;
use tokio::task::JoinSet;

use crate::checks::{Outcome, Pod, node, until};
use crate::support::{settled_pod, state, timed};

fn limit_descriptors(node: &Node, limit: u32) -> Outcome {
    let pid = node.daemon_pid().context("the daemon runs")?;
    let limit = format!("--nofile={limit}:{limit}");
    node.run("prlimit", &["--pid", &pid.to_string(), &limit])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_too_few_descriptors_the_daemon_says_so_and_recovers() -> Outcome {
    let node = node().await?;
    let pod = settled_pod(&node, spec::pod("few")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    ensure!(node.cri().output(&id, &["sleep", "0.2"]).await?.is_empty());
    node.rebase()?;
    limit_descriptors(&node, 256)?;
    let mut tasks = JoinSet::new();
    for _ in 0..300 {
        let (cri, id) = (node.cri().clone(), id.clone());
        tasks.spawn(async move { cri.exec(&id, &["sleep", "1"], 60).await });
    }
    let (mut good, mut refused) = (0, 0);
    while let Some(done) = tasks.join_next().await {
        match done? {
            Ok(reply) => {
                ensure!(reply.exit_code == 0, "{reply:?}");
                good += 1;
            }
            Err(status) => {
                ensure!(status.code() == tonic::Code::ResourceExhausted, "{status}");
                ensure!(status.message().contains("open files"), "{status}");
                refused += 1;
            }
        }
    }
    ensure!(
        good > 0 && refused > 0,
        "{good} went well, {refused} were refused"
    );
    ensure!(node.cri().output(&id, &["echo", "on"]).await? == "on\n");
    node.assert_clean().await?;
    // Pods too, until there are no more.
    let mut pods = Vec::new();
    let status = loop {
        ensure!(pods.len() < 200, "256 descriptors are enough for 200 pods");
        match node.cri().run_pod(&spec::pod("one-more")).await {
            Ok(pod) => pods.push(pod),
            Err(status) => break status,
        }
    };
    ensure!(status.code() == tonic::Code::ResourceExhausted, "{status}");
    for pod in &pods {
        node.cri().stop_pod(pod).await?;
        node.cri().remove_pod(pod).await?;
    }
    ensure!(node.cri().output(&id, &["echo", "on"]).await? == "on\n");
    node.assert_clean().await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_descriptors_do_not_end_the_daemon() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("connections")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    limit_descriptors(&node, 128)?;
    let mut connections = Vec::new();
    for _ in 0..200 {
        connections.push(UnixStream::connect(node.socket())?);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    ensure!(!node.has_died()?, "the daemon has ended");
    drop(connections);
    let fresh = Cri::new(node.socket());
    until("a new client is served", || async {
        Ok(fresh.version().await.is_ok())
    })
    .await?;
    ensure!(fresh.output(&id, &["echo", "on"]).await? == "on\n");
    node.finish().await
}

/// Where the container's processes are counted.
fn pids_max(node: &Node, id: &str) -> anyhow::Result<PathBuf> {
    let find = || {
        let cgroups = node.snapshot().ok()?.cgroups;
        let file = |dir: &String| PathBuf::from(dir).join("pids.max");
        let mut of_container = cgroups.iter().filter(|dir| dir.ends_with(id)).map(file);
        of_container.find(|file| file.is_file())
    };
    find().context("the container has no pids.max")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_without_room_for_a_process_can_be_stopped() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("pids")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    ensure!(node.cri().output(&id, &["echo", "on"]).await? == "on\n");
    let limit = pids_max(&node, &id)?;
    std::fs::write(&limit, "1")?;
    let (refused, took) = timed(node.cri().exec(&id, &["sh", "-c", "ls | cat"], 20)).await;
    ensure!(took < Duration::from_secs(25), "{took:?}");
    if let Ok(reply) = &refused {
        ensure!(reply.exit_code != 0, "{reply:?}");
    }
    ensure!(state(&node, &id).await? == cri::ContainerState::ContainerRunning);
    // Another one is not concerned.
    let other = pod.start(&node, &spec::sleeper("other")).await?;
    ensure!(node.cri().output(&other, &["echo", "on"]).await? == "on\n");
    std::fs::write(&limit, "max")?;
    ensure!(node.cri().output(&id, &["echo", "again"]).await? == "again\n");
    std::fs::write(&limit, "1")?;
    let (stopped, took) = timed(node.cri().stop(&id, 2)).await;
    stopped?;
    ensure!(took < Duration::from_secs(10), "{took:?}");
    node.cri().remove(&id).await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_multiplies_when_told_to_end_is_ended() -> Outcome {
    let node = node().await?;
    let pod = settled_pod(&node, spec::pod("bomb")).await?;
    // Bounded, and faster than one signal a process.
    let script = "bomb() { i=0; while [ $i -lt 200 ]; do (setsid sleep 7654 &) ; i=$((i+1)); done; }; \
                  trap 'bomb & bomb & bomb' TERM; echo ready; while :; do sleep 0.1; done";
    for grace in [1, 0] {
        let id = pod.start(&node, &spec::shell("c", script)).await?;
        until("it is ready", || async {
            Ok(node
                .cri()
                .exec(&id, &["pgrep", "sleep"], 10)
                .await?
                .exit_code
                == 0)
        })
        .await?;
        let (stopped, took) = timed(node.cri().stop(&id, grace)).await;
        stopped?;
        ensure!(took < Duration::from_secs(20), "{took:?}");
        ensure!(node.cri().container(&id).await?.exit_code == 137);
        node.cri().remove(&id).await?;
        let left = node.snapshot()?.processes;
        ensure!(!left.iter().any(|line| line.contains("7654")), "{left:?}");
        node.assert_clean().await?;
    }
    node.finish().await
}
