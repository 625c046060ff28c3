//! Removal of whole directories, of any depth, in constant memory.
//!
//! A tree that strangers made may be a hundred thousand directories deep: too deep
//! for recursion, for paths and for a descriptor each. So subdirectories are moved
//! up, to lie beside their parent, before it is removed; nothing is ever deeper than
//! one level below the directory being emptied.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use carpel_sys::openat2::{self, ResolveFlags};
use rustix::fs::{AtFlags, Dir, DirEntry, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// Removes whatever is at `path`; that there is nothing is no error.
pub fn path(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "no path to remove",
        ));
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = rustix::fs::open(parent, flags, Mode::empty())?;
    match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    let dir = match rustix::fs::openat(&parent, name, flags | OFlags::NOFOLLOW, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    contents(dir.as_fd())?;
    match rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        done => Ok(done?),
    }
}

/// Empties a directory. Never leaves its file system; what cannot be removed does
/// not keep the rest.
pub(crate) fn contents(dir: BorrowedFd<'_>) -> io::Result<()> {
    let mut sweep = Sweep {
        dir,
        fresh: 0,
        seen: 0,
        removed: 0,
        error: None,
    };
    loop {
        (sweep.seen, sweep.removed, sweep.error) = (0, 0, None);
        sweep.pass()?;
        match sweep.error {
            _ if sweep.seen == 0 => return Ok(()),
            Some(errno) if sweep.removed == 0 => return Err(errno.into()),
            None if sweep.removed == 0 => return Err(Errno::NOTEMPTY.into()),
            _ => {}
        }
    }
}

struct Sweep<'a> {
    dir: BorrowedFd<'a>,
    fresh: u64,
    seen: u64,
    removed: u64,
    error: Option<Errno>,
}

impl Sweep<'_> {
    fn pass(&mut self) -> io::Result<()> {
        for entry in Dir::read_from(self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_dot(name) {
                continue;
            }
            self.seen += 1;
            let done = if is_directory(self.dir, &entry) {
                self.directory(name)
            } else {
                rustix::fs::unlinkat(self.dir, name, AtFlags::empty())
            };
            match done {
                Ok(()) | Err(Errno::NOENT) => self.removed += 1,
                Err(errno) => {
                    self.error.get_or_insert(errno);
                }
            }
        }
        Ok(())
    }

    fn directory(&mut self, name: &CStr) -> Result<(), Errno> {
        // An empty one goes at once.
        match rustix::fs::unlinkat(self.dir, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            done => return done,
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        let child = openat2::open(self.dir, as_path(name), flags, 0, resolve)
            .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
        for entry in Dir::read_from(&child)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_dot(name) {
                continue;
            }
            let done = if is_directory(child.as_fd(), &entry) {
                self.move_up(child.as_fd(), name)
            } else {
                rustix::fs::unlinkat(&child, name, AtFlags::empty())
            };
            match done {
                Ok(()) => self.removed += 1,
                Err(Errno::NOENT) => {}
                Err(errno) => {
                    self.error.get_or_insert(errno);
                }
            }
        }
        rustix::fs::unlinkat(self.dir, name, AtFlags::REMOVEDIR)
    }

    fn move_up(&mut self, child: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        match rustix::fs::unlinkat(child, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            done => return done,
        }
        loop {
            let fresh = format!(".trash-{}", self.fresh);
            self.fresh += 1;
            let flags = RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(child, name, self.dir, &fresh, flags) {
                Err(Errno::EXIST) => {}
                done => return done,
            }
        }
    }
}

fn is_dot(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

fn as_path(name: &CStr) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()))
}

pub(super) fn is_directory(dir: BorrowedFd<'_>, entry: &DirEntry) -> bool {
    match entry.file_type() {
        FileType::Unknown => rustix::fs::statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory),
        kind => kind == FileType::Directory,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, OwnedFd};

    use carpel_sys::mount::{Flags, tmpfs};

    use super::*;

    /// Directories in each other, too deep for any path.
    fn nest(dir: &Path, depth: usize) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        std::fs::create_dir(dir).unwrap();
        let mut at: OwnedFd = rustix::fs::open(dir, flags, Mode::empty()).unwrap();
        for _ in 0..depth {
            rustix::fs::mkdirat(&at, "d", Mode::from_raw_mode(0o700)).unwrap();
            at = rustix::fs::openat(&at, "d", flags, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn a_hundred_thousand_levels_go() {
        // In memory: some disks take milliseconds for each directory.
        let tmpfs = tmpfs(None, 0o700, Flags::NONE).unwrap();
        let deep = format!("/proc/self/fd/{}/deep", tmpfs.as_raw_fd());
        let deep = Path::new(&deep);
        nest(deep, 100_000);
        path(deep).unwrap();
        assert!(!deep.exists());
    }

    #[test]
    fn wide_trees_go_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        std::fs::create_dir(&kept).unwrap();
        std::fs::write(kept.join("file"), "x").unwrap();
        let tree = dir.path().join("tree");
        for i in 0..50 {
            let sub = tree.join(format!("{i}/a/b"));
            std::fs::create_dir_all(&sub).unwrap();
            std::fs::write(sub.join("file"), "x").unwrap();
            std::fs::create_dir(tree.join(format!(".trash-{i}"))).unwrap();
            std::os::unix::fs::symlink(&kept, sub.join("link")).unwrap();
        }
        path(&tree).unwrap();
        assert!(!tree.exists());
        assert!(kept.join("file").exists());
    }

    #[test]
    fn nothing_and_files_are_fine() {
        let dir = tempfile::tempdir().unwrap();
        path(&dir.path().join("no")).unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        path(&file).unwrap();
        assert!(!file.exists());
    }
}
