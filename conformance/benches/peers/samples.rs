//! What was measured: series of numbers by measure and runtime.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Instant;

/// What a series tells, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Measure {
    PodReady,
    PodReadyAfterPause,
    ExecSync,
    ExecSyncAfterPause,
    StopAndRemove,
    StopAndRemovePod,
    WholeLife,
    CpuOfALife,
    BurstStart,
    BurstRemove,
    ListContainers,
    ListStats,
    DaemonFresh,
    DaemonCrowded,
    HelpersOfAPod,
    Restart,
}

impl Measure {
    pub(crate) const ALL: [Self; 16] = [
        Self::PodReady,
        Self::PodReadyAfterPause,
        Self::ExecSync,
        Self::ExecSyncAfterPause,
        Self::StopAndRemove,
        Self::StopAndRemovePod,
        Self::WholeLife,
        Self::CpuOfALife,
        Self::BurstStart,
        Self::BurstRemove,
        Self::ListContainers,
        Self::ListStats,
        Self::DaemonFresh,
        Self::DaemonCrowded,
        Self::HelpersOfAPod,
        Self::Restart,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PodReady => "pod ready (run, create, start)",
            Self::PodReadyAfterPause => "the same after a pause",
            Self::ExecSync => "ExecSync of `true`",
            Self::ExecSyncAfterPause => "the same after a pause",
            Self::StopAndRemove => "StopContainer(0) + RemoveContainer",
            Self::StopAndRemovePod => "StopPodSandbox + RemovePodSandbox",
            Self::WholeLife => "whole life of a pod",
            Self::CpuOfALife => "CPU time of the machine in a life",
            Self::BurstStart => "pods at once, until all run",
            Self::BurstRemove => "pods at once, until all are gone",
            Self::ListContainers => "ListContainers, pods standing",
            Self::ListStats => "ListContainerStats, pods standing",
            Self::DaemonFresh => "daemon, fresh (PSS)",
            Self::DaemonCrowded => "daemon, pods standing (PSS)",
            Self::HelpersOfAPod => "helper processes of a pod (PSS)",
            Self::Restart => "SIGKILL and restart, until the list is right",
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::DaemonFresh | Self::DaemonCrowded | Self::HelpersOfAPod => "MB",
            _ => "ms",
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Results {
    series: BTreeMap<(Measure, &'static str), Vec<f64>>,
    /// Names and versions in the order of the columns.
    pub(crate) runtimes: Vec<(&'static str, String)>,
    pub(crate) burst: usize,
    pub(crate) crowd: usize,
}

impl Results {
    pub(crate) fn note_version(&mut self, runtime: &'static str, version: String) {
        self.runtimes.push((runtime, version));
    }

    pub(crate) fn add(&mut self, measure: Measure, runtime: &'static str, value: f64) {
        self.series
            .entry((measure, runtime))
            .or_default()
            .push(value);
    }

    /// Half of the values are not above it, nine tenths are not above the second.
    pub(crate) fn quantiles(&self, measure: Measure, runtime: &'static str) -> Option<(f64, f64)> {
        let mut values = self.series.get(&(measure, runtime))?.clone();
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let last = values.len().saturating_sub(1);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss
            )]
            let index = (last as f64 * share).round() as usize;
            values.get(index).copied()
        };
        Some((at(0.5)?, at(0.9)?))
    }

    pub(crate) fn median(&self, measure: Measure, runtime: &'static str) -> Option<f64> {
        self.quantiles(measure, runtime).map(|(median, _)| median)
    }
}

/// Runs `work` and gives its milliseconds.
pub(crate) async fn timed<T, E>(work: impl Future<Output = Result<T, E>>) -> Result<(T, f64), E> {
    let start = Instant::now();
    let value = work.await?;
    Ok((value, start.elapsed().as_secs_f64() * 1e3))
}
