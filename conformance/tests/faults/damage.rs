//! Records that are cut, changed, newer or gone: what they tell of can be removed, and
//! everything else goes on.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use carpel_conformance::{Node, spec};
use k8s_cri::v1 as cri;

use crate::checks::{Outcome, Pod, node, until};
use crate::support::{is_ready, reason, state};

/// What becomes of a file.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Empty,
    Half,
    /// One byte in the middle.
    Changed,
    Random,
    /// Of a later version of the daemon.
    Newer,
    Missing,
}

const ALL: [Damage; 6] = [
    Damage::Empty,
    Damage::Half,
    Damage::Changed,
    Damage::Random,
    Damage::Newer,
    Damage::Missing,
];

impl Damage {
    fn strike(self, file: &Path) -> Outcome {
        let mut bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        match self {
            Self::Empty => bytes.clear(),
            Self::Half => bytes.truncate(bytes.len() / 2),
            Self::Changed => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0x20;
            }
            Self::Random => {
                for (index, byte) in bytes.iter_mut().enumerate() {
                    *byte = u8::try_from((index * 7919 + 13) % 251)?;
                }
            }
            Self::Newer if bytes.starts_with(b"CRPL") => bytes[4] = 200,
            Self::Newer => {
                let text = String::from_utf8(bytes)?.replace("\"version\":1", "\"version\":200");
                bytes = text.into_bytes();
            }
            Self::Missing => return Ok(fs::remove_file(file)?),
        }
        Ok(fs::write(file, bytes)?)
    }
}

struct Town {
    /// Whose records are struck, and a container of it.
    bad: Pod,
    in_bad: String,
    good: Pod,
    in_good: String,
}

impl Town {
    async fn build(node: &Node) -> anyhow::Result<Self> {
        let mut config = spec::pod("bad");
        config.port_mappings = vec![spec::port(cri::Protocol::Tcp, 28081, 80)];
        let bad = Pod::run(node, config).await?;
        let in_bad = bad.start(node, &spec::sleeper("c")).await?;
        let good = Pod::run(node, spec::pod("good")).await?;
        let in_good = good.start(node, &spec::sleeper("c")).await?;
        Ok(Self {
            bad,
            in_bad,
            good,
            in_good,
        })
    }

    fn records(&self, node: &Node) -> PathBuf {
        node.root().join("state/pods").join(&self.bad.id)
    }

    async fn assert_good_is_well(&self, node: &Node) -> Outcome {
        ensure!(is_ready(node, &self.good.id).await?);
        ensure!(node.cri().output(&self.in_good, &["echo", "well"]).await? == "well\n");
        Ok(())
    }

    /// Removes the struck pod and finds everything of it gone; it can be run again.
    async fn rebuild(&self, node: &Node) -> Outcome {
        node.cri().stop_pod(&self.bad.id).await?;
        node.cri().remove_pod(&self.bad.id).await?;
        let again = Pod::run(node, self.bad.config.clone()).await?;
        again.start(node, &spec::sleeper("c")).await?;
        for id in [&again.id, &self.good.id] {
            node.cri().stop_pod(id).await?;
            node.cri().remove_pod(id).await?;
        }
        node.assert_clean().await
    }
}

