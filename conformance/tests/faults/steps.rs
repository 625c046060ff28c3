//! The daemon ends at each step of each operation in turn. Afterwards there is all
//! or nothing, nothing is left over, and the same request succeeds.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use carpel_conformance::{Node, spec};
use k8s_cri::v1 as cri;
use tonic::Status;

use crate::checks::{Outcome, Pod, node};
use crate::support::{is_away, settled_pod, state};

/// More than any operation has.
const MOST: u64 = 80;

/// Drives `operate` with the daemon ending at step 1, 2, … until it comes to its end;
/// `check` looks at what is there then, asks again, and clears up.
async fn at_every_step<T>(
    node: &Node,
    least: u64,
    set_up: impl AsyncFn() -> anyhow::Result<T>,
    operate: impl AsyncFn(&T) -> Result<(), Status>,
    check: impl AsyncFn(&T) -> Outcome,
) -> Outcome {
    for step in 1..=MOST {
        let subject = set_up()
            .await
            .with_context(|| format!("before step {step}"))?;
        let at = step.to_string();
        node.kill()?;
        node.launch(&[("CARPEL_FAIL_AT", at.as_str())])?;
        node.ready().await?;
        let result = operate(&subject).await;
        let died = died(node, result.is_err()).await?;
        match result {
            Err(status) if !(died && is_away(&status)) => {
                bail!("step {step}, the daemon died: {died}: {status}")
            }
            _ => {}
        }
        node.kill()?;
        node.restart().await?;
        check(&subject)
            .await
            .with_context(|| format!("after step {step}"))?;
        let clean = node.assert_clean().await;
        clean.with_context(|| format!("after step {step}"))?;
        if !died {
            ensure!(step > least, "there are only {} steps", step - 1);
            eprintln!("{} steps", step - 1);
            return Ok(());
        }
    }
    bail!("there are more than {MOST} steps")
}

