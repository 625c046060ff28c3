//! Leaving and joining namespaces.

use std::io;
use std::ops::BitOr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sched::CloneFlags;
use rustix::fs::{CWD, Mode, OFlags};

/// A set of kinds of namespaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kinds(i32);

impl Kinds {
    pub const NONE: Self = Self(0);
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS);
    pub const PID: Self = Self(libc::CLONE_NEWPID);
    pub const NET: Self = Self(libc::CLONE_NEWNET);
    pub const IPC: Self = Self(libc::CLONE_NEWIPC);
    pub const UTS: Self = Self(libc::CLONE_NEWUTS);
    pub const CGROUP: Self = Self(libc::CLONE_NEWCGROUP);
    pub const USER: Self = Self(libc::CLONE_NEWUSER);

    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn bits(self) -> u32 {
        self.0.cast_unsigned()
    }

    fn flags(self) -> CloneFlags {
        CloneFlags::from_bits_retain(self.0)
    }
}

impl BitOr for Kinds {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Moves this process into fresh namespaces; a fresh PID namespace is only for its
/// future children.
pub fn unshare(kinds: Kinds) -> io::Result<()> {
    Ok(nix::sched::unshare(kinds.flags())?)
}

/// Joins the namespace that `fd` names, which must be of the one kind given, or
/// those of the given kinds that the process of a pidfd is in.
///
/// With the mount namespace the root and the working directory become its root.
pub fn join(fd: impl AsFd, kinds: Kinds) -> io::Result<()> {
    Ok(nix::sched::setns(fd.as_fd(), kinds.flags())?)
}

/// Opens a namespace by a path such as `/proc/1/ns/net`; anything else is refused.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    if crate::mount::filesystem_magic(fd.as_fd())? != libc::NSFS_MAGIC {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a namespace",
        ));
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_namespaces_are_opened() {
        let net = open(Path::new("/proc/self/ns/net")).unwrap();
        join(&net, Kinds::NET).unwrap();
        join(net, Kinds::UTS).unwrap_err();
        let error = open(Path::new("/etc/passwd")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_thread_leaves_its_namespaces() {
        let link = || std::fs::read_link("/proc/thread-self/ns/uts").unwrap();
        let before = link();
        let after = std::thread::spawn(move || {
            unshare(Kinds::UTS).unwrap();
            link()
        });
        assert_ne!(after.join().unwrap(), before);
    }
}
