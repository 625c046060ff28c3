//! Limits of a pod or a container.

use std::collections::HashMap;

use oci_spec::runtime::{LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxResources};

use crate::error::{Error, Result};
use crate::intent::{HugepageLimit, Resources};
use crate::plan::{CgroupVersion, HostFacts};

const FIELD: &str = "linux.resources";

/// Limits in OCI form, without device rules. Zero stays "not given".
pub fn linux_resources(resources: &Resources, host: &HostFacts) -> Result<LinuxResources> {
    let mut oci = LinuxResources::default();
    oci.set_devices(None)
        .set_cpu(cpu(resources)?)
        .set_memory(memory(resources)?)
        .set_pids(host.pids_limit.filter(|limit| *limit > 0).map(pids))
        .set_hugepage_limits(hugepages(&resources.hugepages, host)?)
        .set_unified(unified(resources, host)?);
    Ok(oci)
}

fn cpu(resources: &Resources) -> Result<Option<LinuxCpu>> {
    let positive = |name: &str, value: i64| {
        u64::try_from(value)
            .map(|value| Some(value).filter(|value| *value != 0))
            .map_err(|_| Error::invalid(format!("{FIELD}.{name}"), value, "is negative"))
    };
    let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(positive("cpu_shares", resources.cpu_shares)?)
        .set_period(positive("cpu_period", resources.cpu_period)?)
        .set_quota(Some(resources.cpu_quota).filter(|quota| *quota != 0))
        .set_cpus(given(&resources.cpuset_cpus))
        .set_mems(given(&resources.cpuset_mems));
    Ok(Some(cpu).filter(|cpu| *cpu != LinuxCpu::default()))
}

/// Memory without a word about swap gets none, as the kubelet expects.
fn memory(resources: &Resources) -> Result<Option<LinuxMemory>> {
    let (limit, swap) = (resources.memory_limit, resources.memory_swap_limit);
    if swap > 0 && limit > swap {
        let why = "is memory and swap together, so not less than memory_limit_in_bytes";
        return Err(Error::invalid(
            format!("{FIELD}.memory_swap_limit_in_bytes"),
            swap,
            why,
        ));
    }
    if swap > 0 && limit <= 0 {
        let why = "needs memory_limit_in_bytes";
        return Err(Error::invalid(
            format!("{FIELD}.memory_swap_limit_in_bytes"),
            swap,
            why,
        ));
    }
    if limit == 0 && swap == 0 {
        return Ok(None);
    }
    let mut memory = LinuxMemory::default();
    memory
        .set_limit(Some(limit).filter(|limit| *limit != 0))
        .set_swap(Some(if swap == 0 { limit } else { swap }));
    Ok(Some(memory))
}

fn pids(limit: i64) -> LinuxPids {
    let mut pids = LinuxPids::default();
    pids.set_limit(limit);
    pids
}

/// The kubelet names every size, most with a limit of 0; one that the host does
/// not have is wrong only if something was granted.
fn hugepages(
    limits: &[HugepageLimit],
    host: &HostFacts,
) -> Result<Option<Vec<LinuxHugepageLimit>>> {
    let mut known = Vec::new();
    for HugepageLimit { page_size, limit } in limits {
        let field = || format!("{FIELD}.hugepage_limits[{page_size}]");
        if host.hugepage_sizes.contains(page_size) {
            let limit = i64::try_from(*limit)
                .map_err(|_| Error::invalid(field(), limit, "is too large"))?;
            let mut oci = LinuxHugepageLimit::default();
            oci.set_page_size(page_size.clone()).set_limit(limit);
            known.push(oci);
        } else if *limit != 0 {
            return Err(Error::unsupported(
                field(),
                "the host has no huge pages of this size",
            ));
        }
    }
    Ok(Some(known).filter(|known| !known.is_empty()))
}

fn unified(resources: &Resources, host: &HostFacts) -> Result<Option<HashMap<String, String>>> {
    if resources.unified.is_empty() {
        return Ok(None);
    }
    if host.cgroup == CgroupVersion::V1 {
        let why = "needs cgroup v2, and this host has v1";
        return Err(Error::unsupported(format!("{FIELD}.unified"), why));
    }
    Ok(Some(resources.unified.clone().into_iter().collect()))
}

