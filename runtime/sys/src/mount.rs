//! The mount API on descriptors: a mount is made, changed and only then attached.
//!
//! Everything here returns a *detached* mount until [`attach`] puts it somewhere;
//! dropping the descriptor of a detached mount undoes it.

use std::ffi::OsStr;
use std::io;
use std::ops::BitOr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

mod overlay;

pub use overlay::{Upper, overlay};

/// Room for what the kernel has to say about one failed mount.
const LOG_BYTES: usize = 512;

/// Properties of a mount, as `mount_setattr(2)` counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(u64);

impl Flags {
    pub const NONE: Self = Self(0);
    pub const READ_ONLY: Self = Self(libc::MOUNT_ATTR_RDONLY);
    pub const NOSUID: Self = Self(libc::MOUNT_ATTR_NOSUID);
    pub const NODEV: Self = Self(libc::MOUNT_ATTR_NODEV);
    pub const NOEXEC: Self = Self(libc::MOUNT_ATTR_NOEXEC);
    pub const NOATIME: Self = Self(libc::MOUNT_ATTR_NOATIME);
    pub const STRICTATIME: Self = Self(libc::MOUNT_ATTR_STRICTATIME);
    pub const NODIRATIME: Self = Self(libc::MOUNT_ATTR_NODIRATIME);
    pub const NOSYMFOLLOW: Self = Self(libc::MOUNT_ATTR_NOSYMFOLLOW);

    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Whether mount events travel between a mount and its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Private,
    /// Events come in and none go out.
    Slave,
    Shared,
    Unbindable,
}

impl Propagation {
    fn bits(self) -> u64 {
        match self {
            Self::Private => libc::MS_PRIVATE,
            Self::Slave => libc::MS_SLAVE,
            Self::Shared => libc::MS_SHARED,
            Self::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// A change to a mount's properties; what is not named stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attr {
    pub set: Flags,
    pub clear: Flags,
    pub propagation: Option<Propagation>,
}

impl Attr {
    #[must_use]
    pub fn set(set: Flags) -> Self {
        Self {
            set,
            ..Self::default()
        }
    }

    #[must_use]
    pub fn propagation(propagation: Propagation) -> Self {
        Self {
            propagation: Some(propagation),
            ..Self::default()
        }
    }

    fn is_empty(&self) -> bool {
        self.set.is_empty() && self.clear.is_empty() && self.propagation.is_none()
    }
}

/// A file system being configured, before there is a mount of it.
#[derive(Debug)]
pub struct FsContext {
    fd: OwnedFd,
}

impl FsContext {
    pub fn open(fs: &str) -> io::Result<Self> {
        let fd = rustix::mount::fsopen(fs, FsOpenFlags::FSOPEN_CLOEXEC)?;
        Ok(Self { fd })
    }

    pub fn flag(&self, key: &str) -> io::Result<()> {
        rustix::mount::fsconfig_set_flag(self.fd.as_fd(), key).map_err(|e| self.explain(key, e))
    }

    pub fn string(&self, key: &str, value: impl AsRef<OsStr>) -> io::Result<()> {
        rustix::mount::fsconfig_set_string(self.fd.as_fd(), key, value.as_ref())
            .map_err(|e| self.explain(key, e))
    }

    /// Sets `key=value`, or a flag if there is no `=`.
    pub fn option(&self, option: &str) -> io::Result<()> {
        match option.split_once('=') {
            Some((key, value)) => self.string(key, value),
            None => self.flag(option),
        }
    }

    /// Gives a layer or a device as a descriptor (overlay: kernel 6.13 on).
    pub fn fd(&self, key: &str, value: BorrowedFd<'_>) -> io::Result<()> {
        rustix::mount::fsconfig_set_fd(self.fd.as_fd(), key, value)
            .map_err(|e| self.explain(key, e))
    }

    /// Makes the file system and a detached mount of it.
    pub fn mount(self, flags: Flags) -> io::Result<OwnedFd> {
        rustix::mount::fsconfig_create(self.fd.as_fd()).map_err(|e| self.explain("create", e))?;
        let attr = MountAttrFlags::from_bits_retain(u32::try_from(flags.0).unwrap_or(u32::MAX));
        rustix::mount::fsmount(self.fd.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attr)
            .map_err(|e| self.explain("fsmount", e))
    }

    /// Adds what the kernel wrote about the failure to the bare error number.
    fn explain(&self, what: &str, errno: rustix::io::Errno) -> io::Error {
        let error = io::Error::from(errno);
        let mut log = [0; LOG_BYTES];
        match rustix::io::read(self.fd.as_fd(), &mut log) {
            Ok(n) if n > 2 => {
                let text = String::from_utf8_lossy(&log[2..n]);
                io::Error::new(
                    error.kind(),
                    format!("{what}: {}: {error}", text.trim_end()),
                )
            }
            _ => error,
        }
    }
}

/// Makes a detached mount of a fresh file system; an option without `=` is a flag.
pub fn new_fs(fs: &str, options: &[&str], flags: Flags) -> io::Result<OwnedFd> {
    let context = FsContext::open(fs)?;
    for option in options {
        context.option(option)?;
    }
    context.mount(flags)
}

/// Makes a detached tmpfs; without a size the kernel takes half of the memory.
pub fn tmpfs(size: Option<u64>, mode: u32, flags: Flags) -> io::Result<OwnedFd> {
    let context = FsContext::open("tmpfs")?;
    context.string("mode", format!("{mode:o}"))?;
    if let Some(size) = size {
        context.string("size", size.to_string())?;
    }
    context.mount(flags)
}

/// Makes a detached copy of the mount that `path` (from `dir`) stands on, rooted
/// there; an empty path means `dir` itself. Symbolic links are followed.
pub fn clone_tree(dir: impl AsFd, path: impl AsRef<Path>, recursive: bool) -> io::Result<OwnedFd> {
    let path = path.as_ref();
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if path.as_os_str().is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    Ok(rustix::mount::open_tree(dir.as_fd(), path, flags)?)
}

/// The absolute-path form of [`clone_tree`].
pub fn clone_path(path: impl AsRef<Path>, recursive: bool) -> io::Result<OwnedFd> {
    clone_tree(CWD, path, recursive)
}

/// Changes a mount, attached or not, and with `recursive` all below it.
pub fn set_attr(mount: impl AsFd, attr: &Attr, recursive: bool) -> io::Result<()> {
    set_attr_at(mount, Path::new(""), attr, recursive)
}

/// Changes the mount at `path` (from `dir`); it must be the root of a mount.
pub fn set_attr_at(dir: impl AsFd, path: &Path, attr: &Attr, recursive: bool) -> io::Result<()> {
    if attr.is_empty() {
        return Ok(());
    }
    let mut clear = attr.clear.0;
    // The kinds of atime exclude each other, and the kernel wants the old one named.
    if attr.set.0 & libc::MOUNT_ATTR__ATIME != 0 {
        clear |= libc::MOUNT_ATTR__ATIME;
    }
    let raw = libc::mount_attr {
        attr_set: attr.set.0,
        attr_clr: clear,
        propagation: attr.propagation.map_or(0, Propagation::bits),
        userns_fd: 0,
    };
    mount_setattr(dir.as_fd(), path, &raw, recursive)
}

/// Maps the ids of a detached mount by those of a user namespace.
pub fn set_id_map(
    mount: BorrowedFd<'_>,
    user_namespace: BorrowedFd<'_>,
    recursive: bool,
) -> io::Result<()> {
    let raw = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(user_namespace.as_raw_fd()).unwrap_or(u64::MAX),
    };
    mount_setattr(mount, Path::new(""), &raw, recursive)
}

fn mount_setattr(
    dir: BorrowedFd<'_>,
    path: &Path,
    attr: &libc::mount_attr,
    recursive: bool,
) -> io::Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let mut flags = libc::AT_SYMLINK_NOFOLLOW;
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH;
    }
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: `path` is NUL-terminated and `attr` has the given size; the kernel
    // reads both during the call only and writes neither.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir.as_raw_fd(),
            path.as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Attaches a detached mount on the file or directory that `target` names.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount.as_fd(), "", target.as_fd(), "", flags)?;
    Ok(())
}

