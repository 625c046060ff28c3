//! What containers and pods use now.

use std::sync::{Arc, Mutex, PoisonError};

use carpel_cgroup::{Hierarchies, Stats};
use carpel_images::engine::{Error as ImageError, LayerUsage};
use carpel_proto::state::container_record::Phase;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::container::Container;
use super::ids::now_ns;
use super::pod::Pod;
use super::recorded::blocking;
use super::runtime::Runtime;
use super::traffic::{self, Interface};
use super::view::{ContainerView, PodView};
use crate::error::Error;

/// Writable layers that are measured at once.
const MEASURED_AT_ONCE: usize = 4;

/// What the processes of a cgroup use.
#[derive(Debug, Clone)]
pub(crate) struct Usage {
    pub(crate) at_ns: i64,
    pub(crate) stats: Stats,
    /// CPU time per second over the time since the last look, ns.
    pub(crate) nano_cores: Option<u64>,
}

#[derive(Debug, Clone)]
pub(crate) struct ContainerUsage {
    pub(crate) container: ContainerView,
    pub(crate) at_ns: i64,
    /// None when the container does not run.
    pub(crate) running: Option<Usage>,
    pub(crate) writable: LayerUsage,
    /// A directory on the filesystem of writable layers.
    pub(crate) filesystem: Arc<str>,
}

#[derive(Debug, Clone)]
pub(crate) struct PodUsage {
    pub(crate) pod: PodView,
    pub(crate) usage: Usage,
    pub(crate) processes: u64,
    /// None for a pod in the host's network.
    pub(crate) network: Option<Vec<Interface>>,
    /// Those that run.
    pub(crate) containers: Vec<ContainerUsage>,
}

/// The last look at a CPU time.
#[derive(Debug, Clone, Copy)]
pub(super) struct CpuSample {
    at_ns: i64,
    used_ns: u64,
    rate: Option<u64>,
}

/// Looks closer together than this say nothing about a rate.
const SHORTEST: i64 = 100_000_000;

impl Runtime {
    pub(crate) async fn container_usage(
        &self,
        container: Arc<Container>,
    ) -> Result<ContainerUsage, Error> {
        let id = container.id.clone();
        let found = self.containers_usage(vec![container]).await?;
        found
            .into_iter()
            .next()
            .ok_or_else(|| Error::container_not_found(&id))
    }

