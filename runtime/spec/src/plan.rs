//! The whole of a container: its OCI configuration and the descriptors it needs.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use oci_spec::runtime::{Linux, Process, Root, Spec};

use crate::capability::{self, CapSet};
use crate::cdi::Injection;
use crate::devices::{self, DeviceNode};
use crate::error::{Error, Result};
use crate::intent::{ContainerConfig, ImageConfig, PodConfig, SecurityProfile, SelinuxOption};
use crate::mounts::{self, GeneratedFile, MountSource};
use crate::users::User;
use crate::volumes::ImageVolume;
use crate::{namespaces, process, resources};

/// Version of the OCI runtime specification that is written.
const OCI_VERSION: &str = "1.2.0";

/// Hidden from containers of clients that have no opinion: what tells about, or
/// reaches, the host's hardware and keys.
const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CgroupVersion {
    V1,
    #[default]
    V2,
}

/// What the daemon found out about this host.
#[derive(Debug, Clone, Default)]
pub struct HostFacts {
    pub cgroup: CgroupVersion,
    /// Our own bounding set.
    pub capabilities: CapSet,
    /// Kernel names of the huge page sizes, such as `2MB`.
    pub hugepage_sizes: Vec<String>,
    pub apparmor: bool,
    pub selinux: bool,
    /// Every device node, for a privileged container.
    pub devices: Vec<DeviceNode>,
    /// The device nodes at, or below, each host path that the container asks for.
    pub requested_devices: BTreeMap<String, Vec<DeviceNode>>,
    /// Processes that a container may have, where the node limits them.
    pub pids_limit: Option<i64>,
}

/// All that a container's configuration is made from.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    pub pod_id: &'a str,
    pub pod: &'a PodConfig,
    pub container_id: &'a str,
    pub container: &'a ContainerConfig,
    /// The client sent a `linux.security_context`: its masked and read-only paths
    /// are then taken as they are, even if there are none.
    pub has_security_context: bool,
    pub image: &'a ImageConfig,
    pub user: &'a User,
    /// Name in the pod's UTS namespace.
    pub hostname: &'a str,
    /// Absolute, below the root of the cgroup hierarchies.
    pub cgroup_path: &'a str,
    /// Holds the PID namespace that the pod's containers share.
    pub pod_init_pid: Option<i32>,
    /// First process of the container whose PID namespace is joined.
    pub target_pid: Option<i32>,
    /// resolv.conf, hosts, hostname.
    pub generated: &'a [GeneratedFile],
    /// Parents first.
    pub volumes: &'a [ImageVolume],
    /// What the container's CDI devices bring.
    pub cdi: &'a Injection,
    pub host: &'a HostFacts,
}

/// A container, ready to be made.
#[derive(Debug, Clone)]
pub struct ContainerPlan {
    pub spec: Spec,
    /// Mounts of the spec that need a descriptor; all others the executor makes.
    pub mount_sources: Vec<MountSource>,
}

/// Builds the configuration of a container whose parts have passed
/// [`crate::validate`].
pub fn container_spec(input: &Input<'_>) -> Result<ContainerPlan> {
    let security = &input.container.security;
    let (mounts, mount_sources) = mounts::build(input);
    let mut root = Root::default();
    root.set_path(PathBuf::from("rootfs"))
        .set_readonly(Some(security.readonly_rootfs));
    let mut spec = Spec::default();
    spec.set_version(OCI_VERSION.to_owned())
        .set_root(Some(root))
        .set_mounts(Some(mounts))
        .set_process(Some(container_process(input)?))
        .set_hostname(None)
        .set_annotations(Some(annotations(input)))
        .set_linux(Some(linux(input)?));
    Ok(ContainerPlan {
        spec,
        mount_sources,
    })
}

fn container_process(input: &Input<'_>) -> Result<Process> {
    let security = &input.container.security;
    let mut process = process::build(input)?;
    process
        .set_capabilities(Some(capability::of_container(
            security,
            input.host.capabilities,
        )?))
        .set_no_new_privileges(Some(security.no_new_privs))
        .set_apparmor_profile(apparmor(
            security.apparmor.as_ref(),
            security.privileged,
            input.host,
        )?)
        .set_selinux_label(match &security.selinux {
            Some(option) => selinux(option, input.host)?,
            None => None,
        });
    Ok(process)
}

