//! Our messages against an independent crate's: the same bytes, both ways.

use std::fmt::Debug;

use carpel_proto::cri as ours;
use k8s_cri::v1 as theirs;
use prost::Message;

/// What the other crate writes, we read and write back the same.
fn round_trip<Theirs, Ours>(message: &Theirs) -> Ours
where
    Theirs: Message + Default + PartialEq + Debug,
    Ours: Message + Default,
{
    let read = Ours::decode(message.encode_to_vec().as_slice()).expect("we read their bytes");
    let back = Theirs::decode(read.encode_to_vec().as_slice()).expect("they read our bytes");
    assert_eq!(&back, message);
    read
}

fn mapping() -> theirs::IdMapping {
    theirs::IdMapping {
        host_id: 1000,
        container_id: 0,
        length: 65536,
    }
}

fn namespaces() -> theirs::NamespaceOption {
    theirs::NamespaceOption {
        network: theirs::NamespaceMode::Node.into(),
        pid: theirs::NamespaceMode::Target.into(),
        ipc: theirs::NamespaceMode::Container.into(),
        target_id: "target".into(),
        userns_options: Some(theirs::UserNamespace {
            mode: theirs::NamespaceMode::Pod.into(),
            uids: vec![mapping()],
            gids: vec![mapping()],
        }),
    }
}

fn profile() -> theirs::SecurityProfile {
    theirs::SecurityProfile {
        profile_type: theirs::security_profile::ProfileType::Localhost.into(),
        localhost_ref: "/profile.json".into(),
    }
}

fn number(value: i64) -> Option<theirs::Int64Value> {
    Some(theirs::Int64Value { value })
}

fn pod() -> theirs::PodSandboxConfig {
    theirs::PodSandboxConfig {
        metadata: Some(theirs::PodSandboxMetadata {
            name: "name".into(),
            uid: "uid".into(),
            namespace: "namespace".into(),
            attempt: 7,
        }),
        hostname: "host".into(),
        log_directory: "/logs".into(),
        dns_config: Some(theirs::DnsConfig {
            servers: vec!["1.1.1.1".into()],
            searches: vec!["example.org".into()],
            options: vec!["ndots:5".into()],
        }),
        port_mappings: vec![theirs::PortMapping {
            protocol: theirs::Protocol::Sctp.into(),
            container_port: 80,
            host_port: 8080,
            host_ip: "127.0.0.1".into(),
        }],
        labels: [("label".to_owned(), "ü".to_owned())].into(),
        annotations: [("annotation".to_owned(), "a".to_owned())].into(),
        linux: Some(theirs::LinuxPodSandboxConfig {
            cgroup_parent: "/parent".into(),
            security_context: Some(theirs::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces()),
                run_as_user: number(-1),
                run_as_group: number(5),
                readonly_rootfs: true,
                supplemental_groups: vec![1, 2],
                supplemental_groups_policy: theirs::SupplementalGroupsPolicy::Strict.into(),
                privileged: true,
                seccomp: Some(profile()),
                ..Default::default()
            }),
            sysctls: [("kernel.a".to_owned(), "1".to_owned())].into(),
            ..Default::default()
        }),
        windows: None,
    }
}

