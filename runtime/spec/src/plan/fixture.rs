//! A container to build on in tests.

use std::collections::BTreeMap;

use super::{CgroupVersion, HostFacts, Input};
use crate::capability::CapSet;
use crate::cdi::Injection;
use crate::intent::{ContainerConfig, ImageConfig, Mount, PodConfig, Propagation, Resources};
use crate::mounts::GeneratedFile;
use crate::users::User;
use crate::volumes::ImageVolume;

pub(crate) struct Fixture {
    pub(crate) pod: PodConfig,
    pub(crate) container: ContainerConfig,
    pub(crate) has_security_context: bool,
    pub(crate) image: ImageConfig,
    pub(crate) user: User,
    pub(crate) pod_init_pid: Option<i32>,
    pub(crate) target_pid: Option<i32>,
    pub(crate) generated: Vec<GeneratedFile>,
    pub(crate) volumes: Vec<ImageVolume>,
    pub(crate) cdi: Injection,
    pub(crate) host: HostFacts,
}

impl Default for Fixture {
    fn default() -> Self {
        Self {
            pod: PodConfig {
                name: "pod".to_owned(),
                ..PodConfig::default()
            },
            container: ContainerConfig {
                name: "main".to_owned(),
                ..ContainerConfig::default()
            },
            has_security_context: true,
            image: ImageConfig {
                entrypoint: vec!["/start".to_owned()],
                ..ImageConfig::default()
            },
            user: User::default(),
            pod_init_pid: Some(42),
            target_pid: None,
            generated: Vec::new(),
            volumes: Vec::new(),
            cdi: Injection::default(),
            host: HostFacts {
                cgroup: CgroupVersion::V2,
                capabilities: CapSet::all(),
                hugepage_sizes: vec!["2MB".to_owned(), "1GB".to_owned()],
                ..HostFacts::default()
            },
        }
    }
}

impl Fixture {
    pub(crate) fn input(&self) -> Input<'_> {
        Input {
            pod_id: "p0",
            pod: &self.pod,
            container_id: "c0",
            container: &self.container,
            has_security_context: self.has_security_context,
            image: &self.image,
            user: &self.user,
            hostname: "web-0",
            cgroup_path: "/carpel/p0/c0",
            pod_init_pid: self.pod_init_pid,
            target_pid: self.target_pid,
            generated: &self.generated,
            volumes: &self.volumes,
            cdi: &self.cdi,
            host: &self.host,
        }
    }

    /// As a kubelet asks for a web server.
    pub(crate) fn web() -> Self {
        let mut fixture = Self::default();
        fixture.pod.namespace = "default".to_owned();
        fixture.pod.uid = "u-1".to_owned();
        fixture.generated = vec![
            generated("/etc/hostname", "/run/pods/p0/hostname"),
            generated("/etc/hosts", "/run/pods/p0/hosts"),
            generated("/etc/resolv.conf", "/run/pods/p0/resolv.conf"),
        ];
        fixture.user = User {
            uid: 33,
            gid: 33,
            groups: vec![4, 33],
            home: "/var/www".to_owned(),
        };
        let container = &mut fixture.container;
        container.image = "docker.io/library/web:1".to_owned();
        container.args = vec!["--port".to_owned(), "80".to_owned()];
        container.envs = vec![("PORT".to_owned(), b"80".to_vec())];
        container.annotations = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        container.mounts = vec![
            Mount {
                container_path: "/data/config".to_owned(),
                host_path: "/srv/config".to_owned(),
                readonly: true,
                ..Mount::default()
            },
            Mount {
                container_path: "/data".to_owned(),
                host_path: "/srv/data".to_owned(),
                propagation: Propagation::HostToContainer,
                ..Mount::default()
            },
            Mount {
                container_path: "/etc/hosts".to_owned(),
                host_path: "/var/lib/kubelet/hosts".to_owned(),
                ..Mount::default()
            },
        ];
        container.resources = Resources {
            cpu_period: 100_000,
            cpu_quota: 20_000,
            cpu_shares: 204,
            memory_limit: 64 << 20,
            oom_score_adj: 900,
            ..Resources::default()
        };
        container.security.no_new_privs = true;
        container.security.readonly_rootfs = true;
        container.security.masked_paths = vec!["/proc/kcore".to_owned()];
        container.security.readonly_paths = vec!["/proc/sys".to_owned()];
        fixture
    }
}

fn generated(destination: &str, source: &str) -> GeneratedFile {
    GeneratedFile {
        destination: destination.to_owned(),
        source: source.to_owned(),
        readonly: false,
    }
}
