//! The values of one look at a pod.

use std::time::Duration;

use carpel_cgroup::Pressure;
use carpel_proto::cri::{ContainerMetrics, Metric, PodSandboxMetrics, UInt64Value};

use super::catalogue::{self as family, Family};
use crate::pod::{ContainerDetails, Interface, PodDetails, PodView, device_name};

/// cgroup v1 and v2: what a group without a weight of its own has.
const DEFAULT_SHARES: u64 = 1024;
/// The kernel's period of bandwidth control, microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

pub(super) fn of_pod(pod: &PodDetails) -> PodSandboxMetrics {
    let view = &pod.used.pod;
    let mut samples = Samples::new(base(view, &view.cgroup, &view.id, "", "POD"));
    for interface in pod.used.network.iter().flatten() {
        network(&mut samples, interface);
    }
    PodSandboxMetrics {
        pod_sandbox_id: view.id.clone(),
        metrics: samples.metrics,
        container_metrics: pod
            .containers
            .iter()
            .map(|container| of_container(view, container))
            .collect(),
    }
}

fn base(pod: &PodView, cgroup: &str, id: &str, image: &str, container: &str) -> Vec<String> {
    let (namespace, name) = (&pod.config.namespace, &pod.config.name);
    [cgroup, id, image, namespace, name, container]
        .map(str::to_owned)
        .into()
}

fn of_container(pod: &PodView, details: &ContainerDetails) -> ContainerMetrics {
    let view = &details.used.container;
    let mut samples = Samples::new(base(
        pod,
        &view.cgroup,
        &view.id,
        &view.status.image_name,
        &view.config.name,
    ));
    cpu(&mut samples, details);
    memory(&mut samples, details);
    disk(&mut samples, details);
    processes(&mut samples, details);
    specified(&mut samples, details);
    pressure(&mut samples, details);
    samples.add(
        &family::START_TIME,
        whole_seconds(view.status.started_at.unsigned_abs()),
    );
    samples.add(
        &family::LAST_SEEN,
        whole_seconds(details.used.at_ns.unsigned_abs()),
    );
    ContainerMetrics {
        container_id: view.id.clone(),
        metrics: samples.metrics,
    }
}

struct Samples {
    base: Vec<String>,
    metrics: Vec<Metric>,
}

impl Samples {
    fn new(base: Vec<String>) -> Self {
        Self {
            base,
            metrics: Vec::new(),
        }
    }

    fn add(&mut self, family: &Family, value: u64) {
        self.add_of(family, &[], value);
    }

    /// `of` has a value for each key of the family.
    fn add_of(&mut self, family: &Family, of: &[&str], value: u64) {
        let of = of.iter().map(|label| (*label).to_owned());
        self.metrics.push(Metric {
            name: family.name.to_owned(),
            // Looked at just now.
            timestamp: 0,
            metric_type: family.kind.into(),
            label_values: self.base.iter().cloned().chain(of).collect(),
            value: Some(UInt64Value { value }),
        });
    }
}

fn whole_seconds(ns: u64) -> u64 {
    Duration::from_nanos(ns).as_secs()
}

fn cpu(samples: &mut Samples, details: &ContainerDetails) {
    let Some(usage) = &details.used.running else {
        return;
    };
    let cpu = &usage.stats.cpu;
    samples.add_of(&family::CPU_USAGE, &["total"], whole_seconds(cpu.usage_ns));
    samples.add(&family::CPU_USER, whole_seconds(cpu.user_ns));
    samples.add(&family::CPU_SYSTEM, whole_seconds(cpu.system_ns));
    if let Some(throttling) = &cpu.throttling {
        samples.add(&family::CFS_PERIODS, throttling.periods);
        samples.add(&family::CFS_THROTTLED_PERIODS, throttling.throttled_periods);
        samples.add(
            &family::CFS_THROTTLED,
            whole_seconds(throttling.throttled_ns),
        );
    }
}

fn memory(samples: &mut Samples, details: &ContainerDetails) {
    let Some(usage) = &details.used.running else {
        return;
    };
    let memory = &usage.stats.memory;
    let swap = usage.stats.swap.unwrap_or_default();
    for (family, value) in [
        (&family::MEMORY_USAGE, Some(memory.usage)),
        (&family::MEMORY_WORKING_SET, Some(memory.working_set)),
        (&family::MEMORY_RSS, Some(memory.rss)),
        (&family::MEMORY_CACHE, Some(memory.cache)),
        (&family::MEMORY_MAPPED_FILE, Some(memory.mapped_file)),
        (&family::MEMORY_KERNEL, memory.kernel),
        (&family::MEMORY_SWAP, Some(swap.usage)),
        (&family::MEMORY_MAX_USAGE, memory.peak),
        (&family::MEMORY_FAILCNT, Some(memory.limit_hits)),
        (&family::OOM_EVENTS, Some(memory.oom_kills)),
    ] {
        if let Some(value) = value {
            samples.add(family, value);
        }
    }
    let scopes = [
        ("container", memory.own_faults),
        ("hierarchy", Some(memory.faults)),
    ];
    for (scope, faults) in scopes {
        if let Some(faults) = faults {
            for (kind, value) in [("pgfault", faults.all), ("pgmajfault", faults.major)] {
                samples.add_of(&family::MEMORY_FAILURES, &[kind, scope], value);
            }
        }
    }
    for pages in &details.hugepages {
        samples.add_of(&family::HUGETLB_USAGE, &[&pages.size], pages.usage);
        if let Some(peak) = pages.peak {
            samples.add_of(&family::HUGETLB_MAX_USAGE, &[&pages.size], peak);
        }
    }
}

