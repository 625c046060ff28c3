//! From a [`Pod`] to the messages of the CRI: a pure mapping, as the kubelet makes it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use carpel_proto::cri;

use super::expand;
use super::model::{
    Container, Dns, DnsPolicy, Pod, Profile, Profiles, Propagation, Protocol, SeLinux, VolumeMount,
};
use super::resources;
use crate::keys;

/// Hidden from a container unless it is privileged: the kubelet's list.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What the mapping needs to know beyond the manifest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) uid: String,
    pub(crate) log_directory: PathBuf,
    /// Where on the host each volume is.
    pub(crate) volumes: BTreeMap<String, PathBuf>,
    /// The same for a (volume, subPath), resolved.
    pub(crate) sub_paths: BTreeMap<(String, String), PathBuf>,
    /// What the host's resolv.conf says.
    pub(crate) host_dns: Dns,
    /// Memory of the node in bytes.
    pub(crate) memory: i64,
}

/// What the image says about its user, and the name that the store gave it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ImageFacts {
    pub(crate) id: String,
    pub(crate) uid: Option<i64>,
    pub(crate) username: String,
}

/// The sandbox of a pod.
pub(crate) fn sandbox(pod: &Pod, facts: &Facts) -> cri::PodSandboxConfig {
    let mut labels: HashMap<_, _> = pod.labels.clone().into_iter().collect();
    labels.extend(pod_labels(pod, facts));
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: pod.name.value.clone(),
            uid: facts.uid.clone(),
            namespace: pod.namespace.clone(),
            attempt: 0,
        }),
        hostname: pod.hostname.clone().unwrap_or_default(),
        log_directory: facts.log_directory.to_string_lossy().into_owned(),
        dns_config: dns(&pod.dns, &facts.host_dns),
        port_mappings: pod
            .containers
            .iter()
            .flat_map(|container| ports(pod, container))
            .collect(),
        labels,
        annotations: pod.annotations.clone().into_iter().collect(),
        linux: Some(cri::LinuxPodSandboxConfig {
            security_context: Some(sandbox_security(pod)),
            sysctls: pod.security.sysctls.clone().into_iter().collect(),
            ..cri::LinuxPodSandboxConfig::default()
        }),
        windows: None,
    }
}

fn pod_labels(pod: &Pod, facts: &Facts) -> [(String, String); 3] {
    [
        (keys::POD_NAME.to_owned(), pod.name.value.clone()),
        (keys::POD_NAMESPACE.to_owned(), pod.namespace.clone()),
        (keys::POD_UID.to_owned(), facts.uid.clone()),
    ]
}

/// `None` lets the runtime use the host's own resolv.conf.
fn dns(dns: &Dns, host: &Dns) -> Option<cri::DnsConfig> {
    let host = match dns.policy {
        DnsPolicy::Default if dns.is_empty() => return None,
        DnsPolicy::Default => host.clone(),
        DnsPolicy::None => Dns::default(),
    };
    let join = |first: Vec<String>, more: &[String]| {
        let mut all: Vec<String> = Vec::new();
        for entry in first.iter().chain(more) {
            if !all.contains(entry) {
                all.push(entry.clone());
            }
        }
        all
    };
    Some(cri::DnsConfig {
        servers: join(host.servers, &dns.servers),
        searches: join(host.searches, &dns.searches),
        options: join(host.options, &dns.options),
    })
}

fn ports(pod: &Pod, container: &Container) -> Vec<cri::PortMapping> {
    if pod.host_network {
        return Vec::new();
    }
    let ports = container.ports.iter().map(|port| cri::PortMapping {
        protocol: match port.protocol {
            Protocol::Tcp => cri::Protocol::Tcp,
            Protocol::Udp => cri::Protocol::Udp,
            Protocol::Sctp => cri::Protocol::Sctp,
        }
        .into(),
        container_port: port.container,
        host_port: port.host.as_ref().map_or(0, |port| port.value),
        host_ip: port.host_ip.clone(),
    });
    ports.collect()
}

fn namespaces(pod: &Pod) -> cri::NamespaceOption {
    use cri::NamespaceMode::{Container, Node, Pod as Shared};
    let shared = |host: bool| if host { Node } else { Shared };
    let pid = match (pod.host_pid, pod.share_processes) {
        (true, _) => Node,
        (false, true) => Shared,
        (false, false) => Container,
    };
    cri::NamespaceOption {
        network: shared(pod.host_network).into(),
        pid: pid.into(),
        ipc: shared(pod.host_ipc).into(),
        target_id: String::new(),
        userns_options: None,
    }
}

fn sandbox_security(pod: &Pod) -> cri::LinuxSandboxSecurityContext {
    let identity = pod.security.identity;
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        selinux_options: pod.security.profiles.selinux.as_ref().map(selinux),
        run_as_user: identity.user.map(id),
        // A group without a user means nothing to the CRI.
        run_as_group: identity.user.and(identity.group).map(id),
        supplemental_groups: pod.security.supplemental_groups.clone(),
        supplemental_groups_policy: groups_policy(pod).into(),
        privileged: pod
            .all_containers()
            .any(|container| container.security.privileged),
        seccomp: Some(profile(&Profile::RuntimeDefault)),
        ..cri::LinuxSandboxSecurityContext::default()
    }
}