fn linux(input: &Input<'_>) -> Result<Linux> {
    let devices = devices::of_container(input)?;
    let mut resources = resources::linux_resources(&input.container.resources, input.host)?;
    resources.set_devices(Some(devices.rules));
    let (masked, readonly) = hidden_paths(input);
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces::list(input)?))
        .set_resources(Some(resources))
        .set_cgroups_path(Some(PathBuf::from(input.cgroup_path)))
        .set_devices(Some(devices.nodes))
        .set_rootfs_propagation(mounts::rootfs_propagation(&input.container.mounts))
        .set_masked_paths(Some(masked))
        .set_readonly_paths(Some(readonly));
    Ok(linux)
}

fn hidden_paths(input: &Input<'_>) -> (Vec<String>, Vec<String>) {
    let security = &input.container.security;
    if security.privileged {
        return (Vec::new(), Vec::new());
    }
    if input.has_security_context {
        return (
            security.masked_paths.clone(),
            security.readonly_paths.clone(),
        );
    }
    let own = |paths: &[&str]| paths.iter().map(ToString::to_string).collect();
    (own(&MASKED_PATHS), own(&READONLY_PATHS))
}

/// An AppArmor profile by name. The runtime brings no profile of its own, so its
/// default is none.
fn apparmor(
    profile: Option<&SecurityProfile>,
    privileged: bool,
    host: &HostFacts,
) -> Result<Option<String>> {
    let Some(SecurityProfile::Localhost(name)) = profile else {
        return Ok(None);
    };
    if privileged {
        return Ok(None);
    }
    if !host.apparmor {
        let why = "AppArmor is not enabled on this host";
        return Err(Error::unsupported("linux.security_context.apparmor", why));
    }
    Ok(Some(
        name.strip_prefix("localhost/").unwrap_or(name).to_owned(),
    ))
}

/// A label is given whole or not at all: what belongs in the place of a part that
/// lacks is the policy's to say, and we ask none.
fn selinux(option: &SelinuxOption, host: &HostFacts) -> Result<Option<String>> {
    let SelinuxOption {
        user,
        role,
        kind,
        level,
    } = option;
    let parts = [user, role, kind, level];
    if !host.selinux || parts.iter().all(|part| part.is_empty()) {
        return Ok(None);
    }
    if parts.iter().any(|part| part.is_empty()) {
        let why = "user, role, type and level are needed together on this host";
        let field = "linux.security_context.selinux_options";
        return Err(Error::unsupported(field, why));
    }
    Ok(Some(format!("{user}:{role}:{kind}:{level}")))
}

/// What other tools look for to tell whose container it is. Of the client's, only
/// those of the kubelet's own kind: low-level runtimes take others for commands
/// (CVE-2024-3154).
fn annotations(input: &Input<'_>) -> HashMap<String, String> {
    let mut annotations: HashMap<_, _> = input
        .container
        .annotations
        .iter()
        .filter(|(name, _)| name.starts_with("io.kubernetes."))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let own = [
        ("io.kubernetes.cri.container-type", "container"),
        ("io.kubernetes.cri.container-name", &input.container.name),
        ("io.kubernetes.cri.container-id", input.container_id),
        ("io.kubernetes.cri.image-name", &input.container.image),
        ("io.kubernetes.cri.sandbox-id", input.pod_id),
        ("io.kubernetes.cri.sandbox-name", &input.pod.name),
        ("io.kubernetes.cri.sandbox-namespace", &input.pod.namespace),
        ("io.kubernetes.cri.sandbox-uid", &input.pod.uid),
    ];
    annotations.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    annotations
}

