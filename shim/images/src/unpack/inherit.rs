//! Attributes of directories that a layer uses without describing them.
//!
//! In an overlay the topmost directory's owner and mode count, so one that was only
//! made because a file lies in it must look like the one it covers: a layer that
//! brings `tmp/file` alone must not take the sticky bit from `/tmp`.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use carpel_sys::openat2::open_in_root;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::limits::Fault;
use super::name::shown;
use super::tree::{OPAQUE_XATTR, as_path};

/// What one layer has to say about a directory.
enum Found {
    Directory(Stat),
    /// Nothing; the layers below may have it.
    Nothing,
    /// Something else stands there, or a hole: the layers below do not show.
    Hidden,
}

/// Gives the directories `implicit` of `layer` the attributes that they have in the
/// layers `below`, topmost first. Where none has one, root's and 0755 stay.
pub(crate) fn inherit(layer: &Path, below: &[PathBuf], implicit: &[Vec<u8>]) -> Result<(), Fault> {
    if implicit.is_empty() || below.is_empty() {
        return Ok(());
    }
    let open = |path: &Path| {
        rustix::fs::open(
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|e| Fault::io(format_args!("open {}", path.display()), e))
    };
    let root = open(layer)?;
    let below: Vec<OwnedFd> = below
        .iter()
        .map(|path| open(path))
        .collect::<Result<_, _>>()?;
    for path in implicit {
        let fault = |e: std::io::Error| Fault::io(format_args!("directory {}", shown(path)), e);
        for lower in &below {
            match find(lower, path).map_err(|e| fault(e.into()))? {
                Found::Directory(stat) => {
                    copy(&root, path, &stat).map_err(fault)?;
                    break;
                }
                Found::Nothing => {}
                Found::Hidden => break,
            }
        }
    }
    Ok(())
}

fn find(root: &OwnedFd, path: &[u8]) -> Result<Found, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut dir = rustix::fs::openat(root, ".", flags, Mode::empty())?;
    let mut opaque = false;
    for part in path.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
        let stat = match rustix::fs::statat(&dir, part, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) if opaque => return Ok(Found::Hidden),
            Err(Errno::NOENT) => return Ok(Found::Nothing),
            Err(errno) => return Err(errno),
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Ok(Found::Hidden);
        }
        dir = rustix::fs::openat(&dir, part, flags, Mode::empty())?;
        opaque |= is_opaque(&dir);
    }
    Ok(Found::Directory(rustix::fs::fstat(&dir)?))
}

fn is_opaque(dir: &OwnedFd) -> bool {
    let mut value = [0; 1];
    rustix::fs::fgetxattr(dir, OPAQUE_XATTR, &mut value).is_ok_and(|_| value == *b"y")
}

fn copy(root: &OwnedFd, path: &[u8], stat: &Stat) -> std::io::Result<()> {
    let path = if path.is_empty() { b"." } else { path };
    let dir = open_in_root(root, as_path(path), OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(&dir, Some(uid), Some(gid))?;
    rustix::fs::fchmod(&dir, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let time = Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(rustix::fs::futimens(&dir, &times)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn make(path: &Path, mode: u32) {
        std::fs::create_dir_all(path).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_topmost_directory_below_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        make(&at("new/tmp"), 0o755);
        make(&at("new/opt/x"), 0o755);
        make(&at("one/tmp"), 0o1777);
        make(&at("two/tmp"), 0o700);
        make(&at("two/opt/x"), 0o711);
        make(&at("one"), 0o751);
        let implicit = [b"tmp".to_vec(), b"opt/x".to_vec(), Vec::new()];
        inherit(&at("new"), &[at("one"), at("two")], &implicit).unwrap();
        assert_eq!(mode(&at("new/tmp")), 0o1777);
        assert_eq!(mode(&at("new/opt/x")), 0o711);
        assert_eq!(mode(&at("new")), 0o751);
    }

    #[test]
    fn what_is_hidden_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        make(&at("new/a/b"), 0o755);
        make(&at("one"), 0o755);
        std::os::unix::fs::symlink("/etc", at("one/a")).unwrap();
        make(&at("two/a/b"), 0o700);
        inherit(&at("new"), &[at("one"), at("two")], &[b"a/b".to_vec()]).unwrap();
        assert_eq!(mode(&at("new/a/b")), 0o755);
    }
}
