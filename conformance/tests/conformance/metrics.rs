//! What monitoring reads through the kubelet. The first two tests ask for what the
//! newer critest asks for.

use std::collections::{BTreeMap, BTreeSet};

use carpel_conformance::{Node, spec};
use carpel_proto::cri;

use crate::checks::{Outcome, Pod, node};
use crate::crictl::json;
use crate::whole;

const EXPECTED: [&str; 56] = [
    "container_blkio_device_usage_total",
    "container_cpu_cfs_periods_total",
    "container_cpu_cfs_throttled_periods_total",
    "container_cpu_cfs_throttled_seconds_total",
    "container_cpu_system_seconds_total",
    "container_cpu_usage_seconds_total",
    "container_cpu_user_seconds_total",
    "container_file_descriptors",
    "container_fs_inodes_free",
    "container_fs_inodes_total",
    "container_fs_limit_bytes",
    "container_fs_reads_bytes_total",
    "container_fs_reads_total",
    "container_fs_usage_bytes",
    "container_fs_writes_bytes_total",
    "container_fs_writes_total",
    "container_hugetlb_max_usage_bytes",
    "container_hugetlb_usage_bytes",
    "container_last_seen",
    "container_memory_cache",
    "container_memory_failcnt",
    "container_memory_failures_total",
    "container_memory_kernel_usage",
    "container_memory_mapped_file",
    "container_memory_max_usage_bytes",
    "container_memory_rss",
    "container_memory_swap",
    "container_memory_usage_bytes",
    "container_memory_working_set_bytes",
    "container_network_receive_bytes_total",
    "container_network_receive_errors_total",
    "container_network_receive_packets_dropped_total",
    "container_network_receive_packets_total",
    "container_network_transmit_bytes_total",
    "container_network_transmit_errors_total",
    "container_network_transmit_packets_dropped_total",
    "container_network_transmit_packets_total",
    "container_oom_events_total",
    "container_pressure_cpu_stalled_seconds_total",
    "container_pressure_cpu_waiting_seconds_total",
    "container_pressure_io_stalled_seconds_total",
    "container_pressure_io_waiting_seconds_total",
    "container_pressure_memory_stalled_seconds_total",
    "container_pressure_memory_waiting_seconds_total",
    "container_processes",
    "container_sockets",
    "container_spec_cpu_period",
    "container_spec_cpu_quota",
    "container_spec_cpu_shares",
    "container_spec_memory_limit_bytes",
    "container_spec_memory_reservation_limit_bytes",
    "container_spec_memory_swap_limit_bytes",
    "container_start_time_seconds",
    "container_threads",
    "container_threads_max",
    "container_ulimits_soft",
];

/// Need not be described.
const UNIMPLEMENTED: [&str; 11] = [
    "container_hugetlb_max_usage_bytes",
    "container_hugetlb_usage_bytes",
    "container_pressure_cpu_stalled_seconds_total",
    "container_pressure_cpu_waiting_seconds_total",
    "container_pressure_io_stalled_seconds_total",
    "container_pressure_io_waiting_seconds_total",
    "container_pressure_memory_stalled_seconds_total",
    "container_pressure_memory_waiting_seconds_total",
    "container_spec_cpu_quota",
    "container_spec_memory_reservation_limit_bytes",
    "container_ulimits_soft",
];

/// Need not have a value, for a container may not have touched a device.
const OPTIONAL: [&str; 5] = [
    "container_blkio_device_usage_total",
    "container_fs_reads_bytes_total",
    "container_fs_reads_total",
    "container_fs_writes_bytes_total",
    "container_fs_writes_total",
];

async fn descriptors(node: &Node) -> anyhow::Result<Vec<cri::MetricDescriptor>> {
    let request = cri::ListMetricDescriptorsRequest {};
    let mut runtime = whole::runtime(node).await?;
    let reply = runtime.list_metric_descriptors(request);
    Ok(reply.await?.into_inner().descriptors)
}

