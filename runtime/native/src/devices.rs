//! Device nodes and the links that belong in every `/dev`.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use carpel_sys::openat2;
use nix::errno::Errno;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid};

use crate::error::{Context, Error, Result};
use crate::mounts::Tree;

const NODES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("core", "/proc/kcore"),
];

const NODE_MODE: u32 = 0o666;

/// A device node to be made.
struct Node {
    kind: FileType,
    device: u64,
    mode: u32,
    owner: Option<(u32, u32)>,
}

/// Fills the container's own `/dev`; one that was passed along is left as it is.
pub(crate) fn populate(tree: &Tree<'_>, devices: &[LinuxDevice]) -> Result<()> {
    let Some(dev) = tree.dev.as_ref().map(|dev| dev.mount.as_fd()) else {
        return Ok(());
    };
    for (name, major, minor) in NODES {
        let device = rustix::fs::makedev(major, minor);
        let node = Node {
            kind: FileType::CharacterDevice,
            device,
            mode: NODE_MODE,
            owner: None,
        };
        make(dev, OsStr::new(name), &node).with(|| format!("make device /dev/{name}"))?;
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, dev, name).with(|| format!("make link /dev/{name}"))?;
    }
    for device in devices {
        add(tree, dev, device)?;
    }
    Ok(())
}

fn add(tree: &Tree<'_>, dev: BorrowedFd<'_>, device: &LinuxDevice) -> Result<()> {
    let path = device.path();
    let what = || format!("make device {}", path.display());
    let (Some(parent), Some(name), true) = (path.parent(), path.file_name(), path.is_absolute())
    else {
        return Err(Error::Invalid(format!("device path {}", path.display())));
    };
    let node = node(device)?;
    if parent == Path::new("/dev") {
        if LINKS.iter().any(|(link, _)| name == OsStr::new(link)) {
            return Ok(());
        }
        return make(dev, name, &node).with(what);
    }
    let parent = openat2::mkdir_all_in_root(tree.root, parent, 0o755).with(what)?;
    make(parent.as_fd(), name, &node).with(what)
}

fn node(device: &LinuxDevice) -> Result<Node> {
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::P => FileType::Fifo,
        LinuxDeviceType::A => {
            let what = format!("device {} has no type", device.path().display());
            return Err(Error::Invalid(what));
        }
    };
    let (Ok(major), Ok(minor)) = (u32::try_from(device.major()), u32::try_from(device.minor()))
    else {
        let what = format!("numbers of device {}", device.path().display());
        return Err(Error::Invalid(what));
    };
    Ok(Node {
        kind,
        device: if kind == FileType::Fifo {
            0
        } else {
            rustix::fs::makedev(major, minor)
        },
        mode: device.file_mode().unwrap_or(NODE_MODE) & 0o7777,
        owner: Some((device.uid().unwrap_or(0), device.gid().unwrap_or(0))),
    })
}

fn make(dir: BorrowedFd<'_>, name: &OsStr, node: &Node) -> rustix::io::Result<()> {
    let mode = Mode::from_raw_mode(node.mode);
    match rustix::fs::mknodat(dir, name, node.kind, mode, node.device) {
        Ok(()) => {}
        // One of ours, asked for again: perhaps with another owner or mode.
        Err(rustix::io::Errno::EXIST) => {
            let there = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(there.st_mode) != node.kind || there.st_rdev != node.device {
                return Err(rustix::io::Errno::EXIST);
            }
            rustix::fs::chmodat(dir, name, mode, AtFlags::empty())?;
        }
        Err(error) => return Err(error),
    }
    match node.owner {
        None | Some((0, 0)) => Ok(()),
        Some((uid, gid)) => {
            let uid = Some(Uid::from_raw_unchecked(uid));
            let gid = Some(Gid::from_raw_unchecked(gid));
            rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        }
    }
}

/// Whether a descriptor names the null device, by its number and not by its path.
pub(crate) fn is_null(fd: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    Ok(device && stat.st_rdev == rustix::fs::makedev(1, 3))
}

/// Not there, for one reason or another.
pub(crate) fn is_missing(error: &std::io::Error) -> bool {
    [Errno::ENOENT, Errno::ENOTDIR]
        .iter()
        .any(|e| error.raw_os_error() == Some(*e as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(typ: LinuxDeviceType, major: i64) -> LinuxDevice {
        let mut device = LinuxDevice::default();
        device
            .set_path("/dev/x".into())
            .set_typ(typ)
            .set_major(major)
            .set_minor(1);
        device
    }

    #[test]
    fn devices_without_a_type_or_number_are_refused() {
        assert!(matches!(
            node(&device(LinuxDeviceType::A, 1)),
            Err(Error::Invalid(_))
        ));
        assert!(matches!(
            node(&device(LinuxDeviceType::C, -1)),
            Err(Error::Invalid(_))
        ));
        assert!(matches!(
            node(&device(LinuxDeviceType::B, 1 << 40)),
            Err(Error::Invalid(_))
        ));
        assert_eq!(node(&device(LinuxDeviceType::P, 9)).unwrap().device, 0);
    }

    #[test]
    fn only_the_null_device_is_null() {
        let open = |path: &str| std::fs::File::open(path).unwrap();
        assert!(is_null(open("/dev/null").as_fd()).unwrap());
        assert!(!is_null(open("/dev/zero").as_fd()).unwrap());
        assert!(!is_null(open("/etc/passwd").as_fd()).unwrap());
    }
}