impl Resources {
    /// These with what `update` gives in their place; what it leaves out stays.
    #[must_use]
    pub fn updated(&self, update: &Self) -> Self {
        let number = |old: i64, new: i64| if new == 0 { old } else { new };
        let text = |old: &String, new: &String| if new.is_empty() { old } else { new }.clone();
        let mut hugepages = self.hugepages.clone();
        for new in &update.hugepages {
            match hugepages
                .iter_mut()
                .find(|old| old.page_size == new.page_size)
            {
                Some(old) => old.limit = new.limit,
                None => hugepages.push(new.clone()),
            }
        }
        let mut unified = self.unified.clone();
        unified.extend(update.unified.clone());
        Self {
            cpu_period: number(self.cpu_period, update.cpu_period),
            cpu_quota: number(self.cpu_quota, update.cpu_quota),
            cpu_shares: number(self.cpu_shares, update.cpu_shares),
            memory_limit: number(self.memory_limit, update.memory_limit),
            memory_swap_limit: number(self.memory_swap_limit, update.memory_swap_limit),
            oom_score_adj: number(self.oom_score_adj, update.oom_score_adj),
            cpuset_cpus: text(&self.cpuset_cpus, &update.cpuset_cpus),
            cpuset_mems: text(&self.cpuset_mems, &update.cpuset_mems),
            hugepages,
            unified,
        }
    }

    /// What a pod may use that runs containers with these limits and needs `overhead`
    /// itself. What the containers are not limited in, the pod is not either.
    #[must_use]
    pub fn with_overhead(&self, overhead: &Self) -> Self {
        let sum = |own: i64, more: i64| match own {
            own if own > 0 => own.saturating_add(more.max(0)),
            unlimited => unlimited,
        };
        let period = |resources: &Self| match resources.cpu_period {
            given if given > 0 => given,
            _ => DEFAULT_PERIOD,
        };
        // In the pod's own periods.
        let quota = i128::from(overhead.cpu_quota) * i128::from(period(self))
            / i128::from(period(overhead));
        let mut pod = Self {
            cpu_quota: sum(self.cpu_quota, i64::try_from(quota).unwrap_or(i64::MAX)),
            cpu_shares: sum(self.cpu_shares, overhead.cpu_shares),
            memory_limit: sum(self.memory_limit, overhead.memory_limit),
            memory_swap_limit: sum(
                self.memory_swap_limit,
                overhead.memory_swap_limit.max(overhead.memory_limit),
            ),
            oom_score_adj: 0,
            ..self.clone()
        };
        for limit in &mut pod.hugepages {
            let more = overhead
                .hugepages
                .iter()
                .find(|more| more.page_size == limit.page_size);
            limit.limit = limit
                .limit
                .saturating_add(more.map_or(0, |more| more.limit));
        }
        pod
    }
}

