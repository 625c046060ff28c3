//! Twenty pods made and removed by eight clients while the daemon is killed again and again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use carpel_conformance::{Cri, Node, spec};
use k8s_cri::v1 as cri;
use tonic::{Code, Status};

const PODS: usize = 20;
const CLIENTS: usize = 8;
const KILLS: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_storm_of_pods_and_kills_leaves_nothing_behind() -> anyhow::Result<()> {
    let node = Arc::new(Node::with(&[spec::BUSYBOX]).await?);
    let (before, host_before) = (node.mounts()?, host_mounts()?);
    let done = Arc::new(AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let (node, done) = (Arc::clone(&node), Arc::clone(&done));
        move || watch(&node, &done)
    });

    let queue = Arc::new(tokio::sync::Mutex::new((0..PODS).collect::<Vec<_>>()));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (queue, cri) = (Arc::clone(&queue), node.cri().clone());
        clients.spawn(async move {
            loop {
                let Some(number) = queue.lock().await.pop() else {
                    return Ok(());
                };
                Box::pin(life(&cri, number))
                    .await
                    .with_context(|| format!("pod {number}"))?;
            }
        });
    }
    let killer = kill_often(&node);
    let (killed, worked) = tokio::join!(killer, async {
        let mut results: Vec<anyhow::Result<()>> = Vec::new();
        while let Some(result) = clients.join_next().await {
            results.push(result.map_err(Into::into).flatten());
        }
        results.into_iter().collect::<anyhow::Result<()>>()
    });
    done.store(true, Ordering::Relaxed);
    let (seen, host_seen) = watcher.join().expect("the watcher does not panic")?;
    worked?;
    killed?;

    let strange: Vec<_> = seen.difference(&before).collect();
    ensure!(
        strange.is_empty(),
        "the node's mount table showed {strange:?}"
    );
    let name = node.root().display().to_string();
    let strange: Vec<_> = host_seen
        .difference(&host_before)
        .filter(|mount| mount.contains(&name))
        .collect();
    ensure!(
        strange.is_empty(),
        "the machine's mount table showed {strange:?}"
    );
    ensure!(
        node.cri().list_containers(None).await?.is_empty(),
        "containers are left"
    );
    ensure!(
        node.cri().list_pods(None).await?.is_empty(),
        "pods are left"
    );
    node.assert_clean().await?;
    Arc::into_inner(node)
        .context("the node is still in use")?
        .finish()
        .await
}

/// A pod with two containers from beginning to end; each step is tried until it is done.
async fn life(client: &Cri, number: usize) -> anyhow::Result<()> {
    let mut config = spec::pod(&format!("storm-{number}"));
    if number.is_multiple_of(4) {
        let port = i32::try_from(20000 + number)?;
        config.port_mappings = vec![spec::port(cri::Protocol::Tcp, port, 80)];
    }
    let pod = persist(|| client.run_pod(&config)).await?;
    let mut containers = Vec::new();
    for name in ["a", "b"] {
        let container = spec::sleeper(name);
        let id = persist(|| client.create(&pod, &container, &config)).await?;
        persist(|| start(client, &id)).await?;
        containers.push(id);
    }
    for id in &containers {
        let reply = persist(|| client.exec(id, &["echo", "alive"], 20)).await?;
        ensure!(reply.stdout == b"alive\n", "{reply:?}");
    }
    persist(|| client.stop(&containers[0], 0)).await?;
    persist(|| client.remove(&containers[0])).await?;
    persist(|| client.stop_pod(&pod)).await?;
    persist(|| client.remove_pod(&pod)).await?;
    Ok(())
}

/// A start whose answer was lost may have happened.
async fn start(client: &Cri, id: &str) -> Result<(), Status> {
    match client.start(id).await {
        Err(status) if status.code() == Code::FailedPrecondition => {
            let state = client.container(id).await?.state();
            if state == cri::ContainerState::ContainerRunning {
                Ok(())
            } else {
                Err(status)
            }
        }
        result => result,
    }
}

/// Calls again while the daemon is away; every other error is final.
async fn persist<T, F: Future<Output = Result<T, Status>>>(
    mut call: impl FnMut() -> F,
) -> anyhow::Result<T> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        match call().await {
            Ok(value) => return Ok(value),
            Err(status) if Instant::now() > end || !is_away(&status) => return Err(status.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// The connection was lost or could not be made.
fn is_away(status: &Status) -> bool {
    let lost = [
        "transport error",
        "h2 protocol error",
        "broken pipe",
        "connection",
    ];
    status.code() == Code::Unavailable
        || matches!(
            status.code(),
            Code::Unknown | Code::Internal | Code::Cancelled
        ) && lost.iter().any(|text| status.message().contains(text))
}

async fn kill_often(node: &Node) -> anyhow::Result<()> {
    for number in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(150 + 70 * number as u64)).await;
        node.kill()?;
        node.restart().await?;
    }
    Ok(())
}

type Mounts = BTreeSet<String>;

/// Every mount that either table shows until `done`.
fn watch(node: &Node, done: &AtomicBool) -> anyhow::Result<(Mounts, Mounts)> {
    let (mut seen, mut host_seen) = (Mounts::new(), Mounts::new());
    while !done.load(Ordering::Relaxed) {
        seen.extend(node.mounts()?);
        host_seen.extend(host_mounts()?);
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok((seen, host_seen))
}

/// Mount points of the machine itself.
fn host_mounts() -> anyhow::Result<Mounts> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(ToOwned::to_owned)
        .collect())
}
