//! CRI messages to domain types. Total: what has no meaning here is an error that
//! names field and value; what is absent takes its default.

use std::collections::HashMap;

use carpel_proto::cri;
use carpel_spec::intent;
use prost::Message;

use crate::error::Error;

type Result<T> = std::result::Result<T, Error>;

/// Reads configurations back from records.
pub(crate) mod decode {
    use super::{Error, Message, Result, container_config, cri, intent, pod_config};

    pub(crate) fn pod(bytes: &[u8]) -> Result<intent::PodConfig> {
        pod_config(&cri::PodSandboxConfig::decode(bytes).map_err(damaged)?)
    }

    pub(crate) fn container(bytes: &[u8]) -> Result<intent::ContainerConfig> {
        container_config(&cri::ContainerConfig::decode(bytes).map_err(damaged)?)
    }

    // By value, so that it serves as the argument of `map_err`.
    #[allow(clippy::needless_pass_by_value)]
    fn damaged(error: prost::DecodeError) -> Error {
        Error::Internal(format!(
            "the recorded configuration cannot be read: {error}"
        ))
    }
}

fn invalid(field: &str, value: impl std::fmt::Debug, why: &str) -> Error {
    Error::Invalid(format!("{field}: {value:?} {why}"))
}

fn map(map: &HashMap<String, String>) -> std::collections::BTreeMap<String, String> {
    map.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

pub(super) fn pod_config(wire: &cri::PodSandboxConfig) -> Result<intent::PodConfig> {
    let metadata = wire
        .metadata
        .as_ref()
        .ok_or_else(|| Error::Invalid("config.metadata: is missing".into()))?;
    let linux = wire.linux.clone().unwrap_or_default();
    Ok(intent::PodConfig {
        name: metadata.name.clone(),
        uid: metadata.uid.clone(),
        namespace: metadata.namespace.clone(),
        attempt: metadata.attempt,
        hostname: wire.hostname.clone(),
        log_directory: wire.log_directory.clone(),
        dns: wire.dns_config.as_ref().map(|dns| intent::DnsConfig {
            servers: dns.servers.clone(),
            searches: dns.searches.clone(),
            options: dns.options.clone(),
        }),
        port_mappings: wire
            .port_mappings
            .iter()
            .map(port_mapping)
            .collect::<Result<_>>()?,
        labels: map(&wire.labels),
        annotations: map(&wire.annotations),
        cgroup_parent: linux.cgroup_parent,
        sysctls: map(&linux.sysctls),
        security: linux
            .security_context
            .as_ref()
            .map(pod_security)
            .transpose()?
            .unwrap_or_default(),
        overhead: linux.overhead.as_ref().map(resources).unwrap_or_default(),
        resources: linux.resources.as_ref().map(resources).unwrap_or_default(),
    })
}

fn port(field: &str, value: i32) -> Result<u16> {
    u16::try_from(value).map_err(|_| invalid(field, value, "is not a port (0-65535)"))
}

fn port_mapping(wire: &cri::PortMapping) -> Result<intent::PortMapping> {
    let field = "config.port_mappings";
    Ok(intent::PortMapping {
        protocol: match cri::Protocol::try_from(wire.protocol) {
            Ok(cri::Protocol::Tcp) => intent::Protocol::Tcp,
            Ok(cri::Protocol::Udp) => intent::Protocol::Udp,
            Ok(cri::Protocol::Sctp) => intent::Protocol::Sctp,
            Err(_) => {
                return Err(invalid(
                    &format!("{field}.protocol"),
                    wire.protocol,
                    "is not known",
                ));
            }
        },
        container_port: port(&format!("{field}.container_port"), wire.container_port)?,
        host_port: port(&format!("{field}.host_port"), wire.host_port)?,
        host_ip: wire.host_ip.clone(),
    })
}

fn pod_security(wire: &cri::LinuxSandboxSecurityContext) -> Result<intent::PodSecurity> {
    Ok(intent::PodSecurity {
        namespaces: wire
            .namespace_options
            .as_ref()
            .map(namespaces)
            .transpose()?
            .unwrap_or_default(),
        run_as_user: wire.run_as_user.as_ref().map(|v| v.value),
        run_as_group: wire.run_as_group.as_ref().map(|v| v.value),
        readonly_rootfs: wire.readonly_rootfs,
        supplemental_groups: wire.supplemental_groups.clone(),
        supplemental_groups_policy: groups_policy(wire.supplemental_groups_policy)?,
        privileged: wire.privileged,
        seccomp: wire.seccomp.as_ref().map(profile).transpose()?,
        apparmor: wire.apparmor.as_ref().map(profile).transpose()?,
        selinux: wire.selinux_options.as_ref().map(selinux),
    })
}

fn groups_policy(value: i32) -> Result<intent::SupplementalGroupsPolicy> {
    match cri::SupplementalGroupsPolicy::try_from(value) {
        Ok(cri::SupplementalGroupsPolicy::Merge) => Ok(intent::SupplementalGroupsPolicy::Merge),
        Ok(cri::SupplementalGroupsPolicy::Strict) => Ok(intent::SupplementalGroupsPolicy::Strict),
        Err(_) => Err(invalid(
            "security_context.supplemental_groups_policy",
            value,
            "is not known",
        )),
    }
}

fn profile(wire: &cri::SecurityProfile) -> Result<intent::SecurityProfile> {
    use cri::security_profile::ProfileType;
    match ProfileType::try_from(wire.profile_type) {
        Ok(ProfileType::RuntimeDefault) => Ok(intent::SecurityProfile::RuntimeDefault),
        Ok(ProfileType::Unconfined) => Ok(intent::SecurityProfile::Unconfined),
        Ok(ProfileType::Localhost) => Ok(intent::SecurityProfile::Localhost(
            wire.localhost_ref.clone(),
        )),
        Err(_) => Err(invalid(
            "security_context profile_type",
            wire.profile_type,
            "is not known",
        )),
    }
}

fn selinux(wire: &cri::SeLinuxOption) -> intent::SelinuxOption {
    intent::SelinuxOption {
        user: wire.user.clone(),
        role: wire.role.clone(),
        kind: wire.r#type.clone(),
        level: wire.level.clone(),
    }
}

fn mode(field: &str, value: i32) -> Result<intent::NamespaceMode> {
    match cri::NamespaceMode::try_from(value) {
        Ok(cri::NamespaceMode::Pod) => Ok(intent::NamespaceMode::Pod),
        Ok(cri::NamespaceMode::Container) => Ok(intent::NamespaceMode::Container),
        Ok(cri::NamespaceMode::Node) => Ok(intent::NamespaceMode::Node),
        Ok(cri::NamespaceMode::Target) => Ok(intent::NamespaceMode::Target),
        Err(_) => Err(invalid(
            &format!("namespace_options.{field}"),
            value,
            "is not known",
        )),
    }
}

fn namespaces(wire: &cri::NamespaceOption) -> Result<intent::Namespaces> {
    Ok(intent::Namespaces {
        network: mode("network", wire.network)?,
        pid: mode("pid", wire.pid)?,
        ipc: mode("ipc", wire.ipc)?,
        target_id: wire.target_id.clone(),
        user: match &wire.userns_options {
            None => None,
            Some(user) => Some(intent::UserNamespace {
                mode: mode("userns_options.mode", user.mode)?,
                uids: user.uids.iter().map(id_mapping).collect(),
                gids: user.gids.iter().map(id_mapping).collect(),
            }),
        },
    })
}

fn id_mapping(wire: &cri::IdMapping) -> intent::IdMapping {
    intent::IdMapping {
        host_id: wire.host_id,
        container_id: wire.container_id,
        length: wire.length,
    }
}

pub(super) fn resources(wire: &cri::LinuxContainerResources) -> intent::Resources {
    intent::Resources {
        cpu_period: wire.cpu_period,
        cpu_quota: wire.cpu_quota,
        cpu_shares: wire.cpu_shares,
        memory_limit: wire.memory_limit_in_bytes,
        memory_swap_limit: wire.memory_swap_limit_in_bytes,
        oom_score_adj: wire.oom_score_adj,
        cpuset_cpus: wire.cpuset_cpus.clone(),
        cpuset_mems: wire.cpuset_mems.clone(),
        hugepages: wire
            .hugepage_limits
            .iter()
            .map(|l| intent::HugepageLimit {
                page_size: l.page_size.clone(),
                limit: l.limit,
            })
            .collect(),
        unified: map(&wire.unified),
    }
}

pub(super) fn container_config(wire: &cri::ContainerConfig) -> Result<intent::ContainerConfig> {
    let metadata = wire
        .metadata
        .as_ref()
        .ok_or_else(|| Error::Invalid("config.metadata: is missing".into()))?;
    let image = wire
        .image
        .as_ref()
        .ok_or_else(|| Error::Invalid("config.image: is missing".into()))?;
    let linux = wire.linux.clone().unwrap_or_default();
    Ok(intent::ContainerConfig {
        name: metadata.name.clone(),
        attempt: metadata.attempt,
        image: image.image.clone(),
        user_specified_image: image.user_specified_image.clone(),
        command: wire.command.clone(),
        args: wire.args.clone(),
        working_dir: wire.working_dir.clone(),
        envs: wire
            .envs
            .iter()
            .map(|e| (e.key.clone(), e.value.clone()))
            .collect(),
        mounts: wire.mounts.iter().map(mount).collect::<Result<_>>()?,
        devices: wire
            .devices
            .iter()
            .map(|d| intent::Device {
                container_path: d.container_path.clone(),
                host_path: d.host_path.clone(),
                permissions: d.permissions.clone(),
            })
            .collect(),
        cdi_devices: wire.cdi_devices.iter().map(|d| d.name.clone()).collect(),
        labels: map(&wire.labels),
        annotations: map(&wire.annotations),
        log_path: wire.log_path.clone(),
        stdin: wire.stdin,
        stdin_once: wire.stdin_once,
        tty: wire.tty,
        stop_signal: stop_signal(wire.stop_signal)?,
        resources: linux.resources.as_ref().map(resources).unwrap_or_default(),
        security: linux
            .security_context
            .as_ref()
            .map(container_security)
            .transpose()?
            .unwrap_or_default(),
    })
}

fn mount(wire: &cri::Mount) -> Result<intent::Mount> {
    if wire
        .image
        .as_ref()
        .is_some_and(|image| !image.image.is_empty())
    {
        return Err(Error::Unimplemented(
            "config.mounts.image: image volumes are not supported yet".into(),
        ));
    }
    if !wire.uid_mappings.is_empty() || !wire.gid_mappings.is_empty() {
        return Err(Error::Unimplemented(
            "config.mounts.uidMappings: not supported yet".into(),
        ));
    }
    Ok(intent::Mount {
        container_path: wire.container_path.clone(),
        host_path: wire.host_path.clone(),
        readonly: wire.readonly,
        recursive_read_only: wire.recursive_read_only,
        selinux_relabel: wire.selinux_relabel,
        propagation: match cri::MountPropagation::try_from(wire.propagation) {
            Ok(cri::MountPropagation::PropagationPrivate) => intent::Propagation::Private,
            Ok(cri::MountPropagation::PropagationHostToContainer) => {
                intent::Propagation::HostToContainer
            }
            Ok(cri::MountPropagation::PropagationBidirectional) => {
                intent::Propagation::Bidirectional
            }
            Err(_) => {
                return Err(invalid(
                    "config.mounts.propagation",
                    wire.propagation,
                    "is not known",
                ));
            }
        },
        restrict: restrict(&wire.mount_options)?,
    })
}

fn restrict(options: &[String]) -> Result<intent::Restrict> {
    let mut restrict = intent::Restrict::default();
    for option in options {
        match option.as_str() {
            "noexec" => restrict.noexec = true,
            "nodev" => restrict.nodev = true,
            "nosuid" => restrict.nosuid = true,
            _ => {
                let why = "is none of noexec, nodev, nosuid";
                return Err(invalid("config.mounts.mount_options", option, why));
            }
        }
    }
    Ok(restrict)
}

/// The CRI names signals, as enum values `SIGNAL_SIGTERM` and so on.
fn stop_signal(value: i32) -> Result<Option<i32>> {
    let signal = cri::Signal::try_from(value)
        .map_err(|_| invalid("config.stop_signal", value, "is not known"))?;
    if signal == cri::Signal::RuntimeDefault {
        return Ok(None);
    }
    let name = signal.as_str_name().trim_start_matches("SIGNAL_");
    let name = name.replace("MINPLUS", "MIN+").replace("MAXMINUS", "MAX-");
    carpel_spec::parse_signal(&name)
        .map(Some)
        .map_err(|error| Error::Invalid(format!("config.stop_signal: {error}")))
}

fn container_security(
    wire: &cri::LinuxContainerSecurityContext,
) -> Result<intent::ContainerSecurity> {
    let capabilities = wire.capabilities.clone().unwrap_or_default();
    Ok(intent::ContainerSecurity {
        add_capabilities: capabilities.add_capabilities,
        drop_capabilities: capabilities.drop_capabilities,
        add_ambient_capabilities: capabilities.add_ambient_capabilities,
        privileged: wire.privileged,
        namespaces: wire
            .namespace_options
            .as_ref()
            .map(namespaces)
            .transpose()?
            .unwrap_or_default(),
        run_as_user: wire.run_as_user.as_ref().map(|v| v.value),
        run_as_username: wire.run_as_username.clone(),
        run_as_group: wire.run_as_group.as_ref().map(|v| v.value),
        readonly_rootfs: wire.readonly_rootfs,
        supplemental_groups: wire.supplemental_groups.clone(),
        supplemental_groups_policy: groups_policy(wire.supplemental_groups_policy)?,
        no_new_privs: wire.no_new_privs,
        masked_paths: wire.masked_paths.clone(),
        readonly_paths: wire.readonly_paths.clone(),
        seccomp: match &wire.seccomp {
            Some(wire) => Some(profile(wire)?),
            None => old_seccomp(wire)?,
        },
        apparmor: match &wire.apparmor {
            Some(wire) => Some(profile(wire)?),
            None => old_apparmor(wire)?,
        },
        selinux: wire.selinux_options.as_ref().map(selinux),
    })
}

/// The field that `apparmor` replaced, of the same form as the next.
#[allow(deprecated)]
fn old_apparmor(
    wire: &cri::LinuxContainerSecurityContext,
) -> Result<Option<intent::SecurityProfile>> {
    old_profile("apparmor_profile", &wire.apparmor_profile)
}

/// The field that `seccomp` replaced: `unconfined`, `runtime/default`, `localhost/PATH`.
#[allow(deprecated)]
fn old_seccomp(
    wire: &cri::LinuxContainerSecurityContext,
) -> Result<Option<intent::SecurityProfile>> {
    old_profile("seccomp_profile_path", &wire.seccomp_profile_path)
}

fn old_profile(field: &str, text: &str) -> Result<Option<intent::SecurityProfile>> {
    match text {
        "" => Ok(None),
        "unconfined" => Ok(Some(intent::SecurityProfile::Unconfined)),
        "runtime/default" | "docker/default" => Ok(Some(intent::SecurityProfile::RuntimeDefault)),
        text => match text.strip_prefix("localhost/") {
            Some(name) => Ok(Some(intent::SecurityProfile::Localhost(name.to_owned()))),
            None => Err(invalid(
                &format!("security_context.{field}"),
                text,
                "is not known",
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use carpel_proto::cri;

    use super::{container_config, pod_config, stop_signal};

    #[test]
    fn missing_metadata_is_named() {
        let error = pod_config(&cri::PodSandboxConfig::default()).unwrap_err();
        assert!(error.to_string().contains("metadata"), "{error}");
        let error = container_config(&cri::ContainerConfig::default()).unwrap_err();
        assert!(error.to_string().contains("metadata"), "{error}");
    }

    #[test]
    fn ports_out_of_range_are_named() {
        let wire = cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata::default()),
            port_mappings: vec![cri::PortMapping {
                host_port: 70000,
                ..Default::default()
            }],
            ..Default::default()
        };
        let error = pod_config(&wire).unwrap_err().to_string();
        assert!(
            error.contains("host_port") && error.contains("70000"),
            "{error}"
        );
    }

    #[test]
    fn every_signal_of_the_cri_has_a_number() {
        for value in 1..=65 {
            let number = stop_signal(value).unwrap();
            assert!(
                number.is_some_and(|n| (1..=64).contains(&n)),
                "{value}: {number:?}"
            );
        }
        assert_eq!(stop_signal(0).unwrap(), None);
        assert_eq!(stop_signal(cri::Signal::Sigterm as i32).unwrap(), Some(15));
        assert!(stop_signal(66).is_err());
    }

    #[test]
    #[allow(deprecated)]
    fn old_profile_fields_count_where_the_new_ones_are_not_set() {
        let read = |wire: &cri::LinuxContainerSecurityContext| {
            super::container_security(wire).map(|security| (security.seccomp, security.apparmor))
        };
        let mut wire = cri::LinuxContainerSecurityContext {
            apparmor_profile: "localhost/mine".to_owned(),
            seccomp_profile_path: "localhost//p.json".to_owned(),
            ..Default::default()
        };
        let localhost = |name: &str| Some(super::intent::SecurityProfile::Localhost(name.into()));
        assert_eq!(
            read(&wire).unwrap(),
            (localhost("/p.json"), localhost("mine"))
        );
        wire.apparmor = Some(cri::SecurityProfile {
            profile_type: 2,
            localhost_ref: "newer".to_owned(),
        });
        assert_eq!(read(&wire).unwrap().1, localhost("newer"));
        wire.apparmor = None;
        wire.apparmor_profile = "mine".to_owned();
        let error = read(&wire).unwrap_err().to_string();
        assert!(
            error.contains("apparmor_profile") && error.contains("mine"),
            "{error}"
        );
    }

    #[test]
    fn mount_options_are_three_words() {
        let mount = |options: &[&str]| {
            super::mount(&cri::Mount {
                mount_options: options.iter().map(ToString::to_string).collect(),
                ..Default::default()
            })
        };
        let restrict = mount(&["noexec", "nosuid"]).unwrap().restrict;
        assert!(restrict.noexec && restrict.nosuid && !restrict.nodev);
        let error = mount(&["exec"]).unwrap_err().to_string();
        assert!(
            error.contains("mount_options") && error.contains("\"exec\""),
            "{error}"
        );
    }
}
