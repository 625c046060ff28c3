//! One pod at a time, from RunPodSandbox to RemovePodSandbox.

use std::time::Duration;

use anyhow::Context;

use crate::calls;
use crate::samples::{Measure, Results, timed};
use crate::subject::Subject;

/// After it the kernel's grace periods are not under way already.
const PAUSE: Duration = Duration::from_millis(300);
const EXECS: usize = 5;

pub(crate) async fn back_to_back(
    subjects: &[Subject],
    rounds: usize,
    results: &mut Results,
) -> anyhow::Result<()> {
    for subject in subjects {
        // The first of each pays for what is made once.
        let mut first = Results::default();
        live(subject, &mut first).await?;
    }
    for _ in 0..rounds {
        for subject in subjects {
            live(subject, results).await?;
        }
    }
    Ok(())
}

async fn live(subject: &Subject, results: &mut Results) -> anyhow::Result<()> {
    let name = subject.name;
    let before = machine_cpu()?;
    let (running, ready) = timed(calls::start(subject)).await.context(name)?;
    results.add(Measure::PodReady, name, ready);
    let mut execs = 0.0;
    for _ in 0..EXECS {
        let ((), took) = timed(calls::exec(subject, &running)).await.context(name)?;
        results.add(Measure::ExecSync, name, took);
        execs += took;
    }
    let ((), stop) = timed(calls::remove_container(subject, &running)).await?;
    results.add(Measure::StopAndRemove, name, stop);
    let ((), remove) = timed(calls::remove_pod(subject, &running)).await?;
    results.add(Measure::StopAndRemovePod, name, remove);
    results.add(Measure::WholeLife, name, ready + execs + stop + remove);
    results.add(Measure::CpuOfALife, name, machine_cpu()? - before);
    Ok(())
}

pub(crate) async fn after_a_pause(
    subjects: &[Subject],
    rounds: usize,
    results: &mut Results,
) -> anyhow::Result<()> {
    for _ in 0..rounds {
        for subject in subjects {
            tokio::time::sleep(PAUSE).await;
            let (running, ready) = timed(calls::start(subject)).await?;
            results.add(Measure::PodReadyAfterPause, subject.name, ready);
            tokio::time::sleep(PAUSE).await;
            let ((), exec) = timed(calls::exec(subject, &running)).await?;
            results.add(Measure::ExecSyncAfterPause, subject.name, exec);
            calls::remove_pod(subject, &running).await?;
        }
    }
    Ok(())
}

/// Milliseconds that all CPUs together were not idle (proc_stat(5)).
fn machine_cpu() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    let fields: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .map_while(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq
    let busy = [0, 1, 2, 5, 6].map(|i| fields.get(i).copied().unwrap_or(0.0));
    // USER_HZ is 100 on every architecture that we build for.
    Ok(busy.iter().sum::<f64>() * 10.0)
}
