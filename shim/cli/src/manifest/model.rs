//! A Pod manifest once it is read: only what carpel serves, every value checked.

use std::collections::BTreeMap;

use super::report::Placed;

/// One Pod of a manifest.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) name: Placed<String>,
    pub(crate) namespace: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) hostname: Option<String>,
    pub(crate) host_network: bool,
    pub(crate) host_pid: bool,
    pub(crate) host_ipc: bool,
    pub(crate) share_processes: bool,
    pub(crate) grace_seconds: Option<i64>,
    pub(crate) dns: Dns,
    pub(crate) security: PodSecurity,
    pub(crate) volumes: Vec<Volume>,
    pub(crate) init_containers: Vec<Container>,
    pub(crate) containers: Vec<Container>,
}

impl Pod {
    /// Init containers first, as they are started.
    pub(crate) fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.init_containers.iter().chain(&self.containers)
    }
}

/// Where names are looked up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dns {
    pub(crate) policy: DnsPolicy,
    pub(crate) servers: Vec<String>,
    pub(crate) searches: Vec<String>,
    pub(crate) options: Vec<String>,
}

impl Dns {
    pub(crate) fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.searches.is_empty() && self.options.is_empty()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum DnsPolicy {
    /// As the host does.
    #[default]
    Default,
    /// Only what `dnsConfig` says.
    None,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct PodSecurity {
    pub(crate) identity: Identity,
    pub(crate) supplemental_groups: Vec<i64>,
    pub(crate) strict_groups: bool,
    pub(crate) sysctls: BTreeMap<String, String>,
    pub(crate) profiles: Profiles,
}

/// Who a container runs as; what the pod says holds where the container says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) user: Option<i64>,
    pub(crate) group: Option<i64>,
    pub(crate) non_root: Option<bool>,
}

impl Identity {
    pub(crate) fn or(self, pod: Self) -> Self {
        Self {
            user: self.user.or(pod.user),
            group: self.group.or(pod.group),
            non_root: self.non_root.or(pod.non_root),
        }
    }
}

/// Confinement by the kernel's security modules.
#[derive(Clone, Debug, Default)]
pub(crate) struct Profiles {
    pub(crate) seccomp: Option<Profile>,
    pub(crate) apparmor: Option<Profile>,
    pub(crate) selinux: Option<SeLinux>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    RuntimeDefault,
    Unconfined,
    Localhost(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeLinux {
    pub(crate) user: String,
    pub(crate) role: String,
    pub(crate) kind: String,
    pub(crate) level: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Volume {
    pub(crate) name: Placed<String>,
    pub(crate) source: VolumeSource,
}

#[derive(Clone, Debug)]
pub(crate) enum VolumeSource {
    EmptyDir,
    HostPath {
        path: Placed<String>,
        check: HostPathCheck,
    },
}

/// What must be at a hostPath before the pod starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum HostPathCheck {
    #[default]
    None,
    DirectoryOrCreate,
    Directory,
    FileOrCreate,
    File,
    Socket,
    CharDevice,
    BlockDevice,
}

#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) name: Placed<String>,
    pub(crate) image: String,
    pub(crate) pull: PullPolicy,
    pub(crate) command: Vec<String>,
    pub(crate) args: Vec<String>,
    pub(crate) working_dir: String,
    /// In the order of the manifest: later ones may refer to earlier ones.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) ports: Vec<Port>,
    pub(crate) resources: Resources,
    pub(crate) mounts: Vec<VolumeMount>,
    pub(crate) stdin: bool,
    pub(crate) stdin_once: bool,
    pub(crate) tty: bool,
    pub(crate) security: ContainerSecurity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

#[derive(Clone, Debug)]
pub(crate) struct Port {
    pub(crate) container: i32,
    pub(crate) host: Option<Placed<i32>>,
    pub(crate) host_ip: String,
    pub(crate) protocol: Protocol,
}

/// Requests and limits; CPU in thousandths, memory in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) cpu_request: Option<i64>,
    pub(crate) cpu_limit: Option<i64>,
    pub(crate) memory_request: Option<i64>,
    pub(crate) memory_limit: Option<i64>,
    /// Page size as `2Mi`, and bytes.
    pub(crate) huge_pages: Vec<(String, u64)>,
}

#[derive(Clone, Debug)]
pub(crate) struct VolumeMount {
    pub(crate) volume: Placed<String>,
    pub(crate) path: Placed<String>,
    pub(crate) sub_path: Option<Placed<String>>,
    pub(crate) read_only: bool,
    pub(crate) recursive_read_only: bool,
    pub(crate) propagation: Propagation,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Propagation {
    #[default]
    None,
    HostToContainer,
    Bidirectional,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ContainerSecurity {
    pub(crate) identity: Identity,
    pub(crate) privileged: bool,
    pub(crate) read_only_root: bool,
    pub(crate) allow_escalation: Option<bool>,
    pub(crate) add_capabilities: Vec<String>,
    pub(crate) drop_capabilities: Vec<String>,
    pub(crate) unmasked_proc: bool,
    pub(crate) profiles: Profiles,
}
