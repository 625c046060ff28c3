//! Every metric: its name, what it means, and what its values are told apart by.

use carpel_proto::cri::{MetricDescriptor, MetricType};

/// Labels of every value, in this order, as cAdvisor has them.
pub(super) const BASE: [&str; 6] = ["id", "name", "image", "namespace", "pod", "container"];

#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    help: &'static str,
    pub(super) kind: MetricType,
    /// Labels after those of `BASE`.
    pub(super) keys: &'static [&'static str],
}

impl Family {
    const fn new(
        name: &'static str,
        help: &'static str,
        kind: MetricType,
        keys: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            help,
            kind,
            keys,
        }
    }

    fn descriptor(&self) -> MetricDescriptor {
        MetricDescriptor {
            name: self.name.into(),
            help: self.help.into(),
            label_keys: BASE
                .iter()
                .chain(self.keys)
                .map(|key| (*key).to_owned())
                .collect(),
        }
    }
}

/// Those of pressure are left out where the kernel does not count it.
pub(super) fn descriptors(pressure: bool) -> Vec<MetricDescriptor> {
    let waits = if pressure { &PRESSURE[..] } else { &[] };
    ALL.iter()
        .chain(waits)
        .map(|family| family.descriptor())
        .collect()
}

pub(super) static CPU_USAGE: Family = Family::new(
    "container_cpu_usage_seconds_total",
    "CPU time used, in seconds.",
    MetricType::Counter,
    &["cpu"],
);
pub(super) static CPU_USER: Family = Family::new(
    "container_cpu_user_seconds_total",
    "CPU time used in user mode, in seconds.",
    MetricType::Counter,
    &[],
);
pub(super) static CPU_SYSTEM: Family = Family::new(
    "container_cpu_system_seconds_total",
    "CPU time used in the kernel, in seconds.",
    MetricType::Counter,
    &[],
);
pub(super) static CFS_PERIODS: Family = Family::new(
    "container_cpu_cfs_periods_total",
    "Periods of CPU bandwidth control that have passed.",
    MetricType::Counter,
    &[],
);
pub(super) static CFS_THROTTLED_PERIODS: Family = Family::new(
    "container_cpu_cfs_throttled_periods_total",
    "Periods in which the container was throttled.",
    MetricType::Counter,
    &[],
);
pub(super) static CFS_THROTTLED: Family = Family::new(
    "container_cpu_cfs_throttled_seconds_total",
    "Time for which the container was throttled, in seconds.",
    MetricType::Counter,
    &[],
);
pub(super) static MEMORY_USAGE: Family = Family::new(
    "container_memory_usage_bytes",
    "Memory in use, page cache included.",
    MetricType::Gauge,
    &[],
);
pub(super) static MEMORY_WORKING_SET: Family = Family::new(
    "container_memory_working_set_bytes",
    "Memory in use without inactive page cache.",
    MetricType::Gauge,
    &[],
);
pub(super) static MEMORY_RSS: Family = Family::new(
    "container_memory_rss",
    "Anonymous memory in use, in bytes.",
    MetricType::Gauge,
    &[],
);
pub(super) static MEMORY_CACHE: Family = Family::new(
    "container_memory_cache",
    "Page cache, in bytes.",
    MetricType::Gauge,
    &[],
);
pub(super) static MEMORY_MAPPED_FILE: Family = Family::new(
    "container_memory_mapped_file",
    "Files mapped into memory, in bytes.",
    MetricType::Gauge,
    &[],
);
pub(super) static MEMORY_KERNEL: Family = Family::new(
    "container_memory_kernel_usage",
    "Memory that the kernel uses for the container, in bytes.",
    MetricType::Gauge,
    &[],
);
pub(super) static MEMORY_SWAP: Family = Family::new(
    "container_memory_swap",
    "Swap in use, in bytes.",
    MetricType::Gauge,
    &[],
);
pub(super) static MEMORY_MAX_USAGE: Family = Family::new(
    "container_memory_max_usage_bytes",
    "Most memory that was ever in use.",
    MetricType::Gauge,
    &[],
);
pub(super) static MEMORY_FAILCNT: Family = Family::new(
    "container_memory_failcnt",
    "How often memory use hit its limit.",
    MetricType::Counter,
    &[],
);
pub(super) static MEMORY_FAILURES: Family = Family::new(
    "container_memory_failures_total",
    "Page faults.",
    MetricType::Counter,
    &["failure_type", "scope"],
);
pub(super) static OOM_EVENTS: Family = Family::new(
    "container_oom_events_total",
    "Processes that the kernel killed for want of memory.",
    MetricType::Counter,
    &[],
);
pub(super) static FS_USAGE: Family = Family::new(
    "container_fs_usage_bytes",
    "Bytes in the container's writable layer.",
    MetricType::Gauge,
    &["device"],
);
pub(super) static FS_LIMIT: Family = Family::new(
    "container_fs_limit_bytes",
    "Size of the filesystem of writable layers.",
    MetricType::Gauge,
    &["device"],
);
pub(super) static FS_INODES: Family = Family::new(
    "container_fs_inodes_total",
    "Inodes of the filesystem of writable layers.",
    MetricType::Gauge,
    &["device"],
);
pub(super) static FS_INODES_FREE: Family = Family::new(
    "container_fs_inodes_free",
    "Free inodes of the filesystem of writable layers.",
    MetricType::Gauge,
    &["device"],
);
pub(super) static FS_READS_BYTES: Family = Family::new(
    "container_fs_reads_bytes_total",
    "Bytes read from a device.",
    MetricType::Counter,
    &["device"],
);
pub(super) static FS_READS: Family = Family::new(
    "container_fs_reads_total",
    "Reads from a device.",
    MetricType::Counter,
    &["device"],
);
pub(super) static FS_WRITES_BYTES: Family = Family::new(
    "container_fs_writes_bytes_total",
    "Bytes written to a device.",
    MetricType::Counter,
    &["device"],
);
pub(super) static FS_WRITES: Family = Family::new(
    "container_fs_writes_total",
    "Writes to a device.",
    MetricType::Counter,
    &["device"],
);
pub(super) static BLKIO: Family = Family::new(
    "container_blkio_device_usage_total",
    "Bytes moved from and to a device.",
    MetricType::Counter,
    &["device", "major", "minor", "operation"],
);
pub(super) static HUGETLB_USAGE: Family = Family::new(
    "container_hugetlb_usage_bytes",
    "Huge pages in use, in bytes.",
    MetricType::Gauge,
    &["pagesize"],
);
pub(super) static HUGETLB_MAX_USAGE: Family = Family::new(
    "container_hugetlb_max_usage_bytes",
    "Most huge pages that were ever in use, in bytes.",
    MetricType::Gauge,
    &["pagesize"],
);
pub(super) static PROCESSES: Family = Family::new(
    "container_processes",
    "Processes of the container.",
    MetricType::Gauge,
    &[],
);
pub(super) static THREADS: Family = Family::new(
    "container_threads",
    "Threads of the container.",
    MetricType::Gauge,
    &[],
);
pub(super) static THREADS_MAX: Family = Family::new(
    "container_threads_max",
    "Threads that the container may have; 0: no limit.",
    MetricType::Gauge,
    &[],
);
pub(super) static FILE_DESCRIPTORS: Family = Family::new(
    "container_file_descriptors",
    "File descriptors that are open.",
    MetricType::Gauge,
    &[],
);
pub(super) static SOCKETS: Family = Family::new(
    "container_sockets",
    "Sockets that are open.",
    MetricType::Gauge,
    &[],
);
pub(super) static ULIMITS_SOFT: Family = Family::new(
    "container_ulimits_soft",
    "Soft limits of the container's first process.",
    MetricType::Gauge,
    &["ulimit"],
);
pub(super) static SPEC_CPU_PERIOD: Family = Family::new(
    "container_spec_cpu_period",
    "Period of CPU bandwidth control, in microseconds.",
    MetricType::Gauge,
    &[],
);
pub(super) static SPEC_CPU_QUOTA: Family = Family::new(
    "container_spec_cpu_quota",
    "CPU time that may be used in a period, in microseconds.",
    MetricType::Gauge,
    &[],
);
pub(super) static SPEC_CPU_SHARES: Family = Family::new(
    "container_spec_cpu_shares",
    "Relative weight for CPU time.",
    MetricType::Gauge,
    &[],
);
pub(super) static SPEC_MEMORY_LIMIT: Family = Family::new(
    "container_spec_memory_limit_bytes",
    "Memory that may be used; 0: no limit.",
    MetricType::Gauge,
    &[],
);
pub(super) static SPEC_MEMORY_RESERVATION: Family = Family::new(
    "container_spec_memory_reservation_limit_bytes",
    "Memory that is not reclaimed; 0: none.",
    MetricType::Gauge,
    &[],
);
pub(super) static SPEC_MEMORY_SWAP_LIMIT: Family = Family::new(
    "container_spec_memory_swap_limit_bytes",
    "Memory and swap that may be used; 0: no limit.",
    MetricType::Gauge,
    &[],
);
pub(super) static START_TIME: Family = Family::new(
    "container_start_time_seconds",
    "When the container was started, in seconds since the epoch.",
    MetricType::Gauge,
    &[],
);
pub(super) static LAST_SEEN: Family = Family::new(
    "container_last_seen",
    "When the container was looked at, in seconds since the epoch.",
    MetricType::Gauge,
    &[],
);
pub(super) static RECEIVED_BYTES: Family = Family::new(
    "container_network_receive_bytes_total",
    "Bytes received.",
    MetricType::Counter,
    &["interface"],
);
pub(super) static RECEIVED_PACKETS: Family = Family::new(
    "container_network_receive_packets_total",
    "Packets received.",
    MetricType::Counter,
    &["interface"],
);
pub(super) static RECEIVED_DROPPED: Family = Family::new(
    "container_network_receive_packets_dropped_total",
    "Packets dropped on receipt.",
    MetricType::Counter,
    &["interface"],
);
pub(super) static RECEIVED_ERRORS: Family = Family::new(
    "container_network_receive_errors_total",
    "Errors on receipt.",
    MetricType::Counter,
    &["interface"],
);
pub(super) static SENT_BYTES: Family = Family::new(
    "container_network_transmit_bytes_total",
    "Bytes sent.",
    MetricType::Counter,
    &["interface"],
);
pub(super) static SENT_PACKETS: Family = Family::new(
    "container_network_transmit_packets_total",
    "Packets sent.",
    MetricType::Counter,
    &["interface"],
);
pub(super) static SENT_DROPPED: Family = Family::new(
    "container_network_transmit_packets_dropped_total",
    "Packets dropped before they were sent.",
    MetricType::Counter,
    &["interface"],
);
pub(super) static SENT_ERRORS: Family = Family::new(
    "container_network_transmit_errors_total",
    "Errors on sending.",
    MetricType::Counter,
    &["interface"],
);
pub(super) static CPU_WAITING: Family = Family::new(
    "container_pressure_cpu_waiting_seconds_total",
    "Time for which a task waited for the CPU, in seconds.",
    MetricType::Counter,
    &[],
);
pub(super) static CPU_STALLED: Family = Family::new(
    "container_pressure_cpu_stalled_seconds_total",
    "Time for which all tasks waited for the CPU, in seconds.",
    MetricType::Counter,
    &[],
);
pub(super) static MEMORY_WAITING: Family = Family::new(
    "container_pressure_memory_waiting_seconds_total",
    "Time for which a task waited for memory, in seconds.",
    MetricType::Counter,
    &[],
);
pub(super) static MEMORY_STALLED: Family = Family::new(
    "container_pressure_memory_stalled_seconds_total",
    "Time for which all tasks waited for memory, in seconds.",
    MetricType::Counter,
    &[],
);
pub(super) static IO_WAITING: Family = Family::new(
    "container_pressure_io_waiting_seconds_total",
    "Time for which a task waited for input or output, in seconds.",
    MetricType::Counter,
    &[],
);
pub(super) static IO_STALLED: Family = Family::new(
    "container_pressure_io_stalled_seconds_total",
    "Time for which all tasks waited for input or output, in seconds.",
    MetricType::Counter,
    &[],
);