/// Microseconds; the kernel's.
const DEFAULT_PERIOD: i64 = 100_000;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::plan::fixture::Fixture;

    fn build(resources: &Resources) -> Result<LinuxResources> {
        linux_resources(resources, &Fixture::default().host)
    }

    #[test]
    fn zero_is_not_given() {
        let oci = build(&Resources::default()).unwrap();
        assert_eq!((oci.cpu(), oci.memory(), oci.pids()), (&None, &None, &None));
        assert_eq!((oci.hugepage_limits(), oci.unified()), (&None, &None));
    }

    #[test]
    fn memory_alone_allows_no_swap() {
        let oci = build(&Resources {
            memory_limit: 100,
            ..Resources::default()
        })
        .unwrap();
        let memory = oci.memory().unwrap();
        assert_eq!((memory.limit(), memory.swap()), (Some(100), Some(100)));
        let oci = build(&Resources {
            memory_limit: 100,
            memory_swap_limit: -1,
            ..Resources::default()
        });
        assert_eq!(oci.unwrap().memory().unwrap().swap(), Some(-1));
    }

    #[test]
    fn swap_less_than_memory_is_refused() {
        for (limit, swap) in [(100, 50), (0, 50)] {
            let resources = Resources {
                memory_limit: limit,
                memory_swap_limit: swap,
                ..Resources::default()
            };
            let error = build(&resources).unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains("memory_swap_limit_in_bytes: \"50\""),
                "{error}"
            );
        }
    }

    #[test]
    fn cpu_is_passed_on() {
        let oci = build(&Resources {
            cpu_shares: 2,
            cpu_quota: -1,
            cpu_period: 1000,
            cpuset_cpus: "0-1".to_owned(),
            ..Resources::default()
        });
        let cpu = oci.unwrap().cpu().clone().unwrap();
        assert_eq!(
            (cpu.shares(), cpu.quota(), cpu.period()),
            (Some(2), Some(-1), Some(1000))
        );
        assert_eq!(
            (cpu.cpus().as_deref(), cpu.mems().as_deref()),
            (Some("0-1"), None)
        );
        assert!(
            build(&Resources {
                cpu_shares: -1,
                ..Resources::default()
            })
            .is_err()
        );
    }

    #[test]
    fn an_update_leaves_what_it_does_not_name() {
        let page = |size: &str, limit| HugepageLimit {
            page_size: size.to_owned(),
            limit,
        };
        let unified = |pairs: &[(&str, &str)]| {
            let owned = pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            owned.collect::<BTreeMap<_, _>>()
        };
        let old = Resources {
            cpu_period: 1,
            cpu_quota: 2,
            cpu_shares: 3,
            memory_limit: 4,
            memory_swap_limit: 5,
            oom_score_adj: 6,
            cpuset_cpus: "0".to_owned(),
            cpuset_mems: "1".to_owned(),
            hugepages: vec![page("2MB", 7), page("1GB", 8)],
            unified: unified(&[("memory.min", "1"), ("memory.high", "2")]),
        };
        assert_eq!(old.updated(&Resources::default()), old);
        assert_eq!(Resources::default().updated(&old), old);
        let new = old.updated(&Resources {
            cpu_quota: -1,
            cpuset_mems: "0".to_owned(),
            hugepages: vec![page("2MB", 0)],
            unified: unified(&[("memory.high", "max")]),
            ..Resources::default()
        });
        let expected = Resources {
            cpu_quota: -1,
            cpuset_mems: "0".to_owned(),
            hugepages: vec![page("2MB", 0), page("1GB", 8)],
            unified: unified(&[("memory.min", "1"), ("memory.high", "max")]),
            ..old
        };
        assert_eq!(new, expected);
    }

    #[test]
    fn overhead_adds_to_limits_and_makes_none() {
        let overhead = Resources {
            cpu_quota: 1000,
            cpu_period: 10_000,
            cpu_shares: 10,
            memory_limit: 50,
            ..Resources::default()
        };
        assert_eq!(
            Resources::default().with_overhead(&overhead),
            Resources::default()
        );
        let pod = Resources {
            cpu_quota: 20_000,
            cpu_period: 100_000,
            cpu_shares: 5,
            memory_limit: 100,
            memory_swap_limit: 100,
            oom_score_adj: 9,
            ..Resources::default()
        }
        .with_overhead(&overhead);
        assert_eq!(
            (pod.cpu_quota, pod.cpu_period, pod.cpu_shares),
            (30_000, 100_000, 15)
        );
        assert_eq!((pod.memory_limit, pod.memory_swap_limit), (150, 150));
        assert_eq!(pod.oom_score_adj, 0);
        let unlimited = Resources {
            memory_limit: -1,
            ..Resources::default()
        };
        assert_eq!(unlimited.with_overhead(&overhead).memory_limit, -1);
    }

    #[test]
    fn huge_pages_of_an_unknown_size_may_only_be_refused() {
        let limit = |size: &str, limit| Resources {
            hugepages: vec![HugepageLimit {
                page_size: size.to_owned(),
                limit,
            }],
            ..Resources::default()
        };
        assert!(
            build(&limit("64KB", 0))
                .unwrap()
                .hugepage_limits()
                .is_none()
        );
        assert!(build(&limit("64KB", 1)).is_err());
        let oci = build(&limit("2MB", 4 << 20)).unwrap();
        assert_eq!(oci.hugepage_limits().as_ref().unwrap()[0].limit(), 4 << 20);
    }

    #[test]
    fn unified_needs_version_two() {
        let resources = Resources {
            unified: BTreeMap::from([("memory.oom.group".to_owned(), "1".to_owned())]),
            ..Resources::default()
        };
        assert!(build(&resources).unwrap().unified().is_some());
        let host = HostFacts {
            cgroup: CgroupVersion::V1,
            ..HostFacts::default()
        };
        assert!(matches!(
            linux_resources(&resources, &host),
            Err(Error::Unsupported { .. })
        ));
    }
}