/// Waits for the end of the daemon: longer if the call says that it comes.
async fn died(node: &Node, expected: bool) -> anyhow::Result<bool> {
    let wait = Duration::from_millis(if expected { 3000 } else { 60 });
    let end = Instant::now() + wait;
    while Instant::now() < end {
        if node.has_died()? {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(false)
}

/// A container in it runs, and answers.
async fn assert_works(node: &Node, pod: &Pod) -> Outcome {
    let id = pod.start(node, &spec::sleeper("probe")).await?;
    ensure!(node.cri().output(&id, &["echo", "yes"]).await? == "yes\n");
    node.cri().stop(&id, 0).await?;
    Ok(node.cri().remove(&id).await?)
}

fn with_port(mut config: cri::PodSandboxConfig) -> cri::PodSandboxConfig {
    config.port_mappings = vec![spec::port(cri::Protocol::Tcp, 28080, 80)];
    config
}

async fn remove_pod(node: &Node, id: &str) -> Outcome {
    node.cri().stop_pod(id).await?;
    Ok(node.cri().remove_pod(id).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_run_or_not_whenever_the_daemon_ends() -> Outcome {
    let node = node().await?;
    at_every_step(
        &node,
        15,
        async || Ok(with_port(spec::pod("run"))),
        async |config| node.cri().run_pod(config).await.map(drop),
        async |config| {
            let pods = node.cri().list_pods(None).await?;
            ensure!(pods.len() <= 1, "{pods:?}");
            match pods.first() {
                Some(pod) => {
                    ensure!(pod.state() == cri::PodSandboxState::SandboxReady, "{pod:?}");
                }
                None => node.assert_clean().await?,
            }
            let pod = Pod::run(&node, config.clone()).await?;
            ensure!(
                pods.first().is_none_or(|old| old.id == pod.id),
                "another pod"
            );
            ensure!(!node.cri().pod_ip(&pod.id).await?.is_empty());
            assert_works(&node, &pod).await?;
            remove_pod(&node, &pod.id).await
        },
    )
    .await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_created_or_not_whenever_the_daemon_ends() -> Outcome {
    let node = node().await?;
    let logs = node.folder("logs")?;
    let pod = settled_pod(&node, spec::logging_pod("create", &logs)).await?;
    std::fs::write(logs.join("c.log"), "")?;
    node.rebase()?;
    at_every_step(
        &node,
        10,
        async || Ok(spec::sleeper("c")),
        async |config| {
            let created = node.cri().create(&pod.id, config, &pod.config).await;
            created.map(drop)
        },
        async |config| {
            let containers = node.cri().list_containers(None).await?;
            ensure!(containers.len() <= 1, "{containers:?}");
            match containers.first() {
                Some(made) => {
                    ensure!(
                        made.state() == cri::ContainerState::ContainerCreated,
                        "{made:?}"
                    );
                }
                None => node.assert_clean().await?,
            }
            let id = node.cri().create(&pod.id, config, &pod.config).await?;
            ensure!(
                containers.first().is_none_or(|old| old.id == id),
                "another one"
            );
            node.cri().start(&id).await?;
            ensure!(node.cri().output(&id, &["echo", "yes"]).await? == "yes\n");
            Ok(node.cri().remove(&id).await?)
        },
    )
    .await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_started_or_not_whenever_the_daemon_ends() -> Outcome {
    let node = node().await?;
    let pod = settled_pod(&node, spec::pod("start")).await?;
    at_every_step(
        &node,
        3,
        async || {
            Ok(node
                .cri()
                .create(&pod.id, &spec::sleeper("c"), &pod.config)
                .await?)
        },
        async |id| node.cri().start(id).await,
        async |id| {
            let before = state(&node, id).await?;
            let known = [
                cri::ContainerState::ContainerCreated,
                cri::ContainerState::ContainerRunning,
            ];
            ensure!(known.contains(&before), "{before:?}");
            node.cri().start(id).await?;
            ensure!(node.cri().output(id, &["echo", "yes"]).await? == "yes\n");
            let status = node.cri().container(id).await?;
            ensure!(status.created_at <= status.started_at, "{status:?}");
            Ok(node.cri().remove(id).await?)
        },
    )
    .await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_stops_with_its_own_code_whenever_the_daemon_ends() -> Outcome {
    let node = node().await?;
    let pod = settled_pod(&node, spec::pod("stop")).await?;
    for grace in [10, 0] {
        at_every_step(
            &node,
            2,
            async || {
                let id = pod.start(&node, &spec::sleeper("c")).await?;
                ensure!(node.cri().output(&id, &["echo", "up"]).await? == "up\n");
                Ok(id)
            },
            async |id| node.cri().stop(id, grace).await,
            async |id| {
                node.cri().stop(id, grace).await?;
                let status = node.cri().container(id).await?;
                ensure!(status.state() == cri::ContainerState::ContainerExited);
                let code = if grace == 0 { 137 } else { 0 };
                ensure!(status.exit_code == code, "{status:?}");
                Ok(node.cri().remove(id).await?)
            },
        )
        .await?;
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_removed_or_not_whenever_the_daemon_ends() -> Outcome {
    let node = node().await?;
    let pod = settled_pod(&node, spec::pod("remove")).await?;
    at_every_step(
        &node,
        6,
        async || {
            let id = pod.start(&node, &spec::sleeper("c")).await?;
            node.cri().output(&id, &["touch", "/tmp/file"]).await?;
            Ok(id)
        },
        async |id| node.cri().remove(id).await,
        async |id| {
            node.cri().remove(id).await?;
            ensure!(node.cri().list_containers(None).await?.is_empty());
            assert_works(&node, &pod).await
        },
    )
    .await?;
    node.finish().await
}

/// Memory limit that the kernel keeps for a container.
fn kernel_limit(node: &Node, id: &str) -> anyhow::Result<String> {
    let cgroups = node.snapshot()?.cgroups;
    let names = ["memory.limit_in_bytes", "memory.max"];
    let files = cgroups
        .iter()
        .filter(|dir| dir.ends_with(id))
        .flat_map(|dir| names.map(|name| format!("{dir}/{name}")));
    let mut texts = files.filter_map(|file| std::fs::read_to_string(file).ok());
    let text = texts
        .next()
        .context("the container has no limit of memory")?;
    Ok(text.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_changed_or_not_whenever_the_daemon_ends() -> Outcome {
    const OLD: i64 = 64 << 20;
    const NEW: i64 = 128 << 20;
    let node = node().await?;
    let pod = settled_pod(&node, spec::pod("update")).await?;
    let new = cri::LinuxContainerResources {
        memory_limit_in_bytes: NEW,
        ..Default::default()
    };
    at_every_step(
        &node,
        4,
        async || {
            let mut config = spec::sleeper("c");
            spec::resources(&mut config).memory_limit_in_bytes = OLD;
            pod.start(&node, &config).await
        },
        async |id| node.cri().update(id, new.clone()).await,
        async |id| {
            let told = async || -> anyhow::Result<i64> {
                let resources = node.cri().container(id).await?.resources;
                let linux = resources.and_then(|all| all.linux).unwrap_or_default();
                Ok(linux.memory_limit_in_bytes)
            };
            let before = told().await?;
            ensure!([OLD, NEW].contains(&before), "{before}");
            ensure!(
                kernel_limit(&node, id)? == before.to_string(),
                "told: {before}"
            );
            node.cri().update(id, new.clone()).await?;
            ensure!(told().await? == NEW);
            ensure!(kernel_limit(&node, id)? == NEW.to_string());
            Ok(node.cri().remove(id).await?)
        },
    )
    .await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_stopped_whenever_the_daemon_ends() -> Outcome {
    let node = node().await?;
    at_every_step(
        &node,
        10,
        async || {
            let pod = Pod::run(&node, with_port(spec::pod("stop-pod"))).await?;
            pod.start(&node, &spec::sleeper("a")).await?;
            Ok(pod)
        },
        async |pod| node.cri().stop_pod(&pod.id).await,
        async |pod| {
            node.cri().stop_pod(&pod.id).await?;
            let stopped = node.cri().pod(&pod.id).await?;
            ensure!(stopped.state() == cri::PodSandboxState::SandboxNotready);
            for container in node.cri().list_containers(None).await? {
                ensure!(container.state() == cri::ContainerState::ContainerExited);
            }
            let snapshot = node.snapshot()?;
            ensure!(snapshot.processes.is_empty(), "{:?}", snapshot.processes);
            Ok(node.cri().remove_pod(&pod.id).await?)
        },
    )
    .await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_removed_whenever_the_daemon_ends() -> Outcome {
    let node = node().await?;
    at_every_step(
        &node,
        20,
        async || {
            let pod = Pod::run(&node, with_port(spec::pod("remove-pod"))).await?;
            pod.start(&node, &spec::sleeper("a")).await?;
            Ok(pod)
        },
        async |pod| node.cri().remove_pod(&pod.id).await,
        async |pod| {
            node.cri().remove_pod(&pod.id).await?;
            ensure!(node.cri().list_pods(None).await?.is_empty());
            ensure!(node.cri().list_containers(None).await?.is_empty());
            // Its name, address and host port are free.
            let again = Pod::run(&node, pod.config.clone()).await?;
            remove_pod(&node, &again.id).await
        },
    )
    .await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_or_not_whenever_the_daemon_ends() -> Outcome {
    let node = node().await?;
    let pod = settled_pod(&node, spec::pod("pull")).await?;
    at_every_step(
        &node,
        8,
        async || Ok(()),
        async |()| node.cri().pull(spec::TOOLS).await.map(drop),
        async |()| {
            let command = ["/count", "1", "1", "1"];
            let config = spec::container("c", spec::TOOLS, &command);
            if node.cri().image(spec::TOOLS).await?.is_some() {
                let id = pod.start(&node, &config).await?;
                ensure!(node.cri().wait_exit(&id).await?.exit_code == 0);
                node.cri().remove(&id).await?;
            }
            node.cri().pull(spec::TOOLS).await?;
            let id = pod.start(&node, &config).await?;
            ensure!(node.cri().wait_exit(&id).await?.exit_code == 0);
            node.cri().remove(&id).await?;
            Ok(node.cri().remove_image(spec::TOOLS).await?)
        },
    )
    .await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_removed_or_not_whenever_the_daemon_ends() -> Outcome {
    let node = node().await?;
    at_every_step(
        &node,
        3,
        async || Ok(node.cri().pull(spec::TOOLS).await?),
        async |_| node.cri().remove_image(spec::TOOLS).await,
        async |_| {
            // What a crash left of it serves a new pull, or goes with it.
            node.cri().pull(spec::TOOLS).await?;
            node.cri().remove_image(spec::TOOLS).await?;
            ensure!(node.cri().image(spec::TOOLS).await?.is_none());
            Ok(())
        },
    )
    .await?;
    node.finish().await
}

/// The daemon ends in the middle of `operate` and then again, at every step of the
/// recovery from that.
async fn recover_at_every_step<T>(
    node: &Node,
    (step, least): (u64, u64),
    set_up: impl AsyncFn() -> anyhow::Result<T>,
    operate: impl AsyncFn(&T) -> Result<(), Status>,
    check: impl AsyncFn(&T) -> Outcome,
) -> Outcome {
    for recovery in 1..=MOST {
        let subject = set_up().await?;
        node.kill()?;
        let at = step.to_string();
        node.launch(&[("CARPEL_FAIL_AT", at.as_str())])?;
        node.ready().await?;
        ensure!(operate(&subject).await.is_err(), "there is no step {step}");
        ensure!(
            died(node, true).await?,
            "the daemon did not end at step {step}"
        );
        node.kill()?;
        let at = format!("recovery:{recovery}");
        node.launch(&[("CARPEL_FAIL_AT", at.as_str())])?;
        // It dies on its way up, or serves.
        let died = node.ready().await.is_err();
        node.kill()?;
        node.restart().await?;
        let context = || format!("after step {step} and {recovery} of the recovery");
        check(&subject).await.with_context(context)?;
        node.assert_clean().await.with_context(context)?;
        if !died {
            ensure!(
                recovery > least,
                "the recovery has only {} steps",
                recovery - 1
            );
            return Ok(());
        }
    }
    bail!("the recovery has more than {MOST} steps")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_is_cut_short_is_done_by_the_next() -> Outcome {
    let node = node().await?;
    let config = with_port(spec::pod("half"));
    recover_at_every_step(
        &node,
        (14, 3),
        async || Ok(()),
        async |()| node.cri().run_pod(&config).await.map(drop),
        async |()| {
            ensure!(node.cri().list_pods(None).await?.is_empty());
            let pod = Pod::run(&node, config.clone()).await?;
            remove_pod(&node, &pod.id).await
        },
    )
    .await?;
    recover_at_every_step(
        &node,
        (8, 3),
        async || {
            let pod = Pod::run(&node, with_port(spec::pod("removal"))).await?;
            pod.start(&node, &spec::sleeper("a")).await?;
            Ok(pod)
        },
        async |pod| node.cri().remove_pod(&pod.id).await,
        async |pod| remove_pod(&node, &pod.id).await,
    )
    .await?;
    let pod = settled_pod(&node, spec::pod("container")).await?;
    recover_at_every_step(
        &node,
        (9, 3),
        async || Ok(()),
        async |()| {
            let config = spec::sleeper("c");
            let created = node.cri().create(&pod.id, &config, &pod.config).await;
            created.map(drop)
        },
        async |()| {
            ensure!(node.cri().list_containers(None).await?.is_empty());
            assert_works(&node, &pod).await
        },
    )
    .await?;
    node.finish().await
}
