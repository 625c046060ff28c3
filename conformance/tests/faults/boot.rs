//! The machine was restarted: no process is left, and the records tell of another boot.

use anyhow::{Context, ensure};
use carpel_conformance::{Node, spec};
use k8s_cri::v1 as cri;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;

use crate::checks::{Outcome, Pod, node, pod_processes};
use crate::support::{reason, signal, unmount};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Ends everything that would not outlive the machine; its next boot has another id.
fn reboot(node: &Node, wipe_run: bool) -> Outcome {
    node.kill()?;
    for pid in pod_processes(node)? {
        signal(pid, Signal::SIGKILL).ok();
    }
    let id = node.folder("boot")?.join("id");
    std::fs::write(&id, "11111111-2222-3333-4444-555555555555\n")?;
    node.inside(|| {
        mount(
            Some(&id),
            BOOT_ID,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .context("put another boot id in place")
    })??;
    forget_network(node)?;
    if wipe_run {
        std::fs::remove_dir_all(node.run_root())?;
    }
    Ok(())
}

/// Devices and rules do not outlive the machine.
fn forget_network(node: &Node) -> Outcome {
    for link in node
        .run("ip", &["-o", "link", "show", "type", "veth"])?
        .lines()
    {
        let name = link.split(": ").nth(1).unwrap_or_default();
        let name = name.split('@').next().unwrap_or_default();
        // The other end of one that has gone already.
        node.run("ip", &["link", "delete", name]).ok();
    }
    node.run("ip", &["link", "delete", "ctbridge0"])?;
    node.run("nft", &["flush", "ruleset"])?;
    Ok(())
}

async fn after_a_reboot(wipe_run: bool) -> Outcome {
    let node = node().await?;
    let logs = node.folder("logs")?;
    let mut config = spec::logging_pod("rebooted", &logs);
    config.port_mappings = vec![spec::port(cri::Protocol::Tcp, 28082, 80)];
    let pod = Pod::run(&node, config).await?;
    let mut running = spec::shell(
        "running",
        "echo before; trap 'exit 0' TERM; sleep 1000 & wait",
    );
    running
        .annotations
        .insert("io.kubernetes.container.restartCount".into(), "3".into());
    running.metadata.get_or_insert_default().attempt = 3;
    let running = pod.start(&node, &running).await?;
    let exited = pod.start(&node, &spec::shell("exited", "exit 9")).await?;
    node.cri().wait_exit(&exited).await?;
    let created = node
        .cri()
        .create(&pod.id, &spec::sleeper("created"), &pod.config)
        .await?;
    let log = logs.join("running.log");
    crate::checks::until("the log", || async {
        Ok(std::fs::read_to_string(&log)
            .unwrap_or_default()
            .contains("before"))
    })
    .await?;
    reboot(&node, wipe_run)?;
    node.restart().await?;

    let status = node.cri().pod(&pod.id).await?;
    ensure!(status.state() == cri::PodSandboxState::SandboxNotready);
    let why = reason(&node, &pod.id).await?;
    ensure!(why.contains("restarted"), "{why}");
    for (id, code) in [(&running, 255), (&exited, 9), (&created, 255)] {
        let status = node.cri().container(id).await?;
        ensure!(
            status.state() == cri::ContainerState::ContainerExited,
            "{status:?}"
        );
        ensure!(status.exit_code == code, "{status:?}");
        ensure!(status.finished_at >= status.started_at, "{status:?}");
    }
    let kept = node.cri().container(&running).await?;
    ensure!(kept.metadata.map(|m| m.attempt) == Some(3));
    ensure!(kept.annotations.values().any(|value| value == "3"));
    ensure!(
        std::fs::read_to_string(&log)?.contains("before"),
        "the log is gone"
    );
    let left = node.snapshot()?;
    let ours = left.links.iter().filter(|link| link.starts_with("veth"));
    ensure!(ours.count() == 0, "{:?}", left.links);

    // The kubelet makes the pod anew beside the old one, with the same host port.
    let mut config = pod.config.clone();
    config.metadata.get_or_insert_default().attempt = 1;
    let again = Pod::run(&node, config).await?;
    again.start(&node, &spec::sleeper("running")).await?;
    node.cri().remove_pod(&pod.id).await?;
    ensure!(node.cri().list_pods(None).await?.len() == 1);
    node.cri().remove_pod(&again.id).await?;
    // Back to the boot of the machine, with what that loses.
    node.stop()?;
    forget_network(&node)?;
    unmount(&node, BOOT_ID.as_ref())?;
    node.restart().await?;
    node.assert_clean().await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_another_boot_containers_have_ended_and_keep_logs_and_counts() -> Outcome {
    after_a_reboot(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_another_boot_with_an_empty_run_directory_it_is_the_same() -> Outcome {
    after_a_reboot(true).await
}
