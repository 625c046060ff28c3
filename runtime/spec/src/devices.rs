//! Device nodes of a container and what its cgroup allows.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use crate::cdi::NodeEdit;
use crate::error::{Error, Result};
use crate::intent::Device;
use crate::plan::{HostFacts, Input};
use crate::users::User;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    Block,
    Character,
}

/// A device node of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    /// Absolute path on the host, symlinks not resolved.
    pub path: String,
    pub kind: DeviceKind,
    pub major: u32,
    pub minor: u32,
    /// Permission bits alone.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Devices that every container has and the executor makes by itself: null, zero,
/// full, random, urandom, tty, then the pseudo-terminals.
const STANDARD: [(i64, Option<i64>); 8] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(2)),
    (136, None),
];

#[derive(Debug, Default)]
pub(crate) struct Devices {
    pub(crate) nodes: Vec<LinuxDevice>,
    pub(crate) rules: Vec<LinuxDeviceCgroup>,
}

/// The nodes asked for, after all of the host's if the container is privileged.
pub(crate) fn of_container(input: &Input<'_>) -> Result<Devices> {
    let privileged = input.container.security.privileged;
    let mut devices = requested(privileged, &input.container.devices, input.host)?;
    for edit in &input.cdi.nodes {
        add_injected(&mut devices, edit, input.user)?;
    }
    Ok(devices)
}

/// One that a CDI device brings. Where its file says nothing of an owner, it is the
/// container's user's, if that is not root.
fn add_injected(devices: &mut Devices, edit: &NodeEdit, user: &User) -> Result<()> {
    let Some((kind, major, minor)) = edit.device() else {
        let why = "is no device of this host";
        return Err(Error::invalid("CDI_devices", &edit.host_path, why));
    };
    let found = edit.found.as_ref();
    let own = |of_file: Option<u32>, of_user: u32, of_host: Option<u32>| {
        of_file
            .or(Some(of_user).filter(|id| *id > 0))
            .or(of_host)
            .unwrap_or(0)
    };
    let node = DeviceNode {
        path: edit.path.clone(),
        kind,
        major,
        minor,
        mode: edit.mode.or(found.map(|node| node.mode)).unwrap_or(0o666),
        uid: own(edit.uid, user.uid, found.map(|node| node.uid)),
        gid: own(edit.gid, user.gid, found.map(|node| node.gid)),
    };
    devices.put(&node, edit.path.clone(), &edit.permissions);
    Ok(())
}

impl Devices {
    /// In the place of one that is to be at the same path.
    fn put(&mut self, node: &DeviceNode, path: String, access: &str) {
        self.nodes
            .retain(|known| known.path() != &PathBuf::from(&path));
        self.nodes.push(oci(node, path));
        let numbers = (Some(node.major.into()), Some(node.minor.into()));
        let rule = rule(true, Some(oci_kind(node.kind)), numbers, access);
        self.rules.push(rule);
    }
}

fn requested(privileged: bool, requested: &[Device], host: &HostFacts) -> Result<Devices> {
    let mut devices = Devices::default();
    if privileged {
        devices.nodes = host
            .devices
            .iter()
            .map(|node| oci(node, node.path.clone()))
            .collect();
        devices.rules.push(rule(true, None, (None, None), "rwm"));
    } else {
        devices.rules = standard_rules();
    }
    for (index, device) in requested.iter().enumerate() {
        let field = format!("devices[{index}]");
        add_requested(&mut devices, &field, device, host)?;
    }
    Ok(devices)
}

fn add_requested(
    devices: &mut Devices,
    field: &str,
    device: &Device,
    host: &HostFacts,
) -> Result<()> {
    let access = permissions(field, &device.permissions)?;
    let nodes = host
        .requested_devices
        .get(&device.host_path)
        .map(Vec::as_slice)
        .unwrap_or_default();
    if nodes.is_empty() {
        let why = "is neither a device of the host nor a directory with devices";
        return Err(Error::invalid(
            format!("{field}.host_path"),
            &device.host_path,
            why,
        ));
    }
    let target = if device.container_path.is_empty() {
        &device.host_path
    } else {
        &device.container_path
    };
    for node in nodes {
        // What lies below a requested directory keeps its place below it.
        let below = node
            .path
            .strip_prefix(&device.host_path)
            .unwrap_or_default();
        let path = format!("{}{below}", target.trim_end_matches('/'));
        devices.put(node, path, &access);
    }
    Ok(())
}

