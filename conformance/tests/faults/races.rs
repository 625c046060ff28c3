//! The same request many times at once, and requests that contradict each other.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use carpel_conformance::{Node, spec};
use k8s_cri::v1 as cri;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::checks::{Outcome, Pod, node};
use crate::support::{settled_pod, state, timed};

const MANY: usize = 50;

/// All of them at once; every one must succeed.
async fn all<F>(calls: impl Iterator<Item = F>) -> anyhow::Result<BTreeSet<String>>
where
    F: Future<Output = Result<String, Status>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for call in calls {
        tasks.spawn(call);
    }
    let mut answers = BTreeSet::new();
    while let Some(done) = tasks.join_next().await {
        answers.insert(done??);
    }
    Ok(answers)
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_identical_requests_make_one_object_and_unmake_it_once() -> Outcome {
    let node = node().await?;
    let config = spec::pod("same");
    let pods = all((0..MANY).map(|_| {
        let (cri, config) = (node.cri().clone(), config.clone());
        async move { cri.run_pod(&config).await }
    }))
    .await?;
    ensure!(pods.len() == 1, "{pods:?}");
    ensure!(node.cri().list_pods(None).await?.len() == 1);
    let pod = pods.into_iter().next().unwrap_or_default();

    let containers = all((0..MANY).map(|_| {
        let (cri, config, pod) = (node.cri().clone(), config.clone(), pod.clone());
        async move { cri.create(&pod, &spec::sleeper("c"), &config).await }
    }))
    .await?;
    ensure!(containers.len() == 1, "{containers:?}");
    ensure!(node.cri().list_containers(None).await?.len() == 1);
    let id = containers.into_iter().next().unwrap_or_default();

    let on_container = |what: &'static str| {
        let (cri, id) = (node.cri().clone(), id.clone());
        all((0..MANY).map(move |_| {
            let (cri, id) = (cri.clone(), id.clone());
            async move {
                match what {
                    "start" => cri.start(&id).await?,
                    "stop" => cri.stop(&id, 10).await?,
                    _ => cri.remove(&id).await?,
                }
                Ok(String::new())
            }
        }))
    };
    on_container("start").await?;
    ensure!(state(&node, &id).await? == cri::ContainerState::ContainerRunning);
    on_container("stop").await?;
    ensure!(node.cri().container(&id).await?.exit_code == 0);
    on_container("remove").await?;
    ensure!(node.cri().list_containers(None).await?.is_empty());

    for stop in [true, false] {
        all((0..MANY).map(|_| {
            let (cri, pod) = (node.cri().clone(), pod.clone());
            async move {
                if stop {
                    cri.stop_pod(&pod).await?;
                } else {
                    cri.remove_pod(&pod).await?;
                }
                Ok(String::new())
            }
        }))
        .await?;
    }
    ensure!(node.cri().list_pods(None).await?.is_empty());
    node.assert_clean().await?;
    node.finish().await
}

/// Lets both run and gives what became of the first.
async fn race<A, B>(node: &Node, delay: u64, first: A, second: B) -> anyhow::Result<Option<Status>>
where
    A: Future<Output = Result<(), Status>> + Send + 'static,
    B: Future<Output = Result<(), Status>> + Send,
{
    let first = tokio::spawn(first);
    tokio::time::sleep(Duration::from_millis(delay)).await;
    second.await?;
    ensure!(!node.has_died()?);
    Ok(first.await?.err())
}

/// It came too late, which is no one's fault.
fn assert_too_late(status: Option<Status>) -> Outcome {
    if let Some(status) = status {
        let codes = [Code::FailedPrecondition, Code::NotFound];
        ensure!(codes.contains(&status.code()), "{status}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_a_pod_while_a_container_is_created_leaves_neither() -> Outcome {
    let node = node().await?;
    for delay in [0, 1, 3, 6, 10, 20, 40] {
        let pod = Pod::run(&node, spec::pod("removed")).await?;
        let (cri, id, config) = (node.cri().clone(), pod.id.clone(), pod.config.clone());
        let create = async move {
            cri.create(&id, &spec::sleeper("c"), &config)
                .await
                .map(drop)
        };
        let created = race(&node, delay, create, node.cri().remove_pod(&pod.id)).await?;
        assert_too_late(created)?;
        ensure!(node.cri().list_pods(None).await?.is_empty());
        ensure!(node.cri().list_containers(None).await?.is_empty());
        node.assert_clean().await?;
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_and_removing_a_container_while_it_starts_ends_it() -> Outcome {
    let node = node().await?;
    let pod = settled_pod(&node, spec::pod("starting")).await?;
    for delay in [0, 1, 2, 4, 8, 16] {
        for remove in [false, true] {
            let config = spec::sleeper("c");
            let id = node.cri().create(&pod.id, &config, &pod.config).await?;
            let (cri, started) = (node.cri().clone(), id.clone());
            let start = async move { cri.start(&started).await };
            let end = async {
                if remove {
                    node.cri().remove(&id).await
                } else {
                    node.cri().stop(&id, 5).await
                }
            };
            assert_too_late(race(&node, delay, start, end).await?)?;
            if !remove {
                ensure!(state(&node, &id).await? == cri::ContainerState::ContainerExited);
                node.cri().remove(&id).await?;
            }
            ensure!(node.cri().list_containers(None).await?.is_empty());
            node.assert_clean().await?;
        }
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_stopped_while_it_is_used_answers_everybody() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("used")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    let mut tasks = JoinSet::new();
    for number in 0..20_u64 {
        let (cri, id, pod, config) = (
            node.cri().clone(),
            id.clone(),
            pod.id.clone(),
            pod.config.clone(),
        );
        tasks.spawn(async move {
            tokio::time::sleep(Duration::from_millis(number * 4)).await;
            match number % 5 {
                0 => cri.exec(&id, &["sleep", "3"], 20).await.map(drop),
                1 => {
                    let config_of = spec::sleeper(&format!("n{number}"));
                    cri.create(&pod, &config_of, &config).await.map(drop)
                }
                2 => cri.stop(&id, 1).await,
                3 => cri.stop_pod(&pod).await,
                _ => cri.exec(&id, &["true"], 20).await.map(drop),
            }
        });
    }
    let finish = async {
        while let Some(done) = tasks.join_next().await {
            done?
                .err()
                .map_or(Ok(()), |status| assert_too_late(Some(status)))?;
        }
        anyhow::Ok(())
    };
    let (finished, took) = timed(finish).await;
    finished?;
    ensure!(took < Duration::from_secs(20), "{took:?}");
    ensure!(node.snapshot()?.processes.is_empty());
    node.cri().remove_pod(&pod.id).await?;
    node.assert_clean().await?;
    node.finish().await
}
