//! What devices change about a container, put together.

use super::model::{Edits, Mount, Node};
use crate::devices::{DeviceKind, DeviceNode, permissions};
use crate::error::{Error, Result};
use crate::intent::{Propagation, Restrict};

/// The edits of all devices that a container asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Injection {
    pub(crate) env: Vec<(String, String)>,
    pub nodes: Vec<NodeEdit>,
    pub(crate) mounts: Vec<MountEdit>,
    /// Further groups of the container's processes.
    pub groups: Vec<u32>,
}

/// A device node to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEdit {
    pub(crate) path: String,
    /// Where the host has it.
    pub host_path: String,
    kind: Option<DeviceKind>,
    numbers: Option<(u32, u32)>,
    pub(crate) mode: Option<u32>,
    pub(crate) permissions: String,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    /// What the host has there; needed where the file leaves something open.
    pub found: Option<DeviceNode>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEdit {
    pub(crate) host_path: String,
    pub(crate) container_path: String,
    pub(crate) readonly: bool,
    pub(crate) recursive: bool,
    pub(crate) propagation: Propagation,
    pub(crate) restrict: Restrict,
    /// As the file says it.
    pub(crate) options: Vec<String>,
}

impl NodeEdit {
    /// The file leaves open what the host has to tell.
    pub fn needs_host(&self) -> bool {
        self.kind.is_none() || self.numbers.is_none()
    }

    /// Type, major and minor: the file's, else the host's.
    pub(crate) fn device(&self) -> Option<(DeviceKind, u32, u32)> {
        let found = self.found.as_ref();
        let kind = self.kind.or(found.map(|node| node.kind))?;
        let (major, minor) = self
            .numbers
            .or(found.map(|node| (node.major, node.minor)))?;
        Some((kind, major, minor))
    }
}

impl Injection {
    /// Adds edits; `device` is who asked for them.
    pub(super) fn add(&mut self, device: &str, edits: &Edits) -> Result<()> {
        refuse(device, edits)?;
        for entry in &edits.env {
            if let Some((name, value)) = entry.split_once('=') {
                self.env.push((name.to_owned(), value.to_owned()));
            }
        }
        for node in &edits.device_nodes {
            self.nodes.push(node_edit(device, node)?);
        }
        for mount in &edits.mounts {
            self.mounts.push(mount_edit(device, mount)?);
        }
        for group in &edits.additional_gids {
            // 0 stands for "none", as in the reference implementation.
            if *group != 0 && !self.groups.contains(group) {
                self.groups.push(*group);
            }
        }
        Ok(())
    }
}

/// What would change the container and cannot be done is never left out in silence.
fn refuse(device: &str, edits: &Edits) -> Result<()> {
    let field = || format!("CDI_devices[{device}]");
    if let Some(hook) = edits.hooks.first() {
        let why = format!(
            "the device needs the {} hook {:?}; hooks are not supported",
            hook.hook_name, hook.path
        );
        return Err(Error::unsupported(field(), why));
    }
    if let Some(net) = edits.net_devices.first() {
        let why = format!(
            "the device needs the network interface {:?}; moving interfaces is not supported",
            net.host_interface_name
        );
        return Err(Error::unsupported(field(), why));
    }
    if edits.intel_rdt.is_some() {
        let why = "the device needs Intel RDT, which is not supported";
        return Err(Error::unsupported(field(), why));
    }
    Ok(())
}

fn node_edit(device: &str, node: &Node) -> Result<NodeEdit> {
    let field = format!("CDI_devices[{device}]");
    let kind = match node.kind.as_str() {
        "" => None,
        "b" => Some(DeviceKind::Block),
        "c" | "u" => Some(DeviceKind::Character),
        other => {
            let why = format!(
                "device node {:?}: type {other:?} is not supported",
                node.path
            );
            return Err(Error::unsupported(field, why));
        }
    };
    let numbers = node.major.filter(|major| *major != 0);
    let host_path = if node.host_path.is_empty() {
        &node.path
    } else {
        &node.host_path
    };
    Ok(NodeEdit {
        path: node.path.clone(),
        host_path: host_path.clone(),
        kind,
        numbers: numbers.map(|major| (major, node.minor.unwrap_or(0))),
        mode: node.file_mode.map(|mode| mode & 0o777),
        permissions: permissions(&field, &node.permissions)?,
        uid: node.uid,
        gid: node.gid,
        found: None,
    })
}

fn mount_edit(device: &str, mount: &Mount) -> Result<MountEdit> {
    let unsupported = |what: String| {
        let why = format!(
            "mount on {:?}: {what} is not supported",
            mount.container_path
        );
        Error::unsupported(format!("CDI_devices[{device}]"), why)
    };
    if !matches!(mount.kind.as_str(), "" | "bind" | "none") {
        return Err(unsupported(format!("type {:?}", mount.kind)));
    }
    let mut edit = MountEdit {
        host_path: mount.host_path.clone(),
        container_path: mount.container_path.clone(),
        readonly: false,
        recursive: false,
        propagation: Propagation::Private,
        restrict: Restrict::default(),
        options: mount.options.clone(),
    };
    for option in &mount.options {
        match option.as_str() {
            "bind" | "private" | "rprivate" | "relatime" | "suid" | "dev" | "exec" => {}
            "rbind" => edit.recursive = true,
            "ro" => edit.readonly = true,
            "rw" => edit.readonly = false,
            "slave" | "rslave" => edit.propagation = Propagation::HostToContainer,
            "shared" | "rshared" => edit.propagation = Propagation::Bidirectional,
            "nosuid" => edit.restrict.nosuid = true,
            "nodev" => edit.restrict.nodev = true,
            "noexec" => edit.restrict.noexec = true,
            other => return Err(unsupported(format!("option {other:?}"))),
        }
    }
    Ok(edit)
}