/// Checks `r`, `w`, `m`, each at most once; empty means all.
pub(crate) fn permissions(field: &str, text: &str) -> Result<String> {
    if text.is_empty() {
        return Ok("rwm".to_owned());
    }
    let known = text.chars().all(|c| "rwm".contains(c));
    let once = "rwm".chars().all(|c| text.matches(c).count() <= 1);
    if known && once {
        return Ok(text.to_owned());
    }
    let why = "is made of r, w and m, each at most once";
    Err(Error::invalid(format!("{field}.permissions"), text, why))
}

/// Nothing, then making nodes of any kind (which opens none), then the standard ones.
fn standard_rules() -> Vec<LinuxDeviceCgroup> {
    let mut rules = vec![
        rule(false, None, (None, None), "rwm"),
        rule(true, Some(LinuxDeviceType::C), (None, None), "m"),
        rule(true, Some(LinuxDeviceType::B), (None, None), "m"),
    ];
    let standard = STANDARD.iter().map(|(major, minor)| {
        rule(
            true,
            Some(LinuxDeviceType::C),
            (Some(*major), *minor),
            "rwm",
        )
    });
    rules.extend(standard);
    rules
}

fn rule(
    allow: bool,
    kind: Option<LinuxDeviceType>,
    (major, minor): (Option<i64>, Option<i64>),
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow)
        .set_typ(Some(kind.unwrap_or(LinuxDeviceType::A)))
        .set_major(major)
        .set_minor(minor)
        .set_access(Some(access.to_owned()));
    rule
}

fn oci(node: &DeviceNode, path: String) -> LinuxDevice {
    let mut device = LinuxDevice::default();
    device
        .set_path(PathBuf::from(path))
        .set_typ(oci_kind(node.kind))
        .set_major(node.major.into())
        .set_minor(node.minor.into())
        .set_file_mode(Some(node.mode))
        .set_uid(Some(node.uid))
        .set_gid(Some(node.gid));
    device
}

