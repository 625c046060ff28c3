//! Many pods: made at once, standing, and after a crash of the daemon.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use k8s_cri::v1 as cri;

use crate::calls::{self, Running};
use crate::memory;
use crate::samples::{Measure, Results, timed};
use crate::subject::Subject;

const LISTS: usize = 30;
/// Of those who make the crowd, which is not measured itself.
const CLIENTS: usize = 4;
const RECOVERED_WITHIN: Duration = Duration::from_secs(60);

pub(crate) async fn burst(
    subject: &Subject,
    count: usize,
    results: &mut Results,
) -> anyhow::Result<()> {
    results.burst = count;
    let starts = (0..count).map(|_| calls::start(subject));
    let (pods, took) = timed(try_join_all(starts)).await?;
    results.add(Measure::BurstStart, subject.name, took);
    let removals = pods.iter().map(|pod| calls::remove_pod(subject, pod));
    let (_, took) = timed(try_join_all(removals)).await?;
    results.add(Measure::BurstRemove, subject.name, took);
    Ok(())
}

pub(crate) async fn crowd(
    subject: &Subject,
    count: usize,
    results: &mut Results,
) -> anyhow::Result<()> {
    results.crowd = count;
    results.add(Measure::DaemonFresh, subject.name, fresh(subject).await?);
    let before = memory::processes()?;
    let pods: Vec<Running> = stream::iter(0..count)
        .map(|_| calls::start(subject))
        .buffer_unordered(CLIENTS)
        .try_collect()
        .await?;
    let outcome = look(subject, count, &before, results).await;
    let removals = pods.iter().map(|pod| calls::remove_pod(subject, pod));
    stream::iter(removals)
        .buffer_unordered(CLIENTS)
        .try_collect::<Vec<()>>()
        .await?;
    outcome
}

/// Of a daemon that has just been started again and has no pods.
async fn fresh(subject: &Subject) -> anyhow::Result<f64> {
    subject.kill().await?;
    subject.restart().await?;
    listed(subject, 0).await?;
    memory::of(subject.pid()?)
}

async fn look(
    subject: &Subject,
    count: usize,
    before: &memory::Pids,
    results: &mut Results,
) -> anyhow::Result<()> {
    let name = subject.name;
    for _ in 0..LISTS {
        let (found, took) = timed(subject.cri().list_containers(None)).await?;
        ensure!(
            found.len() == count,
            "{name} lists {} containers",
            found.len()
        );
        results.add(Measure::ListContainers, name, took);
        let (found, took) = timed(subject.cri().list_stats(None)).await?;
        ensure!(found.len() == count, "{name} lists {} stats", found.len());
        results.add(Measure::ListStats, name, took);
    }
    results.add(Measure::DaemonCrowded, name, memory::of(subject.pid()?)?);
    let helpers = memory::since(before, &subject.helpers())?;
    #[expect(clippy::cast_precision_loss)]
    results.add(Measure::HelpersOfAPod, name, helpers / count as f64);
    subject.kill().await?;
    let start = Instant::now();
    subject.restart().await?;
    listed(subject, count)
        .await
        .with_context(|| format!("{name} after its restart"))?;
    results.add(Measure::Restart, name, start.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

/// Waits until the list has so many pods that are ready.
async fn listed(subject: &Subject, count: usize) -> anyhow::Result<()> {
    let end = Instant::now() + RECOVERED_WITHIN;
    loop {
        let ready = match subject.cri().list_pods(None).await {
            Ok(pods) => pods
                .iter()
                .filter(|pod| pod.state() == cri::PodSandboxState::SandboxReady)
                .count(),
            Err(_) => usize::MAX,
        };
        if ready == count {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{ready} of {count} pods are ready");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
