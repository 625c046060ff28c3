//! More output than anybody asked for, and more directories.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, ensure};
use carpel_conformance::{Node, Settings, parse_log, spec};
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};
use tonic::Code;

use crate::checks::{Outcome, Pod, assert_refused, node};
use crate::support::{holder_pid, memory_kib, mount_tmpfs, peak_kib, settled_pod, timed, unmount};

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_a_newline_costs_the_holder_no_memory() -> Outcome {
    let node = node().await?;
    let logs = node.folder("logs")?;
    mount_tmpfs(&node, &logs, "size=24m")?;
    let pod = Pod::run(&node, spec::logging_pod("flood", &logs)).await?;
    let calm = pod
        .start(&node, &spec::shell("calm", "echo one line"))
        .await?;
    node.cri().wait_exit(&calm).await?;
    let holder = u32::try_from(holder_pid(&node, &pod.id).await?)?;
    let before = memory_kib(holder, "VmRSS")?;
    let script = "head -c 120000000 /dev/zero; head -c 20000000 /dev/zero >&2; exit 3";
    let id = pod.start(&node, &spec::shell("c", script)).await?;
    let (ended, peak) = peak_kib(holder, node.cri().wait_exit(&id)).await?;
    ensure!(ended?.exit_code == 3);
    ensure!(
        peak < before + 1024,
        "the holder grew from {before} to {peak} KiB"
    );
    node.cri().remove_pod(&pod.id).await?;
    unmount(&node, &logs)?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn output_without_end_costs_the_daemon_little_and_ends_at_the_time_out() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("endless")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    node.cri().output(&id, &["true"]).await?;
    let daemon = node.daemon_pid().context("the daemon runs")?;
    let before = memory_kib(daemon, "VmRSS")?;
    let endless = timed(node.cri().exec(&id, &["yes"], 3));
    let ((result, took), peak) = peak_kib(daemon, endless).await?;
    assert_refused(result, Code::DeadlineExceeded, &["yes"]);
    ensure!(took < Duration::from_secs(10), "{took:?}");
    ensure!(
        peak < before + (32 << 10),
        "the daemon grew from {before} to {peak} KiB"
    );
    let left = node.cri().exec(&id, &["pgrep", "yes"], 10).await?;
    ensure!(left.stdout.is_empty(), "{left:?}");
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_in_the_background_does_not_hold_a_command_open() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("background")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    let script = "sleep 4321 & (setsid sleep 4321 &); echo said; exit 6";
    let (reply, took) = timed(node.cri().exec(&id, &["sh", "-c", script], 20)).await;
    let reply = reply?;
    ensure!(took < Duration::from_secs(10), "{took:?}");
    ensure!(
        (reply.stdout.as_slice(), reply.exit_code) == (b"said\n", 6),
        "{reply:?}"
    );
    let left = node
        .cri()
        .exec(&id, &["pgrep", "-f", "sleep 4321"], 10)
        .await?;
    ensure!(left.stdout.is_empty(), "{left:?}");
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_commands_side_by_side_each_get_their_own_output() -> Outcome {
    let node = node().await?;
    let pod = settled_pod(&node, spec::pod("many")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    let mut tasks = tokio::task::JoinSet::new();
    // A pod takes 128 at once and refuses more.
    let room = std::sync::Arc::new(tokio::sync::Semaphore::new(120));
    for number in 0..300 {
        let (cri, id) = (node.cri().clone(), id.clone());
        let room = std::sync::Arc::clone(&room);
        tasks.spawn(async move {
            let _place = room.acquire().await;
            let script = format!("echo {number}; exit {}", number % 7);
            (cri.exec(&id, &["sh", "-c", &script], 120).await, number)
        });
    }
    while let Some(done) = tasks.join_next().await {
        let (reply, number) = done?;
        let reply = reply.with_context(|| format!("command {number}"))?;
        ensure!(
            reply.stdout == format!("{number}\n").into_bytes(),
            "{reply:?}"
        );
        ensure!(reply.exit_code == number % 7, "{reply:?}");
    }
    node.cri().remove(&id).await?;
    node.assert_clean().await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_without_a_pause_neither_loses_nor_joins_a_line() -> Outcome {
    const LINES: usize = 20_000;
    let node = Node::with(&[spec::TOOLS]).await?;
    let logs = node.folder("logs")?;
    let pod = Pod::run(&node, spec::logging_pod("rotation", &logs)).await?;
    let command = ["/count", "1", &LINES.to_string(), "20"];
    let id = pod
        .start(&node, &spec::container("c", spec::TOOLS, &command))
        .await?;
    let current = logs.join("c.log");
    let mut files = Vec::new();
    while files.len() < 400 {
        let rotated = logs.join(format!("c.log.{}", files.len()));
        std::fs::rename(&current, &rotated)?;
        match node.cri().reopen_log(&id).await {
            Ok(()) => files.push(rotated),
            // It has ended meanwhile; rename back as a kubelet does.
            Err(status) if status.code() == Code::FailedPrecondition => {
                std::fs::rename(&rotated, &current)?;
                break;
            }
            Err(status) => return Err(status.into()),
        }
    }
    ensure!(files.len() >= 5, "it ended after {} rotations", files.len());
    ensure!(node.cri().wait_exit(&id).await?.exit_code == 0);
    files.push(current);
    let mut numbers = Vec::new();
    for file in &files {
        let lines = parse_log(&std::fs::read_to_string(file)?)?;
        ensure!(lines.iter().all(|line| !line.partial));
        numbers.extend(lines.into_iter().map(|line| line.text));
    }
    let expected: Vec<_> = (1..=LINES).map(|number| format!("line {number}")).collect();
    ensure!(
        numbers == expected,
        "{} lines, {LINES} expected",
        numbers.len()
    );
    node.finish().await
}

/// Directories in each other below the root of the container whose first process this is.
fn nest(pid: i32, depth: usize) -> Outcome {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = format!("/proc/{pid}/root/tmp");
    let mut at: OwnedFd = open(root.as_str(), flags, Mode::empty())?;
    for level in 0..depth {
        mkdirat(at.as_fd(), "d", Mode::S_IRWXU).with_context(|| format!("level {level}"))?;
        at = openat(at.as_fd(), "d", flags, Mode::empty())?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_nested_directories_go_with_their_container() -> Outcome {
    let node = Node::start(Settings::default()).await?;
    // Some disks take milliseconds for a directory, so the store is in memory.
    let store = node.root().join("images");
    node.stop()?;
    mount_tmpfs(&node, &store, "size=400m,mode=711")?;
    node.restart().await?;
    node.cri().pull(spec::BUSYBOX).await?;
    let pod = settled_pod(&node, spec::pod("deep")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    let processes = node.snapshot()?.processes;
    let sleeper = processes
        .iter()
        .find(|line| line.contains("sleep 100000 & wait"));
    let pid = sleeper
        .and_then(|line| line.split(' ').next()?.parse().ok())
        .context("the container's first process")?;
    tokio::task::spawn_blocking(move || nest(pid, 100_000)).await??;
    let daemon = node.daemon_pid().context("the daemon runs")?;
    let before = memory_kib(daemon, "VmRSS")?;
    let (removed, peak) = peak_kib(daemon, node.cri().remove(&id)).await?;
    removed?;
    // They are deleted in the background.
    let tmp = store.join("tmp");
    let gone = async {
        for _ in 0..600 {
            if node.inside(|| std::fs::read_dir(&tmp).map(Iterator::count))?? == 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!("it is still there after 60 s")
    };
    let (gone, later) = peak_kib(daemon, gone).await?;
    gone?;
    let peak = peak.max(later);
    ensure!(
        peak < before + (8 << 10),
        "the daemon grew from {before} to {peak} KiB"
    );
    node.assert_clean().await?;
    node.cri().remove_pod(&pod.id).await?;
    node.cri().remove_image(spec::BUSYBOX).await?;
    node.stop()?;
    unmount(&node, &store)?;
    node.restart().await?;
    node.rebase()?;
    node.finish().await
}