fn oci_kind(kind: DeviceKind) -> LinuxDeviceType {
    match kind {
        DeviceKind::Block => LinuxDeviceType::B,
        DeviceKind::Character => LinuxDeviceType::C,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::plan::fixture::Fixture;

    fn node(path: &str, major: u32, minor: u32) -> DeviceNode {
        DeviceNode {
            path: path.to_owned(),
            kind: DeviceKind::Character,
            major,
            minor,
            mode: 0o660,
            uid: 0,
            gid: 5,
        }
    }

    fn host() -> HostFacts {
        HostFacts {
            devices: vec![node("/dev/fuse", 10, 229), node("/dev/kvm", 10, 232)],
            requested_devices: BTreeMap::from([
                ("/dev/fuse".to_owned(), vec![node("/dev/fuse", 10, 229)]),
                (
                    "/dev/snd".to_owned(),
                    vec![
                        node("/dev/snd/seq", 116, 1),
                        node("/dev/snd/timer", 116, 33),
                    ],
                ),
            ]),
            ..HostFacts::default()
        }
    }

    fn request(host_path: &str, container_path: &str, permissions: &str) -> Device {
        Device {
            host_path: host_path.to_owned(),
            container_path: container_path.to_owned(),
            permissions: permissions.to_owned(),
        }
    }

    fn text(rules: &[LinuxDeviceCgroup]) -> Vec<String> {
        rules
            .iter()
            .map(|rule| format!("{} {rule}", if rule.allow() { "+" } else { "-" }))
            .collect()
    }

    #[test]
    fn everything_is_denied_but_the_standard_devices() {
        let devices = requested(false, &[], &host()).unwrap();
        assert!(devices.nodes.is_empty());
        assert_eq!(
            text(&devices.rules)[..4],
            ["- a *:* rwm", "+ c *:* m", "+ b *:* m", "+ c 1:3 rwm"]
        );
        assert_eq!(text(&devices.rules).last().unwrap(), "+ c 136:* rwm");
    }

    #[test]
    fn a_requested_device_is_made_and_allowed_as_asked() {
        let asked = [request("/dev/fuse", "/dev/other", "rw")];
        let devices = requested(false, &asked, &host()).unwrap();
        assert_eq!(devices.nodes[0].path(), &PathBuf::from("/dev/other"));
        assert_eq!(devices.nodes[0].file_mode(), Some(0o660));
        assert_eq!(text(&devices.rules).last().unwrap(), "+ c 10:229 rw");
    }

    #[test]
    fn a_directory_stands_for_all_devices_below_it() {
        let devices = requested(false, &[request("/dev/snd", "/dev/sound", "r")], &host()).unwrap();
        let paths: Vec<_> = devices
            .nodes
            .iter()
            .map(|node| node.path().display().to_string())
            .collect();
        assert_eq!(paths, ["/dev/sound/seq", "/dev/sound/timer"]);
    }

    #[test]
    fn privileged_has_all_of_the_hosts_and_no_limit() {
        let devices = requested(true, &[request("/dev/fuse", "", "")], &host()).unwrap();
        assert_eq!(devices.nodes.len(), 2);
        assert_eq!(text(&devices.rules)[0], "+ a *:* rwm");
    }

    #[test]
    fn what_is_no_device_or_no_permission_is_refused() {
        let missing = requested(false, &[request("/dev/nope", "", "r")], &host()).unwrap_err();
        assert!(
            missing
                .to_string()
                .contains("devices[0].host_path: \"/dev/nope\""),
            "{missing}"
        );
        for text in ["x", "rr", "r w"] {
            let asked = [request("/dev/fuse", "", text)];
            assert!(requested(false, &asked, &host()).is_err(), "{text}");
        }
    }

    #[test]
    fn what_a_cdi_device_brings_is_its_files_else_the_users_else_the_hosts() {
        let file = |more: &str| {
            let text = format!(
                r#"{{"cdiVersion": "0.6.0", "kind": "v/c", "devices": [{{"name": "a",
                "containerEdits": {{"deviceNodes": [{{"path": "/dev/fuse"{more}}}]}}}}]}}"#
            );
            let read: crate::cdi::Specification = serde_json::from_str(&text).unwrap();
            let catalogue = crate::cdi::Catalogue {
                directories: &[],
                files: vec![crate::cdi::Found {
                    file: "f".to_owned(),
                    priority: 0,
                    content: Ok(&read),
                }],
            };
            catalogue.inject(&["v/c=a".to_owned()]).unwrap()
        };
        let mut fixture = Fixture {
            cdi: file(""),
            ..Fixture::default()
        };
        assert!(of_container(&fixture.input()).is_err(), "nobody looked");
        fixture.cdi.nodes[0].found = Some(node("/dev/fuse", 10, 229));
        let made = |fixture: &Fixture| {
            let devices = of_container(&fixture.input()).unwrap();
            let node = devices.nodes.last().unwrap().clone();
            let rule = text(&devices.rules).last().unwrap().clone();
            (node.uid(), node.gid(), node.file_mode(), rule)
        };
        let (uid, gid, mode, rule) = made(&fixture);
        assert_eq!((uid, gid, mode), (Some(0), Some(5), Some(0o660)));
        assert_eq!(rule, "+ c 10:229 rwm");
        (fixture.user.uid, fixture.user.gid) = (33, 34);
        let (uid, gid, ..) = made(&fixture);
        assert_eq!((uid, gid), (Some(33), Some(34)));
        fixture.cdi = file(
            r#", "type": "b", "major": 8, "minor": 2, "uid": 7, "gid": 0, "fileMode": 256, "permissions": "r""#,
        );
        let (uid, gid, mode, rule) = made(&fixture);
        assert_eq!((uid, gid, mode), (Some(7), Some(0), Some(0o400)));
        assert_eq!(rule, "+ b 8:2 r");
    }
}
