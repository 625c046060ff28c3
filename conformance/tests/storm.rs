//! Sixty pods made and removed by sixteen clients while the daemon is killed again and
//! again; and what five hundred containers leave in their holder.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use carpel_conformance::{Cri, Node, spec};
use k8s_cri::v1 as cri;
use tonic::{Code, Status};

const PODS: usize = 60;
const CLIENTS: usize = 16;
const KILLS: u64 = 10;
/// Containers that come and go in one pod.
const CYCLES: usize = 500;
const AT_ONCE: usize = 4;
/// Of the allocator, whose pages are not all given back at any moment.
const SLACK_KIB: u64 = 96;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_storm_of_pods_and_kills_leaves_nothing_behind() -> anyhow::Result<()> {
    let node = Node::with(&[spec::BUSYBOX]).await?;
    let page = node.folder("metrics")?.join("page.sock");
    let metrics = format!("[metrics]\nlisten = {page:?}\n");
    node.drop_in("10-metrics.toml", &metrics)?;
    node.stop()?;
    node.restart().await?;
    node.rebase()?;
    let node = Arc::new(node);
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
    let working = AtomicBool::new(true);
    let killer = kill_often(&node, &working);
    let (killed, worked) = tokio::join!(killer, async {
        let mut results: Vec<anyhow::Result<()>> = Vec::new();
        while let Some(result) = clients.join_next().await {
            results.push(result.map_err(Into::into).flatten());
        }
        working.store(false, Ordering::Relaxed);
        results.into_iter().collect::<anyhow::Result<()>>()
    });
    done.store(true, Ordering::Relaxed);
    let (seen, host_seen) = watcher.join().expect("the watcher does not panic")?;
    worked?;
    let in_time = killed?;
    ensure!(
        in_time == KILLS,
        "only {in_time} kills came while there was work"
    );

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
    assert_gauges_are_zero(&page).await?;
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
    let end = Instant::now() + Duration::from_secs(120);
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

/// Gives the number of kills that came while the clients worked.
async fn kill_often(node: &Node, working: &AtomicBool) -> anyhow::Result<u64> {
    let mut in_time = 0;
    for number in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(100 + 40 * number)).await;
        node.kill()?;
        in_time += u64::from(working.load(Ordering::Relaxed));
        node.restart().await?;
    }
    Ok(in_time)
}

/// The daemon counts itself what belongs to no record.
async fn assert_gauges_are_zero(page: &Path) -> anyhow::Result<()> {
    // A look may be a second old.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let mut stream = UnixStream::connect(page).context("connect to the metrics")?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let gauges = text
        .lines()
        .filter(|line| line.starts_with("carpel_leftover"));
    let mut kinds = 0;
    for gauge in gauges {
        ensure!(gauge.ends_with(" 0"), "{gauge}");
        kinds += 1;
    }
    ensure!(kinds > 5, "only {kinds} gauges of leftovers");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn five_hundred_containers_leave_nothing_in_their_holder() -> anyhow::Result<()> {
    let node = Node::with(&[spec::BUSYBOX]).await?;
    let config = spec::pod("flat");
    let pod = node.cri().run_pod(&config).await?;
    let info = node.cri().pod_info(&pod).await?;
    let holder = info["pid"].as_u64().context("the holder's pid")?;
    cycle(&node, &pod, &config, CYCLES / 10).await?;
    let before = size(holder)?;
    cycle(&node, &pod, &config, CYCLES - CYCLES / 10).await?;
    let after = size(holder)?;
    ensure!(
        after.1 <= before.1,
        "descriptors grew: {before:?} to {after:?}"
    );
    ensure!(
        after.0 <= before.0 + SLACK_KIB,
        "memory grew: {before:?} to {after:?}"
    );
    node.finish().await
}

/// Containers made, started, used and removed, some at once.
async fn cycle(
    node: &Node,
    pod: &str,
    config: &cri::PodSandboxConfig,
    count: usize,
) -> anyhow::Result<()> {
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..AT_ONCE {
        let (cri, pod, config) = (node.cri().clone(), pod.to_owned(), config.clone());
        clients.spawn(async move {
            for number in 0..count / AT_ONCE {
                let container = spec::sleeper(&format!("c{client}-{number}"));
                let id = cri.run(&pod, &container, &config).await?;
                let reply = cri.exec(&id, &["echo", "alive"], 20).await?;
                ensure!(reply.stdout == b"alive\n", "{reply:?}");
                cri.remove(&id).await?;
            }
            Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    Ok(())
}

/// Proportional memory in KiB and descriptors of a process.
fn size(pid: u64) -> anyhow::Result<(u64, usize)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let pss = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let pss = pss.and_then(|rest| rest.split_whitespace().next());
    let pss = pss.context("no Pss")?.parse()?;
    Ok((pss, std::fs::read_dir(format!("/proc/{pid}/fd"))?.count()))
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
