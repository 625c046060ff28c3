//! Settings made through a procfs that no image can have tampered with.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use carpel_sys::mount;
use carpel_sys::openat2::{self, OFlags, ResolveFlags};
use nix::errno::Errno;

use crate::error::{Context, Error, Result};

/// The longest file that is read from here.
const MAX_READ: u64 = 64 << 10;

/// The procfs of the worker's own mount tree, opened before any container's tree
/// is entered, and never the container's.
#[derive(Debug)]
pub(crate) struct Procfs {
    root: OwnedFd,
}

impl Procfs {
    pub(crate) fn open() -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let root = openat2::open(
            rustix::fs::CWD,
            "/proc",
            flags,
            0,
            ResolveFlags::NO_SYMLINKS,
        )
        .during("open /proc")?;
        if mount::is_procfs(&root).during("look at /proc")? {
            Ok(Self { root })
        } else {
            Err(Error::Invalid(
                "/proc of the holder is not a procfs".to_owned(),
            ))
        }
    }

    /// Neither a mount over a part of the procfs nor a link out of it is gone through.
    fn file(&self, path: &str, flags: OFlags) -> io::Result<File> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        openat2::open(self.root.as_fd(), path, flags, 0, resolve).map(File::from)
    }

    fn write(&self, path: &str, value: &[u8]) -> io::Result<()> {
        self.file(path, OFlags::WRONLY)?.write_all(value)
    }

    /// Which cgroups this process is in, a line a hierarchy.
    pub(crate) fn own_cgroups(&self) -> Result<String> {
        self.read("self/cgroup").during("read /proc/self/cgroup")
    }

    fn read(&self, path: &str) -> io::Result<String> {
        let mut text = String::new();
        self.file(path, OFlags::RDONLY)?
            .take(MAX_READ)
            .read_to_string(&mut text)?;
        Ok(text)
    }

    /// What the process of a pidfd has, so that another one can be made its equal.
    pub(crate) fn oom_score_adj_of(&self, pidfd: BorrowedFd<'_>) -> Option<i32> {
        let info = self
            .read(&format!("self/fdinfo/{}", pidfd.as_raw_fd()))
            .ok()?;
        let pid: i32 = info
            .lines()
            .find_map(|line| line.strip_prefix("Pid:"))?
            .trim()
            .parse()
            .ok()?;
        self.read(&format!("{pid}/oom_score_adj"))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// Returns whether the kernel refused, as it does to lower the value without
    /// CAP_SYS_RESOURCE.
    pub(crate) fn set_oom_score_adj(&self, value: i32) -> Result<bool> {
        match self.write("self/oom_score_adj", value.to_string().as_bytes()) {
            Ok(()) => Ok(false),
            Err(error) if error.raw_os_error() == Some(Errno::EACCES as i32) => Ok(true),
            Err(source) => Err(Error::Os {
                what: format!("set oom_score_adj to {value}"),
                source,
            }),
        }
    }

    /// The AppArmor profile of the program that is executed next.
    pub(crate) fn set_apparmor(&self, profile: &str) -> Result<()> {
        let value = format!("exec {profile}");
        let own = self.write("self/attr/apparmor/exec", value.as_bytes());
        match own {
            // Kernels before 5.1 have the one place for all security modules.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.write("self/attr/exec", value.as_bytes())
            }
            other => other,
        }
        .map_err(|error| label_error("AppArmor profile", profile, error))
    }

    /// The SELinux label of the program that is executed next.
    pub(crate) fn set_selinux(&self, label: &str) -> Result<()> {
        self.write("self/attr/exec", label.as_bytes())
            .map_err(|error| label_error("SELinux label", label, error))
    }

    /// Sets a sysctl of the namespaces that this process is in.
    pub(crate) fn set_sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = format!("sys/{}", sysctl_path(name)?);
        self.write(&path, value.as_bytes())
            .with(|| format!("set sysctl {name} to {value:?}"))
    }
}

fn label_error(kind: &str, label: &str, source: io::Error) -> Error {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::EINVAL | Errno::EOPNOTSUPP) => Error::Unsupported(format!(
            "{kind} {label:?}: unknown, or not enabled in this kernel ({source})"
        )),
        _ => Error::Os {
            what: format!("set {kind} {label:?}"),
            source,
        },
    }
}

/// The file of a sysctl; the separator that comes first in the name decides which
/// of the two styles it is written in.
fn sysctl_path(name: &str) -> Result<String> {
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path: String = match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'.' => name.chars().map(swap).collect(),
        _ => name.to_owned(),
    };
    let sound = |part: &str| !part.is_empty() && part != "." && part != "..";
    if path.contains('\0') || !path.split('/').all(sound) {
        return Err(Error::Invalid(format!("sysctl {name:?} is not a name")));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctl_names_come_in_two_styles() {
        assert_eq!(
            sysctl_path("net.core.somaxconn").unwrap(),
            "net/core/somaxconn"
        );
        assert_eq!(
            sysctl_path("net.ipv4.conf.eth0/1.mtu").unwrap(),
            "net/ipv4/conf/eth0.1/mtu"
        );
        assert_eq!(
            sysctl_path("net/ipv4/conf/eth0.1/mtu").unwrap(),
            "net/ipv4/conf/eth0.1/mtu"
        );
    }

    #[test]
    fn sysctl_names_that_climb_are_refused() {
        for bad in ["", "..", "net..core", "net/../../self/mem", "a\0b", "//a"] {
            assert!(
                matches!(sysctl_path(bad), Err(Error::Invalid(_))),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn nothing_outside_of_the_procfs_is_reached() {
        let proc = Procfs::open().unwrap();
        assert!(proc.own_cgroups().unwrap().contains(':'));
        for path in ["../etc/passwd", "self/root/etc/passwd", "/etc/passwd"] {
            proc.file(path, OFlags::RDONLY).unwrap_err();
        }
    }
}
