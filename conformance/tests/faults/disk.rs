//! Full disks: a clear refusal, nothing half-made, and work goes on when there is room.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use carpel_conformance::{Node, Settings, parse_log, spec};
use k8s_cri::v1 as cri;
use tonic::{Code, Status};

use crate::checks::{Outcome, Pod, node, until};
use crate::support::{fill_but, free, mount_tmpfs, state, unmount};

fn assert_exhausted(status: &Status) -> Outcome {
    ensure!(status.code() == Code::ResourceExhausted, "{status}");
    ensure!(status.message().contains("No space left"), "{status}");
    Ok(())
}

/// A node with a small file system in memory at this place below its directories.
async fn node_with_small(place: impl Fn(&Node) -> PathBuf) -> anyhow::Result<(Node, PathBuf)> {
    let node = node().await?;
    let place = place(&node);
    node.kill()?;
    mount_tmpfs(&node, &place, "size=1m,nr_inodes=400,mode=711")?;
    node.restart().await?;
    // What the daemon keeps there for good comes with the first pod.
    let pod = Pod::run(&node, spec::pod("first")).await?;
    node.cri().remove_pod(&pod.id).await?;
    node.rebase()?;
    Ok((node, place))
}

/// Runs a pod through its life; gives the refusal at which it ended, if any.
async fn life(node: &Node, config: &cri::PodSandboxConfig) -> anyhow::Result<Option<Status>> {
    let pod = match node.cri().run_pod(config).await {
        Ok(pod) => pod,
        Err(status) => {
            ensure!(
                node.cri().list_pods(None).await?.is_empty(),
                "a pod after {status}"
            );
            return Ok(Some(status));
        }
    };
    let made = node.cri().create(&pod, &spec::sleeper("c"), config).await;
    let refusal = match made {
        Ok(id) => {
            // What runs needs no disk to be started, used and ended.
            node.cri().start(&id).await.context("start")?;
            let output = node.cri().output(&id, &["echo", "yes"]).await;
            ensure!(output.context("exec")? == "yes\n");
            node.cri().stop(&id, 10).await.context("stop")?;
            ensure!(state(node, &id).await? == cri::ContainerState::ContainerExited);
            node.cri().remove(&id).await.context("remove")?;
            None
        }
        Err(status) => {
            let containers = node.cri().list_containers(None).await?;
            ensure!(containers.is_empty(), "a container after {status}");
            Some(status)
        }
    };
    node.cri().stop_pod(&pod).await.context("stop the pod")?;
    node.cri()
        .remove_pod(&pod)
        .await
        .context("remove the pod")?;
    Ok(refusal)
}

/// With room for no block, one block, …, until all goes well.
async fn at_every_level(node: &Node, place: &Path) -> Outcome {
    let config = spec::pod("full");
    let mut refused = 0;
    for blocks in 0..60 {
        fill_but(node, place, blocks)?;
        let ended = life(node, &config).await;
        free(node, place)?;
        let context = || format!("with {blocks} blocks in {}", place.display());
        let refusal = ended.with_context(context)?;
        node.assert_clean().await.with_context(context)?;
        if let Some(status) = refusal {
            assert_exhausted(&status).with_context(context)?;
            refused += 1;
            continue;
        }
        ensure!(refused > 0, "nothing was refused on a full disk");
        ensure!(life(node, &config).await?.is_none());
        return Ok(());
    }
    anyhow::bail!("60 free blocks in {} are not enough", place.display())
}