/// Attaches a detached mount at `path` (from `dir`); a symbolic link at its end is
/// not followed, those before it are: only for paths that are our own.
pub fn attach_at(mount: impl AsFd, dir: impl AsFd, path: impl AsRef<Path>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(mount.as_fd(), "", dir.as_fd(), path.as_ref(), flags)?;
    Ok(())
}

/// Takes the mount at `path`, and all below it, out of the tree at once.
pub fn detach(path: impl AsRef<Path>) -> io::Result<()> {
    let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    Ok(rustix::mount::unmount(path.as_ref(), flags)?)
}

/// Makes the mount on the working directory `/`, and leaves the old root detached.
///
/// The caller's working directory must be the root of a mount other than `/`.
pub fn pivot_to_cwd() -> io::Result<()> {
    // Both on one place: the old root comes to lie on the new one, where `.` finds
    // it again without any directory of the new root being touched.
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// The magic number of the file system that a descriptor is on.
pub fn filesystem_magic(fd: impl AsFd) -> io::Result<i64> {
    Ok(rustix::fs::fstatfs(fd.as_fd())?.f_type)
}

/// Whether a descriptor is on a procfs.
pub fn is_procfs(fd: impl AsFd) -> io::Result<bool> {
    Ok(filesystem_magic(fd)? == libc::PROC_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};

    #[test]
    fn a_tmpfs_takes_files_and_then_becomes_read_only() {
        let mount = tmpfs(Some(64 << 10), 0o750, Flags::NODEV).unwrap();
        let create = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(&mount, "a", create, Mode::RUSR).unwrap();
        assert_eq!(rustix::fs::fstat(&mount).unwrap().st_mode & 0o7777, 0o750);
        set_attr(&mount, &Attr::set(Flags::READ_ONLY), false).unwrap();
        let refused = rustix::fs::openat(&mount, "b", create, Mode::RUSR).unwrap_err();
        assert_eq!(refused, rustix::io::Errno::ROFS);
    }

    #[test]
    fn the_kernel_explains_a_bad_option() {
        let error = new_fs("tmpfs", &["sizes=1"], Flags::NONE).unwrap_err();
        assert!(error.to_string().contains("sizes"), "{error}");
    }

    #[test]
    fn a_procfs_is_known() {
        assert!(is_procfs(new_fs("proc", &[], Flags::NONE).unwrap()).unwrap());
        assert!(!is_procfs(tmpfs(None, 0o755, Flags::NONE).unwrap()).unwrap());
    }
}