async fn metrics(node: &Node, pod: &str) -> anyhow::Result<cri::PodSandboxMetrics> {
    let request = cri::ListPodSandboxMetricsRequest {};
    let mut runtime = whole::runtime(node).await?;
    let reply = runtime.list_pod_sandbox_metrics(request);
    let all = reply.await?.into_inner().pod_metrics;
    let found = all.into_iter().find(|found| found.pod_sandbox_id == pod);
    found.ok_or_else(|| anyhow::anyhow!("no metrics of pod {pod}"))
}

/// By name, the first one that has labels.
fn by_name(metrics: &cri::PodSandboxMetrics) -> BTreeMap<&str, &cri::Metric> {
    let of_containers = metrics.container_metrics.iter().flat_map(|c| &c.metrics);
    let mut found = BTreeMap::new();
    for metric in metrics.metrics.iter().chain(of_containers) {
        if !metric.label_values.is_empty() {
            found.entry(metric.name.as_str()).or_insert(metric);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_described() -> Outcome {
    let node = node().await?;
    let descriptors = descriptors(&node).await?;
    for descriptor in &descriptors {
        assert!(!descriptor.help.is_empty(), "{descriptor:?}");
        assert!(!descriptor.label_keys.is_empty(), "{descriptor:?}");
        assert!(
            EXPECTED.contains(&descriptor.name.as_str()),
            "{descriptor:?}"
        );
    }
    let names: BTreeSet<_> = descriptors.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names.len(), descriptors.len());
    for name in EXPECTED {
        assert!(
            names.contains(name) || UNIMPLEMENTED.contains(&name),
            "{name}"
        );
    }
    let shown = json(&node, &["metricdescs"])?;
    let shown = shown["descriptors"].as_array().expect("descriptors");
    assert_eq!(shown.len(), descriptors.len());
    node.finish().await
}

/// The container of critest's test, which writes ten files.
fn limited() -> k8s_cri::v1::ContainerConfig {
    let mut config = spec::sleeper("limited");
    let resources = spec::resources(&mut config);
    resources.cpu_period = 100_000;
    resources.cpu_quota = 20_000;
    resources.cpu_shares = 1024;
    resources.memory_limit_in_bytes = 64 << 20;
    resources.memory_swap_limit_in_bytes = 64 << 20;
    config
}

const FILES: &str = "mkdir -p /var/lib/mydisktest && cd /var/lib/mydisktest && \
                     for i in 1 2 3 4 5 6 7 8 9 10; do echo $i > file$i; done && sync";

#[tokio::test(flavor = "multi_thread")]
async fn every_described_metric_is_told_with_all_its_labels() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("metrics")).await?;
    let id = pod.start(&node, &limited()).await?;
    node.cri().output(&id, &["/bin/sh", "-c", FILES]).await?;
    let told = metrics(&node, &pod.id).await?;
    let found = by_name(&told);
    let exempt = |name: &str| OPTIONAL.contains(&name) || UNIMPLEMENTED.contains(&name);
    for name in EXPECTED {
        assert!(
            found.contains_key(name) || exempt(name),
            "{name} is not told"
        );
    }
    for descriptor in descriptors(&node).await? {
        match found.get(descriptor.name.as_str()) {
            Some(metric) => {
                assert_eq!(metric.label_values.len(), descriptor.label_keys.len());
            }
            None => assert!(exempt(&descriptor.name), "{descriptor:?} is not told"),
        }
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_those_of_the_container() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("values")).await?;
    let mut config = limited();
    let script = "head -c 20000000 /dev/zero | tail -c 20000000 > /dev/null; sleep 0.2; \
                  head -c 3000000 /dev/zero > /file; trap 'exit 0' TERM; sleep 100000 & wait";
    config.command = ["/bin/sh", "-c", script].map(str::to_owned).into();
    let id = pod.start(&node, &config).await?;
    node.cri()
        .output(
            &id,
            &[
                "/bin/sh",
                "-c",
                "while [ ! -s /file ]; do sleep 0.1; done; sleep 0.3",
            ],
        )
        .await?;
    let told = metrics(&node, &pod.id).await?;
    let found = by_name(&told);
    let value = |name: &str| found[name].value.as_ref().map_or(0, |value| value.value);
    for (name, expected) in [
        ("container_spec_cpu_period", 100_000),
        ("container_spec_cpu_quota", 20_000),
        ("container_spec_cpu_shares", 1024),
        ("container_spec_memory_limit_bytes", 64 << 20),
        ("container_spec_memory_swap_limit_bytes", 64 << 20),
        ("container_processes", 2),
        ("container_threads", 2),
        ("container_oom_events_total", 0),
    ] {
        assert_eq!(value(name), expected, "{name}");
    }
    // tail held 20 MB for a moment.
    let most = value("container_memory_max_usage_bytes");
    assert!((15 << 20..64 << 20).contains(&most), "{most}");
    let now = value("container_memory_usage_bytes");
    assert!(now > 0 && now <= most, "{now} of {most}");
    assert!(value("container_memory_working_set_bytes") <= now);
    assert!(value("container_fs_usage_bytes") >= 3_000_000);
    assert!(value("container_fs_inodes_total") > value("container_fs_inodes_free"));
    assert!(value("container_file_descriptors") >= 3);
    assert!(value("container_cpu_cfs_periods_total") > 0);
    let (start, seen) = (
        value("container_start_time_seconds"),
        value("container_last_seen"),
    );
    assert!(
        start > 1_700_000_000 && (start..start + 600).contains(&seen),
        "{start} {seen}"
    );

    let labels: BTreeSet<&str> = found["container_processes"]
        .label_values
        .iter()
        .map(String::as_str)
        .collect();
    for label in ["default", "values", "limited", spec::BUSYBOX, &*id] {
        assert!(labels.contains(label), "{label} is not in {labels:?}");
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_is_told_for_the_pod_by_interface() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("traffic")).await?;
    let id = pod.start(&node, &spec::sleeper("traffic")).await?;
    let read = async || -> anyhow::Result<u64> {
        let told = metrics(&node, &pod.id).await?;
        let name = "container_network_transmit_bytes_total";
        let sent = told.metrics.iter().find(|metric| {
            metric.name == name && metric.label_values.last().is_some_and(|v| v == "eth0")
        });
        let value = sent.and_then(|metric| metric.value);
        Ok(value.map_or(0, |value| value.value))
    };
    let before = read().await?;
    let ping = ["ping", "-c", "2", "-i", "0.2", "-W", "1", "10.77.0.1"];
    node.cri().output(&id, &ping).await?;
    assert!(read().await? > before);

    let mut config = spec::pod("host");
    spec::pod_security(&mut config).namespace_options = Some(spec::namespaces(
        k8s_cri::v1::NamespaceMode::Node,
        k8s_cri::v1::NamespaceMode::Container,
        k8s_cri::v1::NamespaceMode::Pod,
    ));
    let host = Pod::run(&node, config).await?;
    host.start(&node, &spec::sleeper("inside")).await?;
    let told = metrics(&node, &host.id).await?;
    assert!(told.metrics.is_empty(), "{:?}", told.metrics);
    assert_eq!(told.container_metrics.len(), 1);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_streamed_for_the_pods_that_are_ready() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("ready")).await?;
    pod.start(&node, &spec::sleeper("inside")).await?;
    let over = Pod::run(&node, spec::pod("over")).await?;
    node.cri().stop_pod(&over.id).await?;
    let mut runtime = whole::runtime(&node).await?;
    let request = cri::StreamPodSandboxMetricsRequest {};
    let mut stream = runtime
        .stream_pod_sandbox_metrics(request)
        .await?
        .into_inner();
    let mut all = Vec::new();
    while let Some(message) = stream.message().await? {
        all.extend(message.pod_sandbox_metrics);
    }
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].pod_sandbox_id, pod.id);
    let shown = json(&node, &["metricsp"])?;
    assert_eq!(shown["podMetrics"][0]["podSandboxId"], *pod.id, "{shown}");
    node.finish().await
}