fn container() -> theirs::ContainerConfig {
    theirs::ContainerConfig {
        metadata: Some(theirs::ContainerMetadata {
            name: "c".into(),
            attempt: 3,
        }),
        image: Some(theirs::ImageSpec {
            image: "image".into(),
            user_specified_image: "user's".into(),
            runtime_handler: "handler".into(),
            ..Default::default()
        }),
        command: vec!["sh".into()],
        args: vec!["-c".into(), "true".into()],
        working_dir: "/".into(),
        envs: vec![theirs::KeyValue {
            key: "K".into(),
            value: "välue".into(),
        }],
        mounts: vec![theirs::Mount {
            container_path: "/in".into(),
            host_path: "/out".into(),
            readonly: true,
            selinux_relabel: true,
            propagation: theirs::MountPropagation::PropagationBidirectional.into(),
            uid_mappings: vec![mapping()],
            gid_mappings: vec![mapping()],
            recursive_read_only: true,
            ..Default::default()
        }],
        devices: vec![theirs::Device {
            container_path: "/dev/a".into(),
            host_path: "/dev/b".into(),
            permissions: "rwm".into(),
        }],
        log_path: "0.log".into(),
        stdin: true,
        stdin_once: true,
        tty: true,
        linux: Some(theirs::LinuxContainerConfig {
            resources: Some(theirs::LinuxContainerResources {
                cpu_period: 100_000,
                cpu_quota: -1,
                memory_limit_in_bytes: 1 << 40,
                oom_score_adj: -998,
                hugepage_limits: vec![theirs::HugepageLimit {
                    page_size: "2MB".into(),
                    limit: 1,
                }],
                unified: [("memory.high".to_owned(), "max".to_owned())].into(),
                ..Default::default()
            }),
            security_context: Some(theirs::LinuxContainerSecurityContext {
                capabilities: Some(theirs::Capability {
                    add_capabilities: vec!["ALL".into()],
                    drop_capabilities: vec!["NET_RAW".into()],
                    add_ambient_capabilities: vec!["NET_ADMIN".into()],
                }),
                namespace_options: Some(namespaces()),
                run_as_username: "nobody".into(),
                no_new_privs: true,
                masked_paths: vec!["/proc/kcore".into()],
                readonly_paths: vec!["/proc/sys".into()],
                apparmor: Some(profile()),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

#[test]
fn configurations_are_the_same_bytes() {
    let read: ours::PodSandboxConfig = round_trip(&pod());
    assert_eq!(read.port_mappings[0].protocol(), ours::Protocol::Sctp);
    let request = theirs::CreateContainerRequest {
        pod_sandbox_id: "pod".into(),
        config: Some(container()),
        sandbox_config: Some(pod()),
    };
    let read: ours::CreateContainerRequest = round_trip(&request);
    let config = read.config.expect("a configuration");
    assert_eq!(config.envs[0].value, "välue".as_bytes());
    assert_eq!(config.mounts[0].uid_mappings[0].length, 65536);
}

#[test]
fn statuses_are_the_same_bytes() {
    let status = theirs::ContainerStatus {
        id: "id".into(),
        state: theirs::ContainerState::ContainerExited.into(),
        created_at: i64::MAX,
        started_at: 1,
        finished_at: 2,
        exit_code: -1,
        reason: "OOMKilled".into(),
        mounts: container().mounts,
        image_id: "sha256:0".into(),
        user: Some(theirs::ContainerUser {
            linux: Some(theirs::LinuxContainerUser {
                uid: 1,
                gid: 2,
                supplemental_groups: vec![3, 4],
            }),
        }),
        ..Default::default()
    };
    let read: ours::ContainerStatusResponse = round_trip(&theirs::ContainerStatusResponse {
        status: Some(status),
        info: [("info".to_owned(), "{}".to_owned())].into(),
    });
    assert_eq!(read.status.expect("a status").exit_code, -1);
    let read: ours::ImageStatusResponse = round_trip(&theirs::ImageStatusResponse {
        image: Some(theirs::Image {
            id: "sha256:0".into(),
            repo_tags: vec!["a:1".into()],
            repo_digests: vec!["a@sha256:0".into()],
            size: u64::MAX,
            uid: number(0),
            pinned: true,
            ..Default::default()
        }),
        info: [].into(),
    });
    assert!(read.image.is_some_and(|image| image.pinned));
}

#[test]
fn stats_are_the_same_bytes() {
    let value = |value| Some(theirs::UInt64Value { value });
    let stats = theirs::ContainerStats {
        cpu: Some(theirs::CpuUsage {
            timestamp: 5,
            usage_core_nano_seconds: value(u64::MAX),
            ..Default::default()
        }),
        memory: Some(theirs::MemoryUsage {
            working_set_bytes: value(0),
            major_page_faults: value(9),
            ..Default::default()
        }),
        writable_layer: Some(theirs::FilesystemUsage {
            fs_id: Some(theirs::FilesystemIdentifier {
                mountpoint: "/var".into(),
            }),
            inodes_used: value(3),
            ..Default::default()
        }),
        ..Default::default()
    };
    let read: ours::ListContainerStatsResponse =
        round_trip(&theirs::ListContainerStatsResponse { stats: vec![stats] });
    let cpu = read.stats[0].cpu.as_ref().expect("cpu");
    assert_eq!(cpu.usage_core_nano_seconds.expect("usage").value, u64::MAX);
}

#[test]
fn bytes_of_a_newer_peer_are_kept_to_what_is_known() {
    let mut bytes = theirs::ExecSyncRequest {
        container_id: "c".into(),
        cmd: vec!["true".into()],
        timeout: 9,
    }
    .encode_to_vec();
    // Field 99, a text that nobody knows.
    bytes.extend([0x9a, 0x06, 0x01, b'x']);
    let read =
        ours::ExecSyncRequest::decode(bytes.as_slice()).expect("an unknown field is skipped");
    assert_eq!((read.container_id.as_str(), read.timeout), ("c", 9));
}
