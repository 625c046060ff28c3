//! A holder that hangs, and one that is gone.

use std::time::Duration;

use anyhow::ensure;
use carpel_conformance::{Node, spec};
use k8s_cri::v1 as cri;
use nix::sys::signal::Signal;
use tonic::Code;

use crate::checks::{Outcome, Pod, assert_refused, node, until};
use crate::support::{holder_pid, is_ready, reason, signal, state, timed};

/// A list reads memory: this is long enough for a busy machine, and far from any
/// time-out.
const INSTANT: Duration = Duration::from_millis(1500);

async fn assert_lists_are_instant(node: &Node) -> Outcome {
    let lists = async {
        node.cri().list_pods(None).await?;
        node.cri().list_containers(None).await?;
        node.cri().status(false).await
    };
    let (listed, took) = timed(lists).await;
    listed?;
    ensure!(took < INSTANT, "lists took {took:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_to_a_holder_that_hangs_end_in_time_and_say_what_they_waited_for() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("hangs")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    let other = Pod::run(&node, spec::pod("other")).await?;
    let in_other = other.start(&node, &spec::sleeper("c")).await?;
    let holder = holder_pid(&node, &pod.id).await?;
    signal(holder, Signal::SIGSTOP)?;

    let (probe, took) = timed(node.cri().exec(&id, &["true"], 2)).await;
    assert_refused(probe, Code::DeadlineExceeded, &["true", "2s"]);
    ensure!(took < Duration::from_secs(8), "{took:?}");
    assert_lists_are_instant(&node).await?;
    ensure!(node.cri().output(&in_other, &["echo", "on"]).await? == "on\n");

    let config = spec::sleeper("d");
    let (created, took) = timed(node.cri().create(&pod.id, &config, &pod.config)).await;
    let status = created.expect_err("a container by a holder that hangs");
    ensure!(status.code() == Code::DeadlineExceeded, "{status}");
    ensure!(
        status.message().contains("create the container"),
        "{status}"
    );
    ensure!(took < Duration::from_secs(60), "{took:?}");
    assert_lists_are_instant(&node).await?;

    // It goes on: nothing of what failed is left, and everything works.
    signal(holder, Signal::SIGCONT)?;
    until("the holder answers", || async {
        Ok(node.cri().output(&id, &["echo", "back"]).await.is_ok())
    })
    .await?;
    ensure!(node.cri().list_containers(None).await?.len() == 2);
    let again = pod.start(&node, &spec::sleeper("d")).await?;
    ensure!(node.cri().output(&again, &["echo", "new"]).await? == "new\n");
    let processes = node.cri().output(&id, &["ps"]).await?;
    ensure!(!processes.contains("true"), "{processes}");
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_holder_hangs_is_stopped_and_removed_by_force() -> Outcome {
    let node = node().await?;
    let mut config = spec::pod("hangs");
    config.port_mappings = vec![spec::port(cri::Protocol::Tcp, 28083, 80)];
    let pod = Pod::run(&node, config).await?;
    let first = pod.start(&node, &spec::sleeper("a")).await?;
    let second = pod.start(&node, &spec::sleeper("b")).await?;
    signal(holder_pid(&node, &pod.id).await?, Signal::SIGSTOP)?;

    let (stopped, took) = timed(node.cri().stop(&first, 1)).await;
    stopped?;
    ensure!(
        took < Duration::from_secs(30),
        "StopContainer took {took:?}"
    );
    let status = node.cri().container(&first).await?;
    ensure!(status.state() == cri::ContainerState::ContainerExited);
    ensure!(status.exit_code == 137, "{status:?}");
    ensure!(status.message.contains("holder"), "{status:?}");
    node.cri().remove(&first).await?;

    let (stopped, took) = timed(node.cri().stop_pod(&pod.id)).await;
    stopped?;
    ensure!(
        took < Duration::from_secs(30),
        "StopPodSandbox took {took:?}"
    );
    ensure!(state(&node, &second).await? == cri::ContainerState::ContainerExited);
    ensure!(node.snapshot()?.processes.is_empty());
    node.cri().remove_pod(&pod.id).await?;
    node.assert_clean().await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_hangs_does_not_hold_up_a_restart() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("hangs")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    let stuck = Pod::run(&node, spec::pod("stuck")).await?;
    let in_stuck = stuck.start(&node, &spec::sleeper("c")).await?;
    let other = Pod::run(&node, spec::pod("other")).await?;
    let in_other = other.start(&node, &spec::sleeper("c")).await?;
    let holders = [
        holder_pid(&node, &pod.id).await?,
        holder_pid(&node, &stuck.id).await?,
    ];
    node.kill()?;
    for holder in holders {
        signal(holder, Signal::SIGSTOP)?;
    }
    let (restarted, took) = timed(node.restart()).await;
    restarted?;
    ensure!(took < Duration::from_secs(8), "{took:?}");
    assert_lists_are_instant(&node).await?;
    ensure!(node.cri().output(&in_other, &["echo", "on"]).await? == "on\n");
    ensure!(!is_ready(&node, &pod.id).await?);
    let why = reason(&node, &pod.id).await?;
    ensure!(why.contains("recovered"), "{why}");
    ensure!(state(&node, &id).await? == cri::ContainerState::ContainerUnknown);
    let refused = node.cri().exec(&id, &["true"], 5).await;
    assert_refused(refused, Code::Unavailable, &["recovered"]);
    // The same pod asked for again is not made a second time.
    let again = node.cri().run_pod(&pod.config).await;
    assert_refused(again, Code::Unavailable, &["recovered"]);

    signal(holders[0], Signal::SIGCONT)?;
    until("the pod is ready again", || is_ready(&node, &pod.id)).await?;
    ensure!(reason(&node, &pod.id).await?.is_empty());
    ensure!(state(&node, &id).await? == cri::ContainerState::ContainerRunning);
    ensure!(node.cri().output(&id, &["echo", "back"]).await? == "back\n");

    // One that is to end is not waited for.
    let (stopped, took) = timed(node.cri().stop_pod(&stuck.id)).await;
    stopped?;
    ensure!(took < Duration::from_secs(10), "{took:?}");
    ensure!(state(&node, &in_stuck).await? == cri::ContainerState::ContainerExited);
    node.cri().remove_pod(&stuck.id).await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_stays_silent_after_a_restart_is_given_up() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("silent")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    let holder = holder_pid(&node, &pod.id).await?;
    node.kill()?;
    signal(holder, Signal::SIGSTOP)?;
    node.restart().await?;
    let mut tries = 0;
    while state(&node, &id).await? == cri::ContainerState::ContainerUnknown && tries < 400 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        tries += 1;
    }
    let status = node.cri().container(&id).await?;
    ensure!(
        status.state() == cri::ContainerState::ContainerExited,
        "{status:?}"
    );
    ensure!(status.message.contains("does not answer"), "{status:?}");
    ensure!(!is_ready(&node, &pod.id).await?);
    until("its processes are gone", || async {
        Ok(node.snapshot()?.processes.is_empty())
    })
    .await?;
    node.cri().remove_pod(&pod.id).await?;
    node.assert_clean().await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_is_killed_takes_its_pod_along_and_nothing_else() -> Outcome {
    let node = node().await?;
    let mut config = spec::pod("killed");
    config.port_mappings = vec![spec::port(cri::Protocol::Tcp, 28084, 80)];
    let pod = Pod::run(&node, config).await?;
    let ended = pod.start(&node, &spec::shell("ended", "exit 3")).await?;
    node.cri().wait_exit(&ended).await?;
    let ids = [
        pod.start(&node, &spec::sleeper("a")).await?,
        pod.start(&node, &spec::shell("b", "trap '' TERM; sleep 1000"))
            .await?,
    ];
    let created = node
        .cri()
        .create(&pod.id, &spec::sleeper("d"), &pod.config)
        .await?;
    let other = Pod::run(&node, spec::pod("other")).await?;
    let in_other = other.start(&node, &spec::sleeper("c")).await?;
    signal(holder_pid(&node, &pod.id).await?, Signal::SIGKILL)?;

    until("the pod is not ready", || async {
        Ok(!is_ready(&node, &pod.id).await?)
    })
    .await?;
    let why = reason(&node, &pod.id).await?;
    ensure!(why.contains("holder"), "{why}");
    for id in ids.iter().chain([&created]) {
        let status = node.cri().wait_exit(id).await?;
        ensure!(status.exit_code == 137, "{status:?}");
        ensure!(status.message.contains("holder"), "{status:?}");
        ensure!(status.finished_at >= status.started_at, "{status:?}");
    }
    ensure!(
        node.cri().container(&ended).await?.exit_code == 3,
        "the end it had is kept"
    );
    ensure!(node.cri().output(&in_other, &["echo", "on"]).await? == "on\n");
    let refused = node
        .cri()
        .create(&pod.id, &spec::sleeper("e"), &pod.config)
        .await;
    assert_refused(refused, Code::FailedPrecondition, &["not ready"]);

    // The kubelet makes another attempt, with the same host port, after a stop.
    node.cri().stop_pod(&pod.id).await?;
    let mut config = pod.config.clone();
    config.metadata.get_or_insert_default().attempt = 1;
    let again = Pod::run(&node, config).await?;
    node.cri().remove_pod(&again.id).await?;
    node.cri().remove_pod(&pod.id).await?;
    node.cri().remove_pod(&other.id).await?;
    node.assert_clean().await?;
    node.finish().await
}