/// Strikes the file that `of` names with every damage in turn.
async fn strike(
    of: impl Fn(&Town, &Node) -> PathBuf,
    check: impl AsyncFn(&Town, &Node, Damage) -> Outcome,
) -> Outcome {
    let node = node().await?;
    for damage in ALL {
        let town = Town::build(&node).await?;
        node.kill()?;
        damage.strike(&of(&town, &node))?;
        node.restart().await?;
        let context = || format!("{damage:?}");
        town.assert_good_is_well(&node)
            .await
            .with_context(context)?;
        check(&town, &node, damage).await.with_context(context)?;
        town.rebuild(&node).await.with_context(context)?;
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_pod_record_makes_a_pod_that_can_only_be_removed() -> Outcome {
    strike(
        |town, node| town.records(node).join("record"),
        async |town, node, damage| {
            let pods = node.cri().list_pods(None).await?;
            let listed = pods.iter().find(|pod| pod.id == town.bad.id);
            if matches!(damage, Damage::Missing) {
                ensure!(listed.is_none(), "{listed:?}");
                return Ok(());
            }
            let listed = listed.context("it is not listed")?;
            ensure!(listed.state() == cri::PodSandboxState::SandboxNotready);
            let why = reason(node, &town.bad.id).await?;
            ensure!(
                why.contains("quarantined") && why.contains("record"),
                "{why}"
            );
            let refused = node
                .cri()
                .create(&town.bad.id, &spec::sleeper("d"), &town.bad.config)
                .await;
            let status = refused.expect_err("a container in a quarantined pod");
            ensure!(status.message().contains("quarantined"), "{status}");
            // Nothing of it runs unseen.
            until("its container has ended", || async {
                Ok(state(node, &town.in_bad).await? == cri::ContainerState::ContainerExited)
            })
            .await
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_container_record_leaves_its_pod_alone() -> Outcome {
    strike(
        |town, node| {
            town.records(node)
                .join("containers")
                .join(&town.in_bad)
                .join("record")
        },
        async |town, node, damage| {
            ensure!(is_ready(node, &town.bad.id).await?, "the pod is not ready");
            let containers = node.cri().list_containers(None).await?;
            let listed = containers.iter().find(|c| c.id == town.in_bad);
            if matches!(damage, Damage::Missing) {
                ensure!(listed.is_none(), "{listed:?}");
            } else {
                let status = node.cri().container(&town.in_bad).await?;
                ensure!(status.state() == cri::ContainerState::ContainerExited);
                ensure!(status.message.contains("record"), "{status:?}");
                node.cri().remove(&town.in_bad).await?;
            }
            let again = town.bad.start(node, &spec::sleeper("c")).await?;
            ensure!(node.cri().output(&again, &["echo", "new"]).await? == "new\n");
            let processes = node.snapshot()?.processes;
            let sleepers = processes
                .iter()
                .filter(|line| line.contains("sleep 100000 & wait"));
            ensure!(
                sleepers.count() == 2,
                "the old container runs: {processes:?}"
            );
            Ok(())
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_specification_fails_commands_and_nothing_else() -> Outcome {
    strike(
        |town, node| {
            let containers = town.records(node).join("containers");
            containers.join(&town.in_bad).join("spec.json")
        },
        async |town, node, damage| {
            ensure!(is_ready(node, &town.bad.id).await?);
            ensure!(state(node, &town.in_bad).await? == cri::ContainerState::ContainerRunning);
            let result = node.cri().exec(&town.in_bad, &["true"], 10).await;
            // It has no version of its own.
            if !matches!(damage, Damage::Newer) {
                let status = result.expect_err("a command by a damaged specification");
                ensure!(status.message().contains("spec.json"), "{status}");
            }
            node.cri().stop(&town.in_bad, 10).await?;
            ensure!(node.cri().container(&town.in_bad).await?.exit_code == 0);
            Ok(())
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_network_record_gives_no_address_twice() -> Outcome {
    strike(
        |town, node| {
            let name = format!("pods/{}.json", town.bad.id);
            find(node.root(), &name).expect("the network keeps a record of each pod")
        },
        async |town, node, damage| {
            let good = node.cri().pod_ip(&town.good.id).await?;
            let ready = is_ready(node, &town.bad.id).await?;
            // It has no version of its own.
            if matches!(damage, Damage::Newer) {
                ensure!(ready);
                return Ok(());
            }
            if ready {
                // One changed byte may still be a record.
                ensure!(matches!(damage, Damage::Changed));
                return Ok(());
            }
            let why = reason(node, &town.bad.id).await?;
            ensure!(why.contains("network"), "{why}");
            let mut others = Vec::new();
            for number in 0..3 {
                others.push(Pod::run(node, spec::pod(&format!("other-{number}"))).await?);
            }
            for other in others {
                ensure!(node.cri().pod_ip(&other.id).await? != good);
                node.cri().remove_pod(&other.id).await?;
            }
            Ok(())
        },
    )
    .await
}

/// A file below `folder` whose path ends so.
fn find(folder: &Path, end: &str) -> Option<PathBuf> {
    let mut pending = vec![folder.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).ok()?.flatten() {
            let path = entry.path();
            if path.ends_with(end) {
                return Some(path);
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !path.ends_with("images") {
                pending.push(path);
            }
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_image_record_is_mended_by_a_pull() -> Outcome {
    let node = Node::with(&[spec::BUSYBOX, spec::TOOLS]).await?;
    let pod = Pod::run(&node, spec::pod("images")).await?;
    let kept = pod.start(&node, &spec::sleeper("kept")).await?;
    for damage in ALL {
        let image = node.cri().image(spec::TOOLS).await?.context("an image")?;
        let hex = image.id.trim_start_matches("sha256:");
        let file = node.root().join(format!("images/images/{hex}.json"));
        node.kill()?;
        damage.strike(&file)?;
        node.restart().await?;
        let context = || format!("{damage:?}");
        ensure!(node.cri().image(spec::BUSYBOX).await?.is_some());
        ensure!(node.cri().image(spec::TOOLS).await?.is_none(), "{damage:?}");
        ensure!(node.cri().output(&kept, &["echo", "on"]).await? == "on\n");
        node.cri().pull(spec::TOOLS).await.with_context(context)?;
        let config = spec::container("c", spec::TOOLS, &["/count", "1", "1", "1"]);
        let id = pod.start(&node, &config).await.with_context(context)?;
        ensure!(node.cri().wait_exit(&id).await?.exit_code == 0);
        node.cri().remove(&id).await?;
    }
    // What was set aside is for people to look at.
    for entry in fs::read_dir(node.root().join("images/images"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "bad") {
            fs::remove_file(path)?;
        }
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_starts_whatever_lies_in_its_state() -> Outcome {
    let node = node().await?;
    let town = Town::build(&node).await?;
    node.kill()?;
    let pods = node.root().join("state/pods");
    fs::write(pods.join("a-file"), "not a directory")?;
    fs::create_dir_all(pods.join("a-pod/containers/a-container"))?;
    fs::create_dir_all(pods.join("another/record"))?;
    fs::create_dir_all(town.records(&node).join("containers/x/record"))?;
    std::os::unix::fs::symlink("/etc/passwd", pods.join("a-link"))?;
    // A record in the place of another's.
    fs::create_dir_all(pods.join("f".repeat(64)))?;
    let record = pods.join(&town.good.id).join("record");
    fs::copy(record, pods.join("f".repeat(64)).join("record"))?;
    node.restart().await?;
    town.assert_good_is_well(&node).await?;
    ensure!(node.cri().output(&town.in_bad, &["echo", "well"]).await? == "well\n");
    for pod in node.cri().list_pods(None).await? {
        node.cri().stop_pod(&pod.id).await?;
        node.cri().remove_pod(&pod.id).await?;
    }
    for stray in ["a-file", "a-link"] {
        fs::remove_file(pods.join(stray)).ok();
    }
    ensure!(fs::metadata("/etc/passwd")?.is_file());
    node.assert_clean().await?;
    node.finish().await
}