fn disk(samples: &mut Samples, details: &ContainerDetails) {
    let disk = &details.disk;
    let of = [disk.device.as_str()];
    samples.add_of(&family::FS_USAGE, &of, details.used.writable.bytes);
    samples.add_of(&family::FS_LIMIT, &of, disk.bytes);
    samples.add_of(&family::FS_INODES, &of, disk.inodes);
    samples.add_of(&family::FS_INODES_FREE, &of, disk.inodes_free);
    let usage = details.used.running.as_ref();
    for io in usage
        .map(|usage| usage.stats.io.as_slice())
        .unwrap_or_default()
    {
        let device = device_name(io.major, io.minor);
        let of = [device.as_str()];
        samples.add_of(&family::FS_READS, &of, io.reads);
        samples.add_of(&family::FS_READS_BYTES, &of, io.read_bytes);
        samples.add_of(&family::FS_WRITES, &of, io.writes);
        samples.add_of(&family::FS_WRITES_BYTES, &of, io.written_bytes);
        let (major, minor) = (io.major.to_string(), io.minor.to_string());
        for (operation, bytes) in [("Read", io.read_bytes), ("Write", io.written_bytes)] {
            let of = [device.as_str(), &major, &minor, operation];
            samples.add_of(&family::BLKIO, &of, bytes);
        }
    }
}

fn processes(samples: &mut Samples, details: &ContainerDetails) {
    let found = &details.processes;
    samples.add(&family::PROCESSES, found.count);
    samples.add(&family::FILE_DESCRIPTORS, found.descriptors);
    samples.add(&family::SOCKETS, found.sockets);
    if let Some(limit) = found.open_files_limit {
        samples.add_of(&family::ULIMITS_SOFT, &["max_open_files"], limit);
    }
    if let Some(usage) = &details.used.running {
        let pids = &usage.stats.pids;
        samples.add(&family::THREADS, pids.current);
        samples.add(&family::THREADS_MAX, pids.limit.unwrap_or(0));
    }
}

fn specified(samples: &mut Samples, details: &ContainerDetails) {
    let resources = &details.used.container.resources;
    let or = |value: i64, default: u64| match u64::try_from(value) {
        Ok(value) if value > 0 => value,
        _ => default,
    };
    samples.add(
        &family::SPEC_CPU_PERIOD,
        or(resources.cpu_period, DEFAULT_PERIOD),
    );
    samples.add(
        &family::SPEC_CPU_SHARES,
        or(resources.cpu_shares, DEFAULT_SHARES),
    );
    if resources.cpu_quota > 0 {
        samples.add(&family::SPEC_CPU_QUOTA, or(resources.cpu_quota, 0));
    }
    let swap = or(resources.memory_swap_limit, 0);
    samples.add(&family::SPEC_MEMORY_SWAP_LIMIT, swap);
    if let Some(usage) = &details.used.running {
        let memory = &usage.stats.memory;
        samples.add(&family::SPEC_MEMORY_LIMIT, memory.limit.unwrap_or(0));
        let reservation = memory.reservation.unwrap_or(0);
        samples.add(&family::SPEC_MEMORY_RESERVATION, reservation);
    }
}

fn pressure(samples: &mut Samples, details: &ContainerDetails) {
    let Some(usage) = &details.used.running else {
        return;
    };
    let stats = &usage.stats;
    let kinds: [(Option<Pressure>, _, _); 3] = [
        (
            stats.cpu.pressure,
            &family::CPU_WAITING,
            &family::CPU_STALLED,
        ),
        (
            stats.memory.pressure,
            &family::MEMORY_WAITING,
            &family::MEMORY_STALLED,
        ),
        (stats.io_pressure, &family::IO_WAITING, &family::IO_STALLED),
    ];
    for (found, waiting, stalled) in kinds {
        if let Some(found) = found {
            let seconds = |us| Duration::from_micros(us).as_secs();
            samples.add(waiting, seconds(found.some.total_us));
            samples.add(stalled, seconds(found.full.total_us));
        }
    }
}

