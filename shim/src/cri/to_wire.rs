//! Domain types to CRI messages.

use std::collections::{BTreeMap, HashMap};

use carpel_images::engine::{FsUsage, Image};
use carpel_proto::cri;
use carpel_proto::state::container_record::Phase;
use carpel_spec::intent;

use crate::pod::{Change, ContainerView, Event, PodView};

pub(super) fn map(map: &BTreeMap<String, String>) -> HashMap<String, String> {
    map.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

pub(super) fn pod_metadata(config: &intent::PodConfig) -> cri::PodSandboxMetadata {
    cri::PodSandboxMetadata {
        name: config.name.clone(),
        uid: config.uid.clone(),
        namespace: config.namespace.clone(),
        attempt: config.attempt,
    }
}

pub(super) fn pod_state(pod: &PodView) -> cri::PodSandboxState {
    if pod.ready {
        cri::PodSandboxState::SandboxReady
    } else {
        cri::PodSandboxState::SandboxNotready
    }
}

pub(super) fn pod(pod: &PodView) -> cri::PodSandbox {
    cri::PodSandbox {
        id: pod.id.clone(),
        metadata: Some(pod_metadata(&pod.config)),
        state: pod_state(pod).into(),
        created_at: pod.created_at,
        labels: map(&pod.config.labels),
        annotations: map(&pod.config.annotations),
        runtime_handler: pod.runtime_handler.clone(),
    }
}

pub(super) fn pod_status(pod: &PodView) -> cri::PodSandboxStatus {
    let mut addresses = pod.addresses.iter().cloned();
    let network = cri::PodSandboxNetworkStatus {
        ip: addresses.next().unwrap_or_default(),
        additional_ips: addresses.map(|ip| cri::PodIp { ip }).collect(),
    };
    cri::PodSandboxStatus {
        id: pod.id.clone(),
        metadata: Some(pod_metadata(&pod.config)),
        state: pod_state(pod).into(),
        created_at: pod.created_at,
        network: Some(network),
        linux: Some(cri::LinuxPodSandboxStatus {
            namespaces: Some(cri::Namespace {
                options: Some(namespaces(&pod.config.security.namespaces)),
            }),
        }),
        labels: map(&pod.config.labels),
        annotations: map(&pod.config.annotations),
        runtime_handler: pod.runtime_handler.clone(),
    }
}

fn namespaces(namespaces: &intent::Namespaces) -> cri::NamespaceOption {
    let mapping = |m: &intent::IdMapping| cri::IdMapping {
        host_id: m.host_id,
        container_id: m.container_id,
        length: m.length,
    };
    cri::NamespaceOption {
        network: mode(namespaces.network).into(),
        pid: mode(namespaces.pid).into(),
        ipc: mode(namespaces.ipc).into(),
        target_id: namespaces.target_id.clone(),
        userns_options: namespaces.user.as_ref().map(|user| cri::UserNamespace {
            mode: mode(user.mode).into(),
            uids: user.uids.iter().map(mapping).collect(),
            gids: user.gids.iter().map(mapping).collect(),
        }),
    }
}

fn mode(mode: intent::NamespaceMode) -> cri::NamespaceMode {
    match mode {
        intent::NamespaceMode::Pod => cri::NamespaceMode::Pod,
        intent::NamespaceMode::Container => cri::NamespaceMode::Container,
        intent::NamespaceMode::Node => cri::NamespaceMode::Node,
        intent::NamespaceMode::Target => cri::NamespaceMode::Target,
    }
}

/// A container whose creation or removal is under way has not run, or has ended.
pub(super) fn container_state(phase: Phase, unknown: bool) -> cri::ContainerState {
    match phase {
        _ if unknown => cri::ContainerState::ContainerUnknown,
        Phase::Creating | Phase::Created => cri::ContainerState::ContainerCreated,
        Phase::Running => cri::ContainerState::ContainerRunning,
        Phase::Exited | Phase::Removing => cri::ContainerState::ContainerExited,
    }
}

pub(super) fn container_metadata(config: &intent::ContainerConfig) -> cri::ContainerMetadata {
    cri::ContainerMetadata {
        name: config.name.clone(),
        attempt: config.attempt,
    }
}

fn image_spec(container: &ContainerView) -> cri::ImageSpec {
    cri::ImageSpec {
        image: container.status.image_name.clone(),
        user_specified_image: container.config.user_specified_image.clone(),
        ..cri::ImageSpec::default()
    }
}

pub(super) fn container(container: &ContainerView) -> cri::Container {
    let status = &container.status;
    cri::Container {
        id: container.id.clone(),
        pod_sandbox_id: container.pod_id.clone(),
        metadata: Some(container_metadata(&container.config)),
        image: Some(image_spec(container)),
        image_ref: status.image_id.clone(),
        state: container_state(status.phase, status.unknown).into(),
        created_at: status.created_at,
        labels: map(&container.config.labels),
        annotations: map(&container.config.annotations),
        image_id: status.image_id.clone(),
    }
}

pub(super) fn container_status(container: &ContainerView) -> cri::ContainerStatus {
    let status = &container.status;
    cri::ContainerStatus {
        id: container.id.clone(),
        metadata: Some(container_metadata(&container.config)),
        state: container_state(status.phase, status.unknown).into(),
        created_at: status.created_at,
        started_at: status.started_at,
        finished_at: status.finished_at,
        exit_code: status.exit_code,
        image: Some(image_spec(container)),
        image_ref: status.image_id.clone(),
        reason: status.reason.clone(),
        message: status.message.clone(),
        labels: map(&container.config.labels),
        annotations: map(&container.config.annotations),
        mounts: container.config.mounts.iter().map(mount).collect(),
        log_path: status.log_path.clone(),
        resources: Some(cri::ContainerResources {
            linux: Some(resources(&container.resources)),
            windows: None,
        }),
        image_id: status.image_id.clone(),
        user: Some(cri::ContainerUser {
            linux: Some(cri::LinuxContainerUser {
                uid: status.uid.into(),
                gid: status.gid.into(),
                supplemental_groups: status.groups.iter().copied().map(i64::from).collect(),
            }),
        }),
        stop_signal: signal(status.stop_signal).into(),
    }
}

pub(super) fn event(event: &Event) -> cri::ContainerEventResponse {
    let change = match event.change {
        Change::Created => cri::ContainerEventType::ContainerCreatedEvent,
        Change::Started => cri::ContainerEventType::ContainerStartedEvent,
        Change::Stopped => cri::ContainerEventType::ContainerStoppedEvent,
        Change::Deleted => cri::ContainerEventType::ContainerDeletedEvent,
    };
    cri::ContainerEventResponse {
        container_id: event.subject.clone(),
        container_event_type: change.into(),
        created_at: event.at_ns,
        pod_sandbox_status: Some(pod_status(&event.pod)),
        containers_statuses: event.containers.iter().map(container_status).collect(),
    }
}

/// The CRI value of a signal number: by name, for the CRI counts alphabetically.
fn signal(number: i32) -> cri::Signal {
    (1..=65)
        .filter_map(|value| cri::Signal::try_from(value).ok())
        .find(|signal| {
            let name = signal.as_str_name().trim_start_matches("SIGNAL_");
            let name = name.replace("MINPLUS", "MIN+").replace("MAXMINUS", "MAX-");
            carpel_spec::parse_signal(&name).is_ok_and(|n| n == number)
        })
        .unwrap_or(cri::Signal::RuntimeDefault)
}

fn mount(mount: &intent::Mount) -> cri::Mount {
    let propagation = match mount.propagation {
        intent::Propagation::Private => cri::MountPropagation::PropagationPrivate,
        intent::Propagation::HostToContainer => cri::MountPropagation::PropagationHostToContainer,
        intent::Propagation::Bidirectional => cri::MountPropagation::PropagationBidirectional,
    };
    cri::Mount {
        container_path: mount.container_path.clone(),
        host_path: mount.host_path.clone(),
        readonly: mount.readonly,
        selinux_relabel: mount.selinux_relabel,
        propagation: propagation.into(),
        recursive_read_only: mount.recursive_read_only,
        mount_options: [
            ("noexec", mount.restrict.noexec),
            ("nodev", mount.restrict.nodev),
            ("nosuid", mount.restrict.nosuid),
        ]
        .iter()
        .filter(|(_, on)| *on)
        .map(|(option, _)| (*option).to_owned())
        .collect(),
        ..cri::Mount::default()
    }
}

fn resources(resources: &intent::Resources) -> cri::LinuxContainerResources {
    cri::LinuxContainerResources {
        cpu_period: resources.cpu_period,
        cpu_quota: resources.cpu_quota,
        cpu_shares: resources.cpu_shares,
        memory_limit_in_bytes: resources.memory_limit,
        oom_score_adj: resources.oom_score_adj,
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        hugepage_limits: resources
            .hugepages
            .iter()
            .map(|l| cri::HugepageLimit {
                page_size: l.page_size.clone(),
                limit: l.limit,
            })
            .collect(),
        unified: map(&resources.unified),
        memory_swap_limit_in_bytes: resources.memory_swap_limit,
    }
}

pub(super) fn number(value: u64) -> Option<cri::UInt64Value> {
    Some(cri::UInt64Value { value })
}

pub(super) fn image(image: &Image) -> cri::Image {
    let user = image.user.split(':').next().unwrap_or_default();
    let uid = numeric(user).map(|value| cri::Int64Value { value });
    cri::Image {
        id: image.id.0.clone(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size,
        username: if uid.is_some() {
            String::new()
        } else {
            user.to_owned()
        },
        uid,
        spec: Some(cri::ImageSpec {
            image: image.id.0.clone(),
            ..cri::ImageSpec::default()
        }),
        pinned: image.pinned,
    }
}

/// An id that a container of the image could have. Whatever else a client reads as a
/// name, of which it knows that it cannot tell who that is.
fn numeric(user: &str) -> Option<i64> {
    let digits = !user.is_empty() && user.bytes().all(|byte| byte.is_ascii_digit());
    let value = user.parse::<i32>().ok().filter(|_| digits)?;
    Some(value.into())
}

pub(super) fn filesystem(usage: &FsUsage, timestamp: i64) -> cri::FilesystemUsage {
    cri::FilesystemUsage {
        timestamp,
        fs_id: Some(cri::FilesystemIdentifier {
            mountpoint: usage.path.display().to_string(),
        }),
        used_bytes: number(usage.used.bytes),
        inodes_used: number(usage.used.inodes),
    }
}

#[cfg(test)]
mod tests {
    use carpel_proto::cri;

    #[test]
    fn only_plain_ids_in_range_are_told_as_numbers() {
        assert_eq!(super::numeric("1000"), Some(1000));
        assert_eq!(super::numeric("007"), Some(7));
        for name in [
            "",
            "+1",
            "-1",
            "4294967296",
            "2147483648",
            "0x0",
            "\u{661}",
            " 1",
            "root",
        ] {
            assert_eq!(super::numeric(name), None, "{name:?}");
        }
    }

    #[test]
    fn signals_come_back_by_name() {
        assert_eq!(super::signal(15), cri::Signal::Sigterm);
        assert_eq!(super::signal(9), cri::Signal::Sigkill);
        assert_eq!(super::signal(37), cri::Signal::Sigrtminplus3);
        assert_eq!(super::signal(0), cri::Signal::RuntimeDefault);
    }
}