    /// Of all that are still there. The cgroups are read in one go.
    pub(crate) async fn containers_usage(
        &self,
        containers: Vec<Arc<Container>>,
    ) -> Result<Vec<ContainerUsage>, Error> {
        let paths = containers
            .iter()
            .map(|c| (c.phase() == Phase::Running).then(|| c.cgroup()))
            .collect();
        let cgroups = Arc::clone(&self.parts.cgroups);
        let looks = blocking(move || Ok(look_at_all(&cgroups, paths))).await?;
        let filesystem = self.filesystem().await?;
        let found = stream::iter(containers.into_iter().zip(looks))
            .map(|(container, look)| self.with_layer(container, look, Arc::clone(&filesystem)))
            .buffered(MEASURED_AT_ONCE)
            .try_collect::<Vec<_>>()
            .await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// None for a container that was removed meanwhile.
    async fn with_layer(
        &self,
        container: Arc<Container>,
        look: Option<(i64, Stats)>,
        filesystem: Arc<str>,
    ) -> Result<Option<ContainerUsage>, Error> {
        let writable = match self.parts.images.writable_usage(&container.id).await {
            Ok(usage) => usage,
            Err(ImageError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Of one that ended during the look nothing can be said.
        let look = look.filter(|_| container.phase() == Phase::Running);
        let running = look.map(|(at_ns, stats)| usage(&container.cpu_sample, at_ns, stats));
        Ok(Some(ContainerUsage {
            at_ns: running.as_ref().map_or_else(now_ns, |usage| usage.at_ns),
            container: container.view(),
            running,
            writable,
            filesystem,
        }))
    }

    pub(crate) async fn pod_usage(&self, pod: Arc<Pod>) -> Result<PodUsage, Error> {
        let id = pod.id.clone();
        let found = self.pods_usage(vec![pod]).await?;
        found.into_iter().next().ok_or_else(|| {
            Error::FailedPrecondition(format!("pod sandbox {id} is not ready: it uses nothing"))
        })
    }

    /// Of all that are ready, with their running containers.
    pub(crate) async fn pods_usage(&self, pods: Vec<Arc<Pod>>) -> Result<Vec<PodUsage>, Error> {
        let pods: Vec<_> = pods.into_iter().filter(|pod| pod.is_ready()).collect();
        let running = |pod: &Arc<Pod>| {
            let mut containers = pod.containers();
            containers.retain(|c| c.phase() == Phase::Running);
            containers
        };
        let containers = pods.iter().flat_map(running).collect();
        let mut usages = self.containers_usage(containers).await?;
        usages.retain(|usage| usage.running.is_some());
        let jobs: Vec<_> = pods
            .iter()
            .map(|pod| (pod.cgroup(), network_of(pod)))
            .collect();
        let cgroups = Arc::clone(&self.parts.cgroups);
        let looks = blocking(move || {
            let look = |(cgroup, holder): (String, _)| look_at_pod(&cgroups, &cgroup, holder);
            Ok(jobs.into_iter().map(look).collect::<Vec<_>>())
        })
        .await?;
        let mut found = Vec::with_capacity(pods.len());
        for (pod, look) in pods.into_iter().zip(looks) {
            match look {
                Ok(look) if pod.is_ready() => found.push(PodUsage {
                    pod: pod.view(),
                    usage: usage(&pod.cpu_sample, look.at_ns, look.stats),
                    processes: look.processes,
                    network: look.network,
                    containers: take_of(&mut usages, &pod.id),
                }),
                // It ended during the look.
                Ok(_) => {}
                Err(error) => tracing::debug!(pod = %pod.id, %error, "no statistics"),
            }
        }
        Ok(found)
    }

    /// Where writable layers are; that does not change while the daemon runs.
    pub(super) async fn filesystem(&self) -> Result<Arc<str>, Error> {
        let look = || async {
            let usage = self.parts.images.usage().await?;
            let path = usage.containers.first();
            let path = path.map(|fs| fs.path.display().to_string());
            Ok::<_, Error>(Arc::from(path.unwrap_or_default()))
        };
        self.filesystem.get_or_try_init(look).await.cloned()
    }
}

fn take_of(usages: &mut Vec<ContainerUsage>, pod_id: &str) -> Vec<ContainerUsage> {
    usages
        .extract_if(.., |usage| usage.container.pod_id == pod_id)
        .collect()
}

/// The pid through which the pod's own network is seen.
fn network_of(pod: &Pod) -> Option<i32> {
    let own = !pod.host_network() && pod.try_holder().is_some();
    own.then(|| pod.holder_pid())
}

fn look_at_all(cgroups: &Hierarchies, paths: Vec<Option<String>>) -> Vec<Option<(i64, Stats)>> {
    let look = |path: String| match cgroups.open(&path).and_then(|cgroup| cgroup.stats()) {
        Ok(stats) => Some((now_ns(), stats)),
        Err(error) => {
            tracing::debug!(cgroup = %path, %error, "no statistics");
            None
        }
    };
    paths.into_iter().map(|path| path.and_then(look)).collect()
}

struct PodLook {
    at_ns: i64,
    stats: Stats,
    processes: u64,
    network: Option<Vec<Interface>>,
}

fn look_at_pod(cgroups: &Hierarchies, cgroup: &str, holder: Option<i32>) -> Result<PodLook, Error> {
    let cgroup = cgroups.open(cgroup)?;
    Ok(PodLook {
        stats: cgroup.stats()?,
        at_ns: now_ns(),
        processes: u64::try_from(cgroup.members()?.len()).unwrap_or(u64::MAX),
        network: holder.map(traffic::of_process).transpose()?,
    })
}

fn usage(last: &Mutex<Option<CpuSample>>, at_ns: i64, stats: Stats) -> Usage {
    let nano_cores = sample(last, at_ns, stats.cpu.usage_ns);
    Usage {
        at_ns,
        stats,
        nano_cores,
    }
}

fn sample(last: &Mutex<Option<CpuSample>>, at_ns: i64, used_ns: u64) -> Option<u64> {
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    let rate = match *last {
        Some(old) if at_ns - old.at_ns < SHORTEST => return old.rate,
        Some(old) => rate(old, at_ns, used_ns),
        None => None,
    };
    *last = Some(CpuSample {
        at_ns,
        used_ns,
        rate,
    });
    rate
}
fn rate(old: CpuSample, at_ns: i64, used_ns: u64) -> Option<u64> {
    let elapsed = u64::try_from(at_ns - old.at_ns).ok()?;
    let used = u128::from(used_ns.checked_sub(old.used_ns)?);
    u64::try_from(used * 1_000_000_000 / u128::from(elapsed)).ok()
}

#[cfg(test)]
mod tests {
    use super::{CpuSample, rate};

    #[test]
    fn half_a_core_is_half_a_thousand_million() {
        let old = CpuSample {
            at_ns: 0,
            used_ns: 100,
            rate: None,
        };
        assert_eq!(rate(old, 2_000_000_000, 1_000_000_100), Some(500_000_000));
    }

    #[test]
    fn a_counter_that_went_back_gives_no_rate() {
        let old = CpuSample {
            at_ns: 0,
            used_ns: 100,
            rate: None,
        };
        assert_eq!(rate(old, 2_000_000_000, 50), None);
    }
}
