//! What the tests of this folder share.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use carpel_conformance::{Node, spec};
use k8s_cri::v1 as cri;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tonic::{Code, Status};

use crate::checks::{Outcome, Pod};

/// The connection was lost or could not be made.
pub(crate) fn is_away(status: &Status) -> bool {
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

pub(crate) async fn holder_pid(node: &Node, pod: &str) -> anyhow::Result<i32> {
    let info = node.cri().pod_info(pod).await?;
    let pid = info["pid"].as_i64().context("the pod's info has no pid")?;
    ensure!(pid > 1, "{info}");
    Ok(i32::try_from(pid)?)
}

/// Why the daemon says a pod is not ready.
pub(crate) async fn reason(node: &Node, pod: &str) -> anyhow::Result<String> {
    let info = node.cri().pod_info(pod).await?;
    Ok(info["reason"].as_str().unwrap_or_default().to_owned())
}

pub(crate) fn signal(pid: i32, signal: Signal) -> Outcome {
    kill(Pid::from_raw(pid), signal).with_context(|| format!("send {signal} to {pid}"))
}

pub(crate) async fn state(node: &Node, id: &str) -> anyhow::Result<cri::ContainerState> {
    Ok(node.cri().container(id).await?.state())
}

pub(crate) async fn is_ready(node: &Node, pod: &str) -> anyhow::Result<bool> {
    let state = node.cri().pod(pod).await?.state();
    Ok(state == cri::PodSandboxState::SandboxReady)
}

/// A file system in memory, on the node only, in the place of what is at `path`.
pub(crate) fn mount_tmpfs(node: &Node, path: &Path, options: &str) -> Outcome {
    node.inside(|| {
        std::fs::create_dir_all(path)?;
        mount(
            Some("none"),
            path,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options),
        )
        .with_context(|| format!("mount a tmpfs at {}", path.display()))
    })?
}

pub(crate) fn unmount(node: &Node, path: &Path) -> Outcome {
    node.inside(|| umount2(path, MntFlags::MNT_DETACH))?
        .with_context(|| format!("unmount {}", path.display()))
}

/// Fills the file system at `path` but for this many blocks of 4 KiB.
pub(crate) fn fill_but(node: &Node, path: &Path, blocks: u64) -> Outcome {
    let file = path.join("filler");
    node.inside(|| {
        use std::io::Write;
        let mut filler = std::fs::File::create(&file)?;
        let mut written = 0;
        // Written, not allocated: a tmpfs counts pages.
        while let Ok(count) = filler.write(&[1; 4096]) {
            written += count as u64;
        }
        let keep = written.saturating_sub(blocks * 4096);
        filler.set_len(keep)?;
        Ok(())
    })?
}

pub(crate) fn free(node: &Node, path: &Path) -> Outcome {
    let file = path.join("filler");
    Ok(node.inside(|| std::fs::remove_file(&file))??)
}

/// A figure in KiB of `/proc/PID/status`.
pub(crate) fn memory_kib(pid: u32, key: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .with_context(|| format!("no {key} in the status of {pid}"))?;
    let number = line.split_whitespace().next().unwrap_or_default();
    number.parse().with_context(|| format!("{key} {line:?}"))
}

/// Highest resident memory of a process while `work` runs.
pub(crate) async fn peak_kib<T>(
    pid: u32,
    work: impl Future<Output = T>,
) -> anyhow::Result<(T, u64)> {
    let mut peak = memory_kib(pid, "VmRSS")?;
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Ok((done, peak.max(memory_kib(pid, "VmRSS")?))),
            () = tokio::time::sleep(Duration::from_millis(10)) => {
                peak = peak.max(memory_kib(pid, "VmRSS")?);
            }
        }
    }
}

/// A pod that has had a container: what that brings to stay is there.
pub(crate) async fn settled_pod(node: &Node, config: cri::PodSandboxConfig) -> anyhow::Result<Pod> {
    let pod = Pod::run(node, config).await?;
    let id = pod.start(node, &spec::sleeper("first")).await?;
    node.cri().remove(&id).await?;
    node.rebase()?;
    Ok(pod)
}

/// The call, and how long it took.
pub(crate) async fn timed<T>(call: impl Future<Output = T>) -> (T, Duration) {
    let begin = Instant::now();
    let done = call.await;
    (done, begin.elapsed())
}