static ALL: [&Family; 50] = [
    &CPU_USAGE,
    &CPU_USER,
    &CPU_SYSTEM,
    &CFS_PERIODS,
    &CFS_THROTTLED_PERIODS,
    &CFS_THROTTLED,
    &MEMORY_USAGE,
    &MEMORY_WORKING_SET,
    &MEMORY_RSS,
    &MEMORY_CACHE,
    &MEMORY_MAPPED_FILE,
    &MEMORY_KERNEL,
    &MEMORY_SWAP,
    &MEMORY_MAX_USAGE,
    &MEMORY_FAILCNT,
    &MEMORY_FAILURES,
    &OOM_EVENTS,
    &FS_USAGE,
    &FS_LIMIT,
    &FS_INODES,
    &FS_INODES_FREE,
    &FS_READS_BYTES,
    &FS_READS,
    &FS_WRITES_BYTES,
    &FS_WRITES,
    &BLKIO,
    &HUGETLB_USAGE,
    &HUGETLB_MAX_USAGE,
    &PROCESSES,
    &THREADS,
    &THREADS_MAX,
    &FILE_DESCRIPTORS,
    &SOCKETS,
    &ULIMITS_SOFT,
    &SPEC_CPU_PERIOD,
    &SPEC_CPU_QUOTA,
    &SPEC_CPU_SHARES,
    &SPEC_MEMORY_LIMIT,
    &SPEC_MEMORY_RESERVATION,
    &SPEC_MEMORY_SWAP_LIMIT,
    &START_TIME,
    &LAST_SEEN,
    &RECEIVED_BYTES,
    &RECEIVED_PACKETS,
    &RECEIVED_DROPPED,
    &RECEIVED_ERRORS,
    &SENT_BYTES,
    &SENT_PACKETS,
    &SENT_DROPPED,
    &SENT_ERRORS,
];

static PRESSURE: [&Family; 6] = [
    &CPU_WAITING,
    &CPU_STALLED,
    &MEMORY_WAITING,
    &MEMORY_STALLED,
    &IO_WAITING,
    &IO_STALLED,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::descriptors;

    #[test]
    fn every_metric_has_a_name_of_its_own_a_help_and_labels() {
        let all = descriptors(true);
        let names: BTreeSet<_> = all.iter().map(|d| d.name.as_str()).collect();
        assert_eq!((all.len(), names.len()), (56, 56));
        for descriptor in &all {
            assert!(!descriptor.help.is_empty() && descriptor.label_keys.len() >= 6);
        }
        let pressure = |d: &&carpel_proto::cri::MetricDescriptor| d.name.contains("pressure");
        assert_eq!(all.iter().filter(pressure).count(), 6);
        assert_eq!(descriptors(false).iter().filter(pressure).count(), 0);
        assert_eq!(descriptors(false).len(), 50);
    }
}
