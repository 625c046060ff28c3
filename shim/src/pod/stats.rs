//! What a container uses now.

use std::sync::{Arc, PoisonError};

use carpel_cgroup::Stats;
use carpel_images::engine::LayerUsage;
use carpel_proto::state::container_record::Phase;

use super::container::Container;
use super::ids::now_ns;
use super::recorded::blocking;
use super::runtime::Runtime;
use crate::error::Error;

#[derive(Debug, Clone)]
pub(crate) struct ContainerUsage {
    pub(crate) at_ns: i64,
    /// None when the container does not run.
    pub(crate) cgroup: Option<Stats>,
    /// CPU time per second over the time since the last look, ns.
    pub(crate) nano_cores: Option<u64>,
    pub(crate) writable: LayerUsage,
    /// A directory on the filesystem of writable layers.
    pub(crate) filesystem: String,
}

/// The last look at a container's CPU time.
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
        container: &Arc<Container>,
    ) -> Result<ContainerUsage, Error> {
        let cgroup = if container.phase() == Phase::Running {
            let (cgroups, path) = (Arc::clone(&self.parts.cgroups), container.cgroup());
            Some(blocking(move || Ok(cgroups.open(&path)?.stats()?)).await?)
        } else {
            None
        };
        let at_ns = now_ns();
        let nano_cores = cgroup
            .as_ref()
            .and_then(|stats| sample(container, at_ns, stats.cpu_usage_ns));
        let writable = self.parts.images.writable_usage(&container.id).await?;
        let usage = self.parts.images.usage().await?;
        let filesystem = usage
            .containers
            .first()
            .map(|fs| fs.path.display().to_string())
            .unwrap_or_default();
        Ok(ContainerUsage {
            at_ns,
            cgroup,
            nano_cores,
            writable,
            filesystem,
        })
    }
}

fn sample(container: &Container, at_ns: i64, used_ns: u64) -> Option<u64> {
    let mut last = container
        .cpu_sample
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
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
