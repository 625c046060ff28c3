//! The page that Prometheus reads, and the gauges of what is left over.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use carpel_conformance::{Node, Settings, spec};

use crate::checks::{Outcome, Pod, until};

/// A node that serves metrics on a unix socket of its own.
pub(crate) async fn metered() -> anyhow::Result<(Node, PathBuf)> {
    let node = Node::start(Settings::default().images(&[spec::BUSYBOX])).await?;
    let socket = node.folder("metrics")?.join("page.sock");
    node.drop_in(
        "10-metrics.toml",
        &format!("[metrics]\nlisten = {socket:?}\n"),
    )?;
    node.stop()?;
    node.restart().await?;
    node.rebase()?;
    Ok((node, socket))
}

fn request(socket: &Path, head: &str) -> anyhow::Result<String> {
    let mut stream = UnixStream::connect(socket).context("connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    Ok(reply)
}

/// Every sample of the page by its name with labels; fails if a line is none.
pub(crate) fn scrape(socket: &Path) -> anyhow::Result<BTreeMap<String, f64>> {
    let reply = request(socket, "GET /metrics HTTP/1.1")?;
    let (head, page) = reply.split_once("\r\n\r\n").context("no head")?;
    anyhow::ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    anyhow::ensure!(page.ends_with("# EOF\n"), "the page is cut");
    let mut samples = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
        let value: f64 = value.parse().with_context(|| line.to_owned())?;
        anyhow::ensure!(name.starts_with("carpel_"), "{line}");
        anyhow::ensure!(
            samples.insert(name.to_owned(), value).is_none(),
            "twice: {line}"
        );
    }
    Ok(samples)
}