/// One container of a pod.
pub(crate) fn container(
    pod: &Pod,
    container: &Container,
    facts: &Facts,
    image: &ImageFacts,
) -> cri::ContainerConfig {
    let name = &container.name.value;
    let env = expand::variables(&container.env);
    let expanded = |words: &[String]| {
        let expand = |word: &String| expand::expand(word, |name| expand::find(&env, name));
        words.iter().map(expand).collect::<Vec<_>>()
    };
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: name.clone(),
            attempt: 0,
        }),
        image: Some(cri::ImageSpec {
            image: image.id.clone(),
            user_specified_image: container.image.clone(),
            ..cri::ImageSpec::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone(),
        mounts: container
            .mounts
            .iter()
            .filter_map(|mount| self::mount(mount, facts))
            .collect(),
        labels: pod_labels(pod, facts)
            .into_iter()
            .chain([(keys::CONTAINER_NAME.to_owned(), name.clone())])
            .collect(),
        annotations: annotations(pod, container),
        log_path: format!("{name}/0.log"),
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        tty: container.tty,
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources::convert(&container.resources, facts.memory)),
            security_context: Some(security(pod, container, image)),
        }),
        envs: env
            .into_iter()
            .map(|(key, value)| cri::KeyValue {
                key,
                value: value.into_bytes(),
            })
            .collect(),
        ..cri::ContainerConfig::default()
    }
}

fn annotations(pod: &Pod, container: &Container) -> HashMap<String, String> {
    let mut annotations = HashMap::from([(keys::RESTARTS.to_owned(), "0".to_owned())]);
    if let Some(seconds) = pod.grace_seconds {
        annotations.insert(keys::GRACE.to_owned(), seconds.to_string());
    }
    if pod
        .init_containers
        .iter()
        .any(|init| init.name.value == container.name.value)
    {
        annotations.insert(keys::INIT.to_owned(), "true".to_owned());
    }
    annotations
}

/// `None` for a volume without a place, which validation has ruled out.
fn mount(mount: &VolumeMount, facts: &Facts) -> Option<cri::Mount> {
    let volume = &mount.volume.value;
    let host: &Path = match &mount.sub_path {
        Some(sub_path) => facts
            .sub_paths
            .get(&(volume.clone(), sub_path.value.clone()))?,
        None => facts.volumes.get(volume)?,
    };
    Some(cri::Mount {
        container_path: mount.path.value.clone(),
        host_path: host.to_string_lossy().into_owned(),
        readonly: mount.read_only,
        recursive_read_only: mount.recursive_read_only,
        propagation: match mount.propagation {
            Propagation::None => cri::MountPropagation::PropagationPrivate,
            Propagation::HostToContainer => cri::MountPropagation::PropagationHostToContainer,
            Propagation::Bidirectional => cri::MountPropagation::PropagationBidirectional,
        }
        .into(),
        ..cri::Mount::default()
    })
}

fn security(
    pod: &Pod,
    container: &Container,
    image: &ImageFacts,
) -> cri::LinuxContainerSecurityContext {
    let own = &container.security;
    let identity = own.identity.or(pod.security.identity);
    let user = identity.user.or(image.uid);
    let Profiles {
        seccomp,
        apparmor,
        selinux,
    } = merged(&own.profiles, &pod.security.profiles);
    let bare = own.privileged || own.unmasked_proc;
    let list = |paths: &[&str]| {
        paths
            .iter()
            .filter(|_| !bare)
            .map(|&p| p.to_owned())
            .collect()
    };
    cri::LinuxContainerSecurityContext {
        capabilities: Some(cri::Capability {
            add_capabilities: own.add_capabilities.clone(),
            drop_capabilities: own.drop_capabilities.clone(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged: own.privileged,
        namespace_options: Some(namespaces(pod)),
        selinux_options: selinux.as_ref().map(self::selinux),
        run_as_user: user.map(id),
        run_as_username: if user.is_none() {
            image.username.clone()
        } else {
            String::new()
        },
        run_as_group: identity.group.map(id),
        readonly_rootfs: own.read_only_root,
        supplemental_groups: pod.security.supplemental_groups.clone(),
        supplemental_groups_policy: groups_policy(pod).into(),
        no_new_privs: own.allow_escalation == Some(false),
        masked_paths: list(&MASKED),
        readonly_paths: list(&READ_ONLY),
        seccomp: match seccomp {
            Some(given) => Some(profile(&given)),
            None if own.privileged => None,
            None => Some(profile(&Profile::RuntimeDefault)),
        },
        apparmor: apparmor.as_ref().map(profile),
        ..cri::LinuxContainerSecurityContext::default()
    }
}

fn merged(own: &Profiles, pod: &Profiles) -> Profiles {
    Profiles {
        seccomp: own.seccomp.clone().or_else(|| pod.seccomp.clone()),
        apparmor: own.apparmor.clone().or_else(|| pod.apparmor.clone()),
        selinux: own.selinux.clone().or_else(|| pod.selinux.clone()),
    }
}

fn groups_policy(pod: &Pod) -> cri::SupplementalGroupsPolicy {
    if pod.security.strict_groups {
        cri::SupplementalGroupsPolicy::Strict
    } else {
        cri::SupplementalGroupsPolicy::Merge
    }
}

fn id(value: i64) -> cri::Int64Value {
    cri::Int64Value { value }
}

fn profile(profile: &Profile) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let (kind, file) = match profile {
        Profile::RuntimeDefault => (ProfileType::RuntimeDefault, ""),
        Profile::Unconfined => (ProfileType::Unconfined, ""),
        Profile::Localhost(file) => (ProfileType::Localhost, file.as_str()),
    };
    cri::SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: file.to_owned(),
    }
}

fn selinux(selinux: &SeLinux) -> cri::SeLinuxOption {
    cri::SeLinuxOption {
        user: selinux.user.clone(),
        role: selinux.role.clone(),
        r#type: selinux.kind.clone(),
        level: selinux.level.clone(),
    }
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
