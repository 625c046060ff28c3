//! What the tests of this folder share.

use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

use carpel_conformance::spec::BUSYBOX;
use carpel_conformance::{Node, Settings};
use k8s_cri::v1 as cri;
use tonic::{Code, Status};

pub(crate) type Outcome = anyhow::Result<()>;

/// A node with busybox.
pub(crate) async fn node() -> anyhow::Result<Node> {
    Node::start(Settings::default().images(&[BUSYBOX])).await
}

/// The call must have failed with this code and name these things.
#[track_caller]
pub(crate) fn assert_refused<T: Debug>(result: Result<T, Status>, code: Code, names: &[&str]) {
    let status = result.expect_err("this should have been refused");
    assert_eq!(status.code(), code, "{status}");
    for name in names {
        assert!(
            status.message().contains(name),
            "{name:?} is not named in: {}",
            status.message()
        );
    }
}

/// Asks again and again until it is so, for a bounded time.
pub(crate) async fn until<F: Future<Output = anyhow::Result<bool>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> Outcome {
    let end = Instant::now() + Duration::from_secs(20);
    while !ask().await? {
        anyhow::ensure!(Instant::now() < end, "{what}: not within 20 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// A running pod and its configuration.
pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) config: cri::PodSandboxConfig,
}

impl Pod {
    pub(crate) async fn run(node: &Node, config: cri::PodSandboxConfig) -> anyhow::Result<Self> {
        Ok(Self {
            id: node.cri().run_pod(&config).await?,
            config,
        })
    }

    /// Starts a container in it.
    pub(crate) async fn start(
        &self,
        node: &Node,
        container: &cri::ContainerConfig,
    ) -> anyhow::Result<String> {
        Ok(node.cri().run(&self.id, container, &self.config).await?)
    }
}

/// Tries again for a while: a program that has just been started may not listen yet.
pub(crate) async fn retry<T>(mut attempt: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        match attempt() {
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            done => return done,
        }
    }
}

/// Every process of the node's pods: holders and what runs in containers.
pub(crate) fn pod_processes(node: &Node) -> anyhow::Result<Vec<i32>> {
    let processes = node.snapshot()?.processes;
    Ok(processes
        .iter()
        .filter_map(|line| line.split(' ').next()?.parse().ok())
        .collect())
}