fn network(samples: &mut Samples, interface: &Interface) {
    let of = [interface.name.as_str()];
    let (received, sent) = (&interface.received, &interface.sent);
    for (family, value) in [
        (&family::RECEIVED_BYTES, received.bytes),
        (&family::RECEIVED_PACKETS, received.packets),
        (&family::RECEIVED_DROPPED, received.dropped),
        (&family::RECEIVED_ERRORS, received.errors),
        (&family::SENT_BYTES, sent.bytes),
        (&family::SENT_PACKETS, sent.packets),
        (&family::SENT_DROPPED, sent.dropped),
        (&family::SENT_ERRORS, sent.errors),
    ] {
        samples.add_of(family, &of, value);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use carpel_cgroup::{DeviceIo, Faults, Hugepages, Pressure, Stats, Throttling};
    use carpel_images::engine::LayerUsage;
    use carpel_spec::intent::{ContainerConfig, PodConfig};

    use super::super::catalogue::descriptors;
    use super::of_pod;
    use crate::pod::{
        ContainerDetails, ContainerUsage, ContainerView, Disk, Interface, PodDetails, PodUsage,
        PodView, Processes, Status, Usage,
    };

    /// A look at which the kernel told all that there is.
    fn everything() -> Stats {
        let mut stats = Stats::default();
        stats.cpu.usage_ns = 2_900_000_000;
        stats.cpu.throttling = Some(Throttling::default());
        stats.cpu.pressure = Some(Pressure::default());
        stats.memory.pressure = Some(Pressure::default());
        stats.memory.kernel = Some(1);
        stats.memory.peak = Some(1);
        stats.memory.own_faults = Some(Faults::default());
        stats.io_pressure = Some(Pressure::default());
        stats.io = vec![DeviceIo::default()];
        stats
    }

    fn details(stats: &Stats) -> PodDetails {
        let mut config = ContainerConfig {
            name: "main".into(),
            ..ContainerConfig::default()
        };
        config.resources.cpu_quota = 20_000;
        let container = ContainerView {
            id: "id".into(),
            pod_id: "pod-id".into(),
            resources: config.resources.clone(),
            config: Arc::new(config),
            status: Status::default(),
            cgroup: "/carpel/pod-id/id".into(),
            pid: 1,
        };
        let usage = Usage {
            at_ns: 1,
            stats: stats.clone(),
            nano_cores: None,
        };
        let used = ContainerUsage {
            container,
            at_ns: 1,
            running: Some(usage.clone()),
            writable: LayerUsage::default(),
            filesystem: "/".into(),
        };
        PodDetails {
            used: PodUsage {
                pod: PodView {
                    id: "pod-id".into(),
                    config: Arc::new(PodConfig {
                        name: "web".into(),
                        namespace: "default".into(),
                        ..PodConfig::default()
                    }),
                    ready: true,
                    created_at: 1,
                    addresses: Vec::new(),
                    runtime_handler: String::new(),
                    cgroup: "/carpel/pod-id".into(),
                },
                usage,
                processes: 1,
                network: Some(vec![Interface {
                    name: "eth0".into(),
                    ..Interface::default()
                }]),
                containers: Vec::new(),
            },
            containers: vec![ContainerDetails {
                used,
                processes: Processes {
                    open_files_limit: Some(1),
                    ..Processes::default()
                },
                hugepages: vec![Hugepages {
                    size: "2MB".into(),
                    usage: 0,
                    peak: Some(0),
                }],
                disk: Disk::default(),
            }],
        }
    }

    #[test]
    fn everything_that_is_described_is_told_with_all_its_labels() {
        let metrics = of_pod(&details(&everything()));
        let keys: BTreeMap<_, _> = descriptors(true)
            .into_iter()
            .map(|d| (d.name, d.label_keys.len()))
            .collect();
        let of_containers = metrics.container_metrics.iter().flat_map(|c| &c.metrics);
        let mut told = BTreeSet::new();
        for metric in metrics.metrics.iter().chain(of_containers) {
            assert_eq!(keys[&metric.name], metric.label_values.len(), "{metric:?}");
            told.insert(metric.name.clone());
        }
        assert_eq!(told.len(), 56);
    }

    #[test]
    fn labels_say_whose_a_value_is_and_seconds_are_whole() {
        let metrics = of_pod(&details(&everything()));
        assert_eq!(
            metrics.metrics[0].label_values,
            [
                "/carpel/pod-id",
                "pod-id",
                "",
                "default",
                "web",
                "POD",
                "eth0"
            ]
        );
        let mut all = metrics.container_metrics[0].metrics.iter();
        let cpu = all
            .find(|m| m.name == "container_cpu_usage_seconds_total")
            .unwrap();
        assert_eq!(cpu.label_values[3..], ["default", "web", "main", "total"]);
        assert_eq!(cpu.value.unwrap().value, 2);
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_not_told() {
        let metrics = of_pod(&details(&Stats::default()));
        let names: BTreeSet<_> = metrics.container_metrics[0]
            .metrics
            .iter()
            .map(|m| m.name.as_str())
            .collect();
        for absent in [
            "container_pressure_cpu_waiting_seconds_total",
            "container_cpu_cfs_periods_total",
            "container_memory_kernel_usage",
            "container_fs_reads_total",
        ] {
            assert!(!names.contains(absent), "{absent}");
        }
        assert!(names.contains("container_memory_usage_bytes"));
    }
}