/// Gauges of leftovers that are not zero, by kind.
pub(crate) fn leftovers(socket: &Path) -> anyhow::Result<BTreeMap<String, f64>> {
    let samples = scrape(socket)?;
    let failures = samples.get("carpel_leftover_failures");
    anyhow::ensure!(failures == Some(&0.0), "could not look: {failures:?}");
    let prefix = "carpel_leftovers{kind=\"";
    Ok(samples
        .into_iter()
        .filter(|(_, value)| *value != 0.0)
        .filter_map(|(name, value)| {
            Some((
                name.strip_prefix(prefix)?
                    .trim_end_matches("\"}")
                    .to_owned(),
                value,
            ))
        })
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_tells_what_was_done_and_what_there_is() -> Outcome {
    let (node, socket) = metered().await?;
    let pod = Pod::run(&node, spec::pod("counted")).await?;
    pod.start(&node, &spec::sleeper("c")).await?;
    assert!(node.cri().pod("no such pod").await.is_err());
    let page = scrape(&socket)?;
    let of = |name: &str| page.get(name).copied().unwrap_or(-1.0);
    assert_eq!(of("carpel_pods{state=\"ready\"}"), 1.0);
    assert_eq!(of("carpel_pods{state=\"notready\"}"), 0.0);
    assert_eq!(of("carpel_containers{state=\"running\"}"), 1.0);
    assert_eq!(of("carpel_holders"), 1.0);
    assert_eq!(
        of("carpel_rpc_calls_total{method=\"RunPodSandbox\",code=\"OK\"}"),
        1.0
    );
    assert_eq!(
        of("carpel_rpc_calls_total{method=\"PodSandboxStatus\",code=\"NOT_FOUND\"}"),
        1.0
    );
    assert_eq!(
        of("carpel_rpc_duration_seconds_count{method=\"RunPodSandbox\"}"),
        1.0
    );
    let stage =
        "carpel_operation_stage_seconds_count{operation=\"run_pod_sandbox\",stage=\"network\"}";
    assert_eq!(of(stage), 1.0);
    assert_eq!(of("carpel_pod_addresses_used{cidr=\"10.77.0.0/16\"}"), 1.0);
    assert_eq!(
        of("carpel_pod_addresses_total{cidr=\"10.77.0.0/16\"}"),
        65533.0
    );
    assert!(of("carpel_recovery_seconds") >= 0.0);
    assert!(leftovers(&socket)?.is_empty(), "{page:?}");
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_can_be_read_while_pods_come_and_go_and_others_read_slowly() -> Outcome {
    let (node, socket) = metered().await?;
    // Readers that never ask and never read; more than are served at once is refused.
    let mut idle = Vec::new();
    for _ in 0..10 {
        let mut slow = UnixStream::connect(&socket)?;
        slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")?;
        idle.push(slow);
    }
    let work = async {
        for round in 0..3 {
            let pod = node
                .cri()
                .run_pod(&spec::pod(&format!("busy{round}")))
                .await?;
            node.cri().stop_pod(&pod).await?;
            node.cri().remove_pod(&pod).await?;
        }
        anyhow::Ok(())
    };
    let place = socket.clone();
    let reading = tokio::task::spawn_blocking(move || {
        for _ in 0..20 {
            let found = leftovers(&place)?;
            anyhow::ensure!(
                found.is_empty(),
                "left over while pods come and go: {found:?}"
            );
        }
        anyhow::Ok(())
    });
    work.await?;
    reading.await??;
    drop(idle);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_for_the_page_is_refused() -> Outcome {
    let (node, socket) = metered().await?;
    assert!(request(&socket, "GET / HTTP/1.1")?.starts_with("HTTP/1.1 404"));
    assert!(request(&socket, "POST /metrics HTTP/1.1")?.starts_with("HTTP/1.1 405"));
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(64 << 10));
    let refused = request(&socket, &long).map_or(true, |reply| !reply.starts_with("HTTP/1.1 200"));
    assert!(refused, "a head of 64 KiB was taken");
    let full: Vec<_> = (0..64).map(|_| UnixStream::connect(&socket)).collect();
    assert!(full.iter().any(Result::is_ok));
    drop(full);
    until("the page is served again", || async {
        Ok(scrape(&socket).is_ok())
    })
    .await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_left_over_is_counted_by_its_kind() -> Outcome {
    let (node, socket) = metered().await?;
    let pod = Pod::run(&node, spec::pod("proper")).await?;
    pod.start(&node, &spec::sleeper("c")).await?;
    assert!(leftovers(&socket)?.is_empty());

    let strays = Strays::make(&node)?;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let found = leftovers(&socket)?;
    let expected = [
        ("cgroup", 1.0),
        ("link", 1.0),
        ("rootfs", 1.0),
        ("run_dir", 1.0),
    ];
    let expected: BTreeMap<_, _> = expected
        .map(|(kind, count)| (kind.to_owned(), count))
        .into();
    assert_eq!(found, expected);
    drop(strays);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(leftovers(&socket)?.is_empty());
    node.finish().await
}

/// One of each kind that can be left over, made by hand; gone when dropped.
pub(crate) struct Strays<'a> {
    node: &'a Node,
    folders: Vec<PathBuf>,
}

impl<'a> Strays<'a> {
    pub(crate) fn make(node: &'a Node) -> anyhow::Result<Self> {
        let mut folders = vec![
            node.run_dir().join("pods/strayrun"),
            node.root().join("images/rootfs/strayroot"),
        ];
        let cgroup = node
            .cgroup_folders()
            .into_iter()
            .next()
            .context("no cgroup")?;
        folders.push(cgroup.join("straygroup"));
        for folder in &folders {
            std::fs::create_dir(folder).with_context(|| folder.display().to_string())?;
        }
        node.run("ip", &["link", "add", "cplstray00", "type", "bridge"])?;
        Ok(Self { node, folders })
    }
}

impl Drop for Strays<'_> {
    fn drop(&mut self) {
        for folder in &self.folders {
            std::fs::remove_dir(folder).ok();
        }
        self.node.run("ip", &["link", "del", "cplstray00"]).ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_lost_its_holder_is_counted_until_it_is_removed() -> Outcome {
    let (node, socket) = metered().await?;
    let pod = Pod::run(&node, spec::pod("lost")).await?;
    for pid in crate::checks::pod_processes(&node)? {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).ok();
    }
    until("the pod is counted", || async {
        Ok(leftovers(&socket)?.get("pod") == Some(&1.0))
    })
    .await?;
    node.cri().stop_pod(&pod.id).await?;
    node.cri().remove_pod(&pod.id).await?;
    until("nothing is counted", || async {
        Ok(leftovers(&socket)?.is_empty())
    })
    .await?;
    node.finish().await
}
