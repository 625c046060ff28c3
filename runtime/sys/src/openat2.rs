//! Path resolution that stays below a directory, whatever lies there.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType};
pub use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// The kernel asks to try again when a `..` raced with a rename.
const RETRIES: usize = 128;
/// As many symbolic links as the kernel follows in one path.
const LINKS: usize = 40;

/// Opens `path` with rules of resolution; `O_CLOEXEC` is always added.
pub fn open(
    dir: impl AsFd,
    path: impl AsRef<Path>,
    flags: OFlags,
    mode: u32,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(mode);
    let flags = flags | OFlags::CLOEXEC;
    for _ in 0..RETRIES {
        match rustix::fs::openat2(dir.as_fd(), path.as_ref(), flags, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return Ok(opened?),
        }
    }
    Err(Errno::AGAIN.into())
}

/// Opens `path` as a process would whose root is `root`: absolute links and `..`
/// lead back into it. Links of procfs that leave every root are refused.
pub fn open_in_root(
    root: impl AsFd,
    path: impl AsRef<Path>,
    flags: OFlags,
    mode: u32,
) -> io::Result<OwnedFd> {
    open(
        root,
        in_root(path.as_ref()),
        flags,
        mode,
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Opens `path`, which may not lead out of `dir` by any way, not even in between.
pub fn open_beneath(
    dir: impl AsFd,
    path: impl AsRef<Path>,
    flags: OFlags,
    mode: u32,
) -> io::Result<OwnedFd> {
    open(
        dir,
        path,
        flags,
        mode,
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Opens `path` below `dir` where nothing on the way may be a symbolic link.
pub fn open_no_links(
    dir: impl AsFd,
    path: impl AsRef<Path>,
    flags: OFlags,
    mode: u32,
) -> io::Result<OwnedFd> {
    open(
        dir,
        path,
        flags,
        mode,
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    )
}

/// What [`create_in_root`] makes where there is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    Directory,
    /// An empty regular file.
    File,
}

/// Makes a directory and all that lack above it; returns an `O_PATH` descriptor.
pub fn mkdir_all_in_root(
    root: impl AsFd,
    path: impl AsRef<Path>,
    mode: u32,
) -> io::Result<OwnedFd> {
    create_in_root(root, path, Make::Directory, mode)
}

/// Finds `path` inside `root`, making what is missing, and returns an `O_PATH`
/// descriptor of it. Links are followed as a process inside would, also when what
/// they lead to must be made first. The end may be of another kind than asked for
/// when it was there before.
pub fn create_in_root(
    root: impl AsFd,
    path: impl AsRef<Path>,
    make: Make,
    mode: u32,
) -> io::Result<OwnedFd> {
    let root = root.as_fd();
    let path = path.as_ref();
    match open_in_root(root, path, OFlags::PATH, 0) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    let mut walk = Walk::new(root, path)?;
    let mut links = 0;
    while let Some(name) = walk.rest.pop_front() {
        let last = walk.rest.is_empty();
        let next = walk.done.join(&name);
        match open_in_root(root, &next, OFlags::PATH, 0) {
            Ok(fd) => {
                walk.here = fd;
                walk.done = next;
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if let Some(target) = link_target(walk.here.as_fd(), &name)? {
            links += 1;
            if links > LINKS {
                return Err(Errno::LOOP.into());
            }
            walk.follow(root, &target)?;
            continue;
        }
        let kind = if last { make } else { Make::Directory };
        walk.here = make_one(walk.here.as_fd(), &name, kind, mode)?;
        walk.done = next;
    }
    Ok(walk.here)
}

/// How far the way to a path has been gone: `here` is what `done` names.
struct Walk {
    here: OwnedFd,
    done: PathBuf,
    rest: VecDeque<OsString>,
}

impl Walk {
    fn new(root: BorrowedFd<'_>, path: &Path) -> io::Result<Self> {
        let here = open_in_root(root, ".", OFlags::PATH, 0)?;
        Ok(Self {
            here,
            done: PathBuf::new(),
            rest: names(path).collect(),
        })
    }

    /// Goes on with the target of a link that lies in `here`.
    fn follow(&mut self, root: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
        if target.is_absolute() {
            self.here = open_in_root(root, ".", OFlags::PATH, 0)?;
            self.done = PathBuf::new();
        }
        for name in names(target).collect::<Vec<_>>().into_iter().rev() {
            self.rest.push_front(name);
        }
        Ok(())
    }
}

fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    })
}

fn link_target(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<PathBuf>> {
    match rustix::fs::readlinkat(dir, name, Vec::new()) {
        Ok(target) => Ok(Some(PathBuf::from(OsStr::from_bytes(target.as_bytes())))),
        Err(Errno::NOENT | Errno::INVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn make_one(dir: BorrowedFd<'_>, name: &OsStr, make: Make, mode: u32) -> io::Result<OwnedFd> {
    let bits = Mode::from_raw_mode(mode);
    let made = match make {
        Make::Directory => rustix::fs::mkdirat(dir, name, bits),
        Make::File => rustix::fs::mknodat(dir, name, FileType::RegularFile, bits, 0),
    };
    match made {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let kind = match make {
        Make::Directory => OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW,
        Make::File => OFlags::PATH | OFlags::NOFOLLOW,
    };
    open_no_links(dir, name, kind, 0)
}

/// The kernel takes an empty path for nothing; here it is the root.
fn in_root(path: &Path) -> &Path {
    if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    }
}

/// Whether an `O_PATH` descriptor names a directory.
pub fn is_directory(fd: impl AsFd) -> io::Result<bool> {
    let stat = rustix::fs::statat(fd.as_fd(), "", AtFlags::EMPTY_PATH)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("openat2-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("root")).unwrap();
            Self(path)
        }
        fn root(&self) -> PathBuf {
            self.0.join("root")
        }
        fn fd(&self) -> OwnedFd {
            fs::File::open(self.root()).unwrap().into()
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn creates_missing_parents() {
        let dir = Dir::new("parents");
        mkdir_all_in_root(dir.fd(), "/a/b/../c", 0o755).unwrap();
        assert!(dir.root().join("a/c").is_dir());
        assert!(dir.root().join("a/b").is_dir());
    }

    #[test]
    fn an_absolute_link_stays_inside() {
        let dir = Dir::new("absolute");
        let outside = dir.0.join("outside");
        fs::create_dir(&outside).unwrap();
        symlink(&outside, dir.root().join("x")).unwrap();
        create_in_root(dir.fd(), "x/file", Make::File, 0o644).unwrap();
        assert!(fs::read_dir(&outside).unwrap().next().is_none());
        let inside = dir.root().join(outside.strip_prefix("/").unwrap());
        assert!(inside.join("file").is_file());
    }

    #[test]
    fn dot_dot_links_stop_at_the_root() {
        let dir = Dir::new("dotdot");
        symlink("../../../..", dir.root().join("up")).unwrap();
        create_in_root(dir.fd(), "up/file", Make::File, 0o644).unwrap();
        assert!(dir.root().join("file").is_file());
    }

    #[test]
    fn a_dangling_link_is_completed_inside() {
        let dir = Dir::new("dangling");
        fs::create_dir(dir.root().join("etc")).unwrap();
        symlink(
            "../run/resolve/stub.conf",
            dir.root().join("etc/resolv.conf"),
        )
        .unwrap();
        create_in_root(dir.fd(), "/etc/resolv.conf", Make::File, 0o644).unwrap();
        assert!(dir.root().join("run/resolve/stub.conf").is_file());
    }

    #[test]
    fn a_link_to_itself_ends() {
        let dir = Dir::new("loop");
        symlink("self", dir.root().join("self")).unwrap();
        let error = mkdir_all_in_root(dir.fd(), "self/x", 0o755).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::LOOP.raw_os_error()));
        symlink("gone/../pong", dir.root().join("ping")).unwrap();
        symlink("ping", dir.root().join("pong")).unwrap();
        mkdir_all_in_root(dir.fd(), "ping/x", 0o755).unwrap_err();
    }

    #[test]
    fn beneath_refuses_what_leads_out() {
        let dir = Dir::new("beneath");
        symlink("..", dir.root().join("up")).unwrap();
        let error = open_beneath(dir.fd(), "up", OFlags::PATH, 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::XDEV.raw_os_error()));
        let error = open_no_links(dir.fd(), "up", OFlags::PATH, 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::LOOP.raw_os_error()));
    }

    #[test]
    fn magic_links_are_refused() {
        let proc: OwnedFd = fs::File::open("/proc").unwrap().into();
        let error = open_in_root(proc, "self/cwd", OFlags::PATH, 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::LOOP.raw_os_error()));
    }
}
