//! How much a directory tree holds.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::engine::LayerUsage;

/// Entries looked at in one go; what lies beyond is not counted.
const MOST: u64 = 10_000_000;

const FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// One directory on the way down: who it is, and its subdirectories still to see.
struct Level {
    identity: (u64, u64),
    rest: Vec<CString>,
}

/// Bytes on disk and inodes below and with `path`, while others may be changing it.
/// Goes down and up again with one descriptor, so depth costs none.
pub(crate) fn measure(path: &Path) -> io::Result<LayerUsage> {
    let mut at: OwnedFd = rustix::fs::open(path, FLAGS, Mode::empty())?;
    let mut tally = Tally::default();
    let root = rustix::fs::fstat(&at)?;
    tally.add(&root);
    let mut levels = vec![Level {
        identity: identity(&root),
        rest: tally.list(&at)?,
    }];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.rest.pop() else {
            levels.pop();
            let Some(above) = levels.last() else { break };
            at = rustix::fs::openat(&at, "..", FLAGS, Mode::empty())?;
            if identity(&rustix::fs::fstat(&at)?) != above.identity {
                // Moved meanwhile: what was counted so far is the best answer.
                break;
            }
            continue;
        };
        match rustix::fs::openat(&at, &name, FLAGS, Mode::empty()) {
            Ok(child) => {
                let identity = identity(&rustix::fs::fstat(&child)?);
                at = child;
                levels.push(Level {
                    identity,
                    rest: tally.list(&at)?,
                });
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(tally.usage)
}

#[derive(Default)]
struct Tally {
    usage: LayerUsage,
    linked: HashSet<(u64, u64)>,
}

impl Tally {
    fn add(&mut self, stat: &Stat) {
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if stat.st_nlink > 1 && !directory && !self.linked.insert(identity(stat)) {
            return;
        }
        self.usage.inodes += 1;
        self.usage.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
    }

    /// Counts a directory's entries and returns those that are directories.
    fn list(&mut self, dir: &OwnedFd) -> io::Result<Vec<CString>> {
        let mut below = Vec::new();
        for entry in Dir::read_from(dir.as_fd())? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") || self.usage.inodes >= MOST {
                continue;
            }
            match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    self.add(&stat);
                    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                        below.push(name.to_owned());
                    }
                }
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(below)
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use carpel_sys::mount::{Flags, tmpfs};

    use super::*;

    #[test]
    fn depth_costs_no_descriptors() {
        let tmpfs = tmpfs(None, 0o700, Flags::NONE).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at = tmpfs.try_clone().unwrap();
        for _ in 0..5_000 {
            rustix::fs::mkdirat(&at, "d", Mode::from_raw_mode(0o700)).unwrap();
            at = rustix::fs::openat(&at, "d", flags, Mode::empty()).unwrap();
        }
        let path = format!("/proc/self/fd/{}/.", tmpfs.as_raw_fd());
        assert_eq!(measure(Path::new(&path)).unwrap().inodes, 5_001);
    }

    #[test]
    fn everything_is_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("a/b/c")).unwrap();
        std::fs::create_dir_all(at("d")).unwrap();
        std::fs::write(at("a/b/file"), vec![1; 100_000]).unwrap();
        std::fs::hard_link(at("a/b/file"), at("d/again")).unwrap();
        std::os::unix::fs::symlink("/", at("d/root")).unwrap();
        let usage = measure(dir.path()).unwrap();
        assert_eq!(usage.inodes, 7);
        assert!((100_000..200_000).contains(&usage.bytes), "{usage:?}");
    }
}