async fn full(place: impl Fn(&Node) -> PathBuf) -> Outcome {
    let (node, place) = node_with_small(place).await?;
    at_every_level(&node, &place).await?;
    node.stop()?;
    unmount(&node, &place)?;
    node.restart().await?;
    node.rebase()?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_state_disk_refuses_new_work_and_ends_old_work() -> Outcome {
    full(|node| node.root().join("state")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_network_state_disk_refuses_new_work_and_ends_old_work() -> Outcome {
    full(|node| node.root().join("network")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_run_directory_refuses_new_work_and_ends_old_work() -> Outcome {
    full(|node| node.run_root().join("pods")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_disk_that_fills_up_while_pods_run_lets_them_be_recovered_and_removed() -> Outcome {
    let (node, place) = node_with_small(|node| node.root().join("state")).await?;
    let pod = Pod::run(&node, spec::pod("runs")).await?;
    let kept = pod.start(&node, &spec::sleeper("kept")).await?;
    let ends = pod
        .start(&node, &spec::shell("ends", "sleep 0.5; exit 7"))
        .await?;
    fill_but(&node, &place, 0)?;
    ensure!(node.cri().wait_exit(&ends).await?.exit_code == 7);
    node.kill()?;
    node.restart().await?;
    ensure!(
        node.cri().container(&ends).await?.exit_code == 7,
        "the holder knows"
    );
    ensure!(node.cri().output(&kept, &["echo", "on"]).await? == "on\n");
    let refused = node
        .cri()
        .create(&pod.id, &spec::sleeper("new"), &pod.config)
        .await;
    assert_exhausted(&refused.expect_err("a container on a full disk"))?;
    node.cri().stop_pod(&pod.id).await?;
    node.cri().remove_pod(&pod.id).await?;
    free(&node, &place)?;
    node.assert_clean().await?;
    ensure!(life(&node, &pod.config).await?.is_none());
    node.stop()?;
    unmount(&node, &place)?;
    node.restart().await?;
    node.rebase()?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_image_disk_fails_pulls_and_containers_and_leaves_nothing() -> Outcome {
    let node = Node::start(Settings::default()).await?;
    let place = node.root().join("images");
    node.stop()?;
    mount_tmpfs(&node, &place, "size=48m,mode=711")?;
    node.restart().await?;
    let pod = Pod::run(&node, spec::pod("images")).await?;
    let mut refused = 0;
    let mut blocks = 0;
    loop {
        ensure!(blocks < 20_000, "the image does not fit in {blocks} blocks");
        fill_but(&node, &place, blocks)?;
        let pulled = node.cri().pull(spec::BUSYBOX).await;
        free(&node, &place)?;
        let context = || format!("with {blocks} blocks");
        match pulled {
            Ok(_) => break,
            Err(status) => assert_exhausted(&status).with_context(context)?,
        }
        ensure!(node.cri().image(spec::BUSYBOX).await?.is_none());
        refused += 1;
        blocks = (blocks + 1) * 3 / 2;
    }
    ensure!(refused > 5, "only {refused} pulls were refused");
    for blocks in 0..4 {
        fill_but(&node, &place, blocks)?;
        let made = node
            .cri()
            .create(&pod.id, &spec::sleeper("c"), &pod.config)
            .await;
        if let Ok(id) = &made {
            node.cri().remove(id).await?;
        }
        free(&node, &place)?;
        if let Err(status) = made {
            assert_exhausted(&status)?;
        } else {
            ensure!(blocks > 0, "a root filesystem on a full disk");
        }
        ensure!(node.cri().list_containers(None).await?.is_empty());
    }
    let rootfs = place.join("rootfs");
    let left = node.inside(|| std::fs::read_dir(&rootfs).map(Iterator::count))??;
    ensure!(left == 0, "{left} root filesystems are left");
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    ensure!(node.cri().output(&id, &["echo", "yes"]).await? == "yes\n");
    node.cri().remove_pod(&pod.id).await?;
    node.cri().remove_image(spec::BUSYBOX).await?;
    node.stop()?;
    unmount(&node, &place)?;
    node.restart().await?;
    node.rebase()?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_log_disk_costs_lines_and_never_blocks_the_container() -> Outcome {
    let node = node().await?;
    let logs = node.folder("logs")?;
    mount_tmpfs(&node, &logs, "size=256k")?;
    let pod = Pod::run(&node, spec::logging_pod("full-log", &logs)).await?;
    fill_but(&node, &logs, 8)?;
    let script = "i=0; while [ $i -lt 4000 ]; do echo \"line $i of many\"; i=$((i+1)); done; \
                  touch /written; while [ ! -e /more ]; do sleep 0.05; done; \
                  echo after; sleep 0.2; exit 5";
    let id = pod.start(&node, &spec::shell("c", script)).await?;
    until("it has written all", || async {
        let looked = node.cri().exec(&id, &["ls", "/written"], 10).await?;
        Ok(looked.exit_code == 0)
    })
    .await?;
    free(&node, &logs)?;
    node.cri().output(&id, &["touch", "/more"]).await?;
    ensure!(node.cri().wait_exit(&id).await?.exit_code == 5);
    let log = logs.join("c.log");
    let text = node.inside(|| std::fs::read_to_string(&log))??;
    let lines = parse_log(&text)?;
    ensure!(
        lines
            .first()
            .is_some_and(|line| line.text == "line 0 of many")
    );
    ensure!(
        lines.last().is_some_and(|line| line.text == "after"),
        "it did not go on"
    );
    ensure!(
        lines.len() < 4000,
        "nothing was lost: the disk was not full"
    );
    for line in &lines[..lines.len() - 1] {
        let whole = line.text.starts_with("line ") && line.text.ends_with(" of many");
        ensure!(whole && !line.partial, "a broken line: {line:?}");
    }
    ensure!(
        node.log()?.contains("bytes of its log are lost"),
        "the daemon does not tell"
    );
    node.cri().remove_pod(&pod.id).await?;
    unmount(&node, &logs)?;
    node.finish().await
}
