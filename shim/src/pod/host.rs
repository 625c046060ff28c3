//! What the OCI configuration depends on that is the host's.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use carpel_cgroup::Version;
use carpel_spec::capability::CapSet;
use carpel_spec::intent::Device;
use carpel_spec::{CgroupVersion, DeviceKind, DeviceNode, HostFacts};

use crate::error::Error;

/// Folders of /dev that are not devices of the host, or are made in each container.
const NOT_DEVICES: [&str; 7] = [
    "/dev/pts",
    "/dev/shm",
    "/dev/fd",
    "/dev/mqueue",
    "/dev/console",
    "/dev/.lxc",
    "/dev/hugepages",
];
/// Of device nodes that one request may bring; a folder given by mistake is larger.
const MOST: usize = 4096;

/// Looks at the kernel and, as far as the container needs them, at the devices.
pub(super) fn facts(
    version: Version,
    pids_limit: i64,
    asked: &[Device],
    privileged: bool,
) -> Result<HostFacts, Error> {
    let mut requested_devices = BTreeMap::new();
    for device in asked {
        let nodes = nodes_at(Path::new(&device.host_path))?;
        if nodes.is_empty() {
            return Err(Error::Invalid(format!(
                "config.devices.host_path: {:?} is no device of this host",
                device.host_path
            )));
        }
        requested_devices.insert(device.host_path.clone(), nodes);
    }
    Ok(HostFacts {
        cgroup: match version {
            Version::V1 => CgroupVersion::V1,
            Version::V2 => CgroupVersion::V2,
        },
        capabilities: own_capabilities()?,
        hugepage_sizes: hugepage_sizes(),
        apparmor: fs::read_to_string("/sys/module/apparmor/parameters/enabled")
            .is_ok_and(|text| text.starts_with('Y')),
        selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        devices: if privileged {
            nodes_at(Path::new("/dev"))?
        } else {
            Vec::new()
        },
        requested_devices,
        pids_limit: Some(pids_limit).filter(|limit| *limit > 0),
    })
}

/// What we may give: a capability that we lack cannot be handed on.
fn own_capabilities() -> Result<CapSet, Error> {
    let path = "/proc/self/status";
    let text = fs::read_to_string(path).map_err(Error::io(format!("read {path}")))?;
    let bits = text
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .ok_or_else(|| Error::Internal(format!("{path} has no CapBnd")))?;
    Ok(CapSet::from_bits(bits))
}

fn hugepage_sizes() -> Vec<String> {
    let entries = fs::read_dir("/sys/kernel/mm/hugepages")
        .into_iter()
        .flatten()
        .flatten();
    let kilobytes = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_prefix("hugepages-")?
            .strip_suffix("kB")?
            .parse::<u64>()
            .ok()
    });
    kilobytes
        .map(|size| match size {
            size if size >= 1 << 20 => format!("{}GB", size >> 20),
            size if size >= 1 << 10 => format!("{}MB", size >> 10),
            size => format!("{size}KB"),
        })
        .collect()
}

/// The device nodes at a path or, if that is a folder, below it.
pub(super) fn nodes_at(path: &Path) -> Result<Vec<DeviceNode>, Error> {
    let mut nodes = Vec::new();
    let mut places = vec![path.to_owned()];
    while let Some(place) = places.pop() {
        if NOT_DEVICES.iter().any(|not| place == Path::new(not)) {
            continue;
        }
        // Followed only where the client itself points.
        let meta = if place == path {
            fs::metadata(&place)
        } else {
            fs::symlink_metadata(&place)
        };
        let Ok(meta) = meta else { continue };
        let kind = meta.file_type();
        if kind.is_dir() {
            let entries =
                fs::read_dir(&place).map_err(Error::io(format!("list {}", place.display())))?;
            places.extend(entries.flatten().map(|entry| entry.path()));
            continue;
        }
        let kind = match (kind.is_char_device(), kind.is_block_device()) {
            (true, _) => DeviceKind::Character,
            (_, true) => DeviceKind::Block,
            _ => continue,
        };
        nodes.push(DeviceNode {
            path: place.display().to_string(),
            kind,
            major: rustix::fs::major(meta.rdev()),
            minor: rustix::fs::minor(meta.rdev()),
            mode: meta.mode() & 0o777,
            uid: meta.uid(),
            gid: meta.gid(),
        });
        if nodes.len() > MOST {
            return Err(Error::Invalid(format!(
                "config.devices.host_path: {} has over {MOST} devices",
                path.display()
            )));
        }
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::nodes_at;

    #[test]
    fn a_device_is_found_by_its_path_and_in_its_folder() {
        let null = nodes_at(Path::new("/dev/null")).unwrap();
        assert_eq!((null.len(), null[0].major, null[0].minor), (1, 1, 3));
        assert!(
            nodes_at(Path::new("/dev"))
                .unwrap()
                .iter()
                .any(|node| node.path == "/dev/null")
        );
        assert!(nodes_at(Path::new("/etc/passwd")).unwrap().is_empty());
    }
}