#[cfg(test)]
pub(crate) mod fixture;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::fixture::Fixture;
    use super::*;

    /// Sets and maps of the OCI types have no order of their own.
    fn ordered(spec: &Spec) -> serde_json::Value {
        let mut value = serde_json::to_value(spec).unwrap();
        for set in ["bounding", "effective", "permitted"] {
            let names = value["process"]["capabilities"][set]
                .as_array_mut()
                .unwrap();
            names.sort_by_key(ToString::to_string);
        }
        value
    }

    #[test]
    fn a_whole_spec_is_what_it_was() {
        let fixture = Fixture::web();
        let plan = container_spec(&fixture.input()).unwrap();
        let expected: serde_json::Value =
            serde_json::from_str(include_str!("../testdata/web.json")).unwrap();
        let actual = ordered(&plan.spec);
        assert_eq!(
            actual,
            expected,
            "the spec is now:\n{}",
            serde_json::to_string_pretty(&actual).unwrap()
        );
    }

    #[test]
    fn a_spec_survives_its_way_to_the_holder() {
        let plan = container_spec(&Fixture::web().input()).unwrap();
        let text = serde_json::to_vec(&plan.spec).unwrap();
        let back: Spec = serde_json::from_slice(&text).unwrap();
        assert_eq!(back, plan.spec);
    }

    #[test]
    fn paths_are_hidden_as_asked_and_by_default_only_if_nothing_was_asked() {
        let masked = |fixture: &Fixture| {
            let plan = container_spec(&fixture.input()).unwrap();
            let linux = plan.spec.linux().clone().unwrap();
            (
                linux.masked_paths().clone().unwrap(),
                linux.readonly_paths().clone().unwrap(),
            )
        };
        let mut fixture = Fixture {
            has_security_context: false,
            ..Fixture::default()
        };
        assert!(masked(&fixture).0.contains(&"/proc/kcore".to_owned()));
        assert!(masked(&fixture).1.contains(&"/proc/sys".to_owned()));
        fixture.has_security_context = true;
        assert_eq!(masked(&fixture), (vec![], vec![]));
        fixture.container.security.masked_paths = vec!["/bin/ls".to_owned()];
        assert_eq!(masked(&fixture).0, ["/bin/ls"]);
        fixture.container.security.privileged = true;
        assert_eq!(masked(&fixture), (vec![], vec![]));
    }

    #[test]
    fn privileged_changes_everything_it_should() {
        let mut fixture = Fixture::default();
        fixture.container.security.privileged = true;
        let value = serde_json::to_value(container_spec(&fixture.input()).unwrap().spec).unwrap();
        let bounding = value["process"]["capabilities"]["bounding"]
            .as_array()
            .unwrap()
            .len();
        assert_eq!(bounding, CapSet::all().names().count());
        assert_eq!(
            value["linux"]["resources"]["devices"][0],
            json!({"allow": true, "type": "a", "access": "rwm"})
        );
        let mounts = value["mounts"].as_array().unwrap();
        for destination in ["/sys", "/sys/fs/cgroup"] {
            let mount = mounts
                .iter()
                .find(|m| m["destination"] == destination)
                .unwrap();
            assert!(
                !mount["options"].as_array().unwrap().contains(&json!("ro")),
                "{mount}"
            );
        }
    }

    #[test]
    fn a_localhost_apparmor_profile_needs_apparmor() {
        let mut fixture = Fixture::default();
        fixture.container.security.apparmor =
            Some(SecurityProfile::Localhost("localhost/tight".to_owned()));
        let error = container_spec(&fixture.input()).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        fixture.host.apparmor = true;
        let plan = container_spec(&fixture.input()).unwrap();
        let process = plan.spec.process().clone().unwrap();
        assert_eq!(process.apparmor_profile().as_deref(), Some("tight"));
    }

    #[test]
    fn a_whole_selinux_label_is_passed_on_where_there_is_selinux() {
        let mut fixture = Fixture::default();
        fixture.container.security.selinux = Some(SelinuxOption {
            user: "system_u".to_owned(),
            role: "system_r".to_owned(),
            kind: "container_t".to_owned(),
            level: "s0:c4,c5".to_owned(),
        });
        let label = |fixture: &Fixture| {
            let plan = container_spec(&fixture.input()).unwrap();
            plan.spec
                .process()
                .as_ref()
                .unwrap()
                .selinux_label()
                .clone()
        };
        assert_eq!(label(&fixture), None);
        fixture.host.selinux = true;
        assert_eq!(
            label(&fixture).as_deref(),
            Some("system_u:system_r:container_t:s0:c4,c5")
        );
        let option = fixture.container.security.selinux.get_or_insert_default();
        option.kind.clear();
        let error = container_spec(&fixture.input()).unwrap_err();
        assert!(error.to_string().contains("selinux_options"), "{error}");
        fixture.container.security.selinux = Some(SelinuxOption::default());
        assert_eq!(label(&fixture), None);
    }

    #[test]
    fn no_annotation_of_a_client_commands_a_low_level_runtime() {
        let mut fixture = Fixture::default();
        let wish = |name: &str| (name.to_owned(), "x".to_owned());
        fixture.container.annotations = [
            "org.systemd.property.ExecStartPre",
            "run.oci.hooks",
            "io.kubernetes.container.hash",
            "io.kubernetes.cri.container-type",
        ]
        .map(wish)
        .into();
        let annotations = super::annotations(&fixture.input());
        assert!(
            annotations
                .keys()
                .all(|name| name.starts_with("io.kubernetes."))
        );
        assert_eq!(annotations["io.kubernetes.container.hash"], "x");
        assert_eq!(annotations["io.kubernetes.cri.container-type"], "container");
    }
}
