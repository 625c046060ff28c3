//! The daemon killed at any moment: pods go on, and all is known afterwards.

use std::time::Duration;

use carpel_conformance::{Node, parse_log, spec};
use k8s_cri::v1 as cri;

use crate::checks::{Outcome, Pod, node, until};

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_everything_is_listed_as_it_was_and_works() -> Outcome {
    let node = node().await?;
    let mut config = spec::pod("kept");
    config.labels.insert("app".into(), "web".into());
    let pod = Pod::run(&node, config).await?;
    let running = pod.start(&node, &spec::sleeper("running")).await?;
    let created = node
        .cri()
        .create(&pod.id, &spec::sleeper("created"), &pod.config)
        .await?;
    let exited = pod.start(&node, &spec::shell("exited", "exit 9")).await?;
    node.cri().wait_exit(&exited).await?;
    let stopped = Pod::run(&node, spec::pod("stopped")).await?;
    node.cri().stop_pod(&stopped.id).await?;

    let look = async || -> anyhow::Result<_> {
        let mut containers = Vec::new();
        for id in [&running, &created, &exited] {
            containers.push(node.cri().container(id).await?);
        }
        let pods = [
            node.cri().pod(&pod.id).await?,
            node.cri().pod(&stopped.id).await?,
        ];
        Ok((pods, containers))
    };
    let before = look().await?;
    for _ in 0..2 {
        node.kill()?;
        node.restart().await?;
        assert_eq!(look().await?, before);
    }
    assert_eq!(
        node.cri().output(&running, &["echo", "still here"]).await?,
        "still here\n"
    );
    node.cri().start(&created).await?;
    node.cri().stop(&running, 10).await?;
    assert_eq!(node.cri().container(&running).await?.exit_code, 0);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn exits_while_the_daemon_is_away_are_known_with_code_and_time() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("exits")).await?;
    let mut ids = Vec::new();
    for code in [0, 17, 255] {
        let config = spec::shell(&format!("c{code}"), &format!("sleep 0.5; exit {code}"));
        ids.push((pod.start(&node, &config).await?, code));
    }
    let killed = spec::shell("killed", "sleep 0.5; kill -9 $$");
    ids.push((pod.start(&node, &killed).await?, 137));
    node.kill()?;
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let back = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    node.restart().await?;
    for (id, code) in ids {
        let status = node.cri().container(&id).await?;
        assert_eq!(status.state(), cri::ContainerState::ContainerExited);
        assert_eq!(status.exit_code, code);
        let finished = Duration::from_nanos(u64::try_from(status.finished_at)?);
        assert!(finished < back, "the time of the end, not of the restart");
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_have_no_hole_over_many_kills() -> Outcome {
    let node = Node::with(&[spec::TOOLS]).await?;
    let logs = node.folder("logs")?;
    let pod = Pod::run(&node, spec::logging_pod("logs", &logs)).await?;
    let config = spec::container("c", spec::TOOLS, &["/count", "1", "40000", "20"]);
    let id = pod.start(&node, &config).await?;
    for _ in 0..4 {
        node.kill()?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        node.restart().await?;
    }
    node.cri().wait_exit(&id).await?;
    let lines = parse_log(&std::fs::read_to_string(logs.join("c.log"))?)?;
    let numbers: Vec<_> = lines.into_iter().map(|line| line.text).collect();
    let expected: Vec<_> = (1..=40000).map(|number| format!("line {number}")).collect();
    assert!(
        numbers == expected,
        "{} lines, {} expected",
        numbers.len(),
        expected.len()
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment_of_a_pods_making_leaves_nothing_half_made() -> Outcome {
    let node = node().await?;
    for moment in 0..20_u64 {
        let (cri, config) = (node.cri().clone(), spec::pod("half"));
        let making = tokio::spawn({
            let config = config.clone();
            async move {
                let pod = cri.run_pod(&config).await?;
                let container = cri.create(&pod, &spec::sleeper("c"), &config).await?;
                cri.start(&container).await
            }
        });
        tokio::time::sleep(Duration::from_millis(moment * 5)).await;
        node.kill()?;
        making.await?.ok();
        node.restart().await?;
        for pod in node.cri().list_pods(None).await? {
            if pod.state() == cri::PodSandboxState::SandboxReady {
                assert!(!node.cri().pod_ip(&pod.id).await?.is_empty());
            }
            node.cri().stop_pod(&pod.id).await?;
            node.cri().remove_pod(&pod.id).await?;
        }
        assert!(node.cri().list_containers(None).await?.is_empty());
        node.assert_clean()
            .await
            .map_err(|error| error.context(format!("at {moment}")))?;
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment_of_a_pods_removal_lets_it_be_removed() -> Outcome {
    let node = node().await?;
    for moment in 0..8_u64 {
        let pod = Pod::run(&node, spec::pod("removal")).await?;
        pod.start(&node, &spec::sleeper("a")).await?;
        pod.start(&node, &spec::shell("b", "trap '' TERM; sleep 100"))
            .await?;
        let (cri, id) = (node.cri().clone(), pod.id.clone());
        let removing = tokio::spawn(async move {
            cri.stop_pod(&id).await?;
            cri.remove_pod(&id).await
        });
        tokio::time::sleep(Duration::from_millis(moment * 4)).await;
        node.kill()?;
        removing.await?.ok();
        node.restart().await?;
        node.cri().stop_pod(&pod.id).await?;
        node.cri().remove_pod(&pod.id).await?;
        assert!(node.cri().list_pods(None).await?.is_empty());
        node.assert_clean().await?;
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_died_while_the_daemon_was_away_leaves_a_pod_that_can_be_removed() -> Outcome
{
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("lost")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    let processes = crate::checks::pod_processes(&node)?;
    node.kill()?;
    for pid in processes {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).ok();
    }
    node.restart().await?;
    until("the pod is not ready", || async {
        Ok(node.cri().pod(&pod.id).await?.state() == cri::PodSandboxState::SandboxNotready)
    })
    .await?;
    let state = node.cri().container(&id).await?.state();
    assert_eq!(state, cri::ContainerState::ContainerExited);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_spoils_nothing_else() -> Outcome {
    let node = node().await?;
    let good = Pod::run(&node, spec::pod("good")).await?;
    let bad = Pod::run(&node, spec::pod("bad")).await?;
    node.kill()?;
    let mut spoiled = 0;
    let mut pending = vec![node.root().join("state")];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.display().to_string().contains(&bad.id) {
                std::fs::write(&path, "this is no record")?;
                spoiled += 1;
            }
        }
    }
    assert!(spoiled > 0, "there is no record of the pod");
    node.restart().await?;
    let state = node.cri().pod(&good.id).await?.state();
    assert_eq!(state, cri::PodSandboxState::SandboxReady);
    let pods = node.cri().list_pods(None).await?;
    let listed = pods
        .iter()
        .find(|pod| pod.id == bad.id)
        .expect("the pod is still listed");
    assert_eq!(listed.state(), cri::PodSandboxState::SandboxNotready);
    node.cri().stop_pod(&bad.id).await?;
    node.cri().remove_pod(&bad.id).await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_ends_in_time_and_leaves_pods_running() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("stop")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    node.stop()?;
    assert!(
        !crate::checks::pod_processes(&node)?.is_empty(),
        "the pod has ended with the daemon"
    );
    node.restart().await?;
    let state = node.cri().container(&id).await?.state();
    assert_eq!(state, cri::ContainerState::ContainerRunning);
    node.finish().await
}
