//! One file's data and attributes.

use std::os::fd::AsFd;

use rustix::fs::{
    Gid, Mode, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags, fchmod, fchown, fgetxattr,
    flistxattr, fsetxattr, ftruncate, futimens, seek, sendfile,
};
use rustix::io::Errno;

/// Most that one call moves.
const CHUNK: u64 = 1 << 30;
/// The kernel's own limits (XATTR_LIST_MAX, XATTR_SIZE_MAX).
const XATTR_MAX: usize = 64 << 10;

/// Copies `size` bytes; holes stay holes, or a small image could fill the disk.
pub(super) fn data(from: impl AsFd, to: impl AsFd, size: u64) -> Result<(), Errno> {
    let mut at = 0;
    while at < size {
        let begin = match seek(&from, SeekFrom::Data(at)) {
            Ok(begin) => begin,
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => break,
            // A file system that knows no holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
            Err(errno) => return Err(errno),
        };
        let end = match seek(&from, SeekFrom::Hole(begin)) {
            Ok(end) => end.min(size),
            Err(_) => size,
        };
        range(&from, &to, begin, end)?;
        at = end.max(begin + 1);
    }
    ftruncate(&to, size)
}

fn range(from: impl AsFd, to: impl AsFd, begin: u64, end: u64) -> Result<(), Errno> {
    seek(&to, SeekFrom::Start(begin))?;
    let mut offset = begin;
    while offset < end {
        let count = usize::try_from((end - offset).min(CHUNK)).unwrap_or(usize::MAX);
        match sendfile(&to, &from, Some(&mut offset), count) {
            // Shorter than it said.
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Owner, mode, kept extended attributes and times; in this order, because a change
/// of owner takes set-id bits and file capabilities away.
pub(super) fn dress(from: impl AsFd, to: impl AsFd, like: &Stat) -> Result<(), Errno> {
    fchown(&to, uid(like), gid(like))?;
    fchmod(&to, Mode::from_raw_mode(like.st_mode & 0o7777))?;
    xattrs(&from, &to)?;
    futimens(&to, &times(like))
}

pub(super) fn uid(like: &Stat) -> Option<Uid> {
    Some(Uid::from_raw_unchecked(like.st_uid))
}

pub(super) fn gid(like: &Stat) -> Option<Gid> {
    Some(Gid::from_raw_unchecked(like.st_gid))
}

pub(super) fn times(like: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
    };
    Timestamps {
        last_access: time(like.st_atime, like.st_atime_nsec),
        last_modification: time(like.st_mtime, like.st_mtime_nsec),
    }
}

fn xattrs(from: impl AsFd, to: impl AsFd) -> Result<(), Errno> {
    let mut names = vec![0; XATTR_MAX];
    let length = match flistxattr(&from, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let names = names[..length].split(|byte| *byte == 0);
    for name in names.filter(|name| is_kept(name)) {
        let mut value = vec![0; XATTR_MAX];
        let length = fgetxattr(&from, name, &mut value[..])?;
        fsetxattr(&to, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}

/// Those that unpacking keeps: the rest speaks to overlayfs or to the host's modules.
fn is_kept(name: &[u8]) -> bool {
    name == b"security.capability"
        || name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn holes_stay_holes_and_data_stays_data() {
        let (mut from, mut to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let far = 40 << 20;
        from.write_all(b"begin").unwrap();
        from.seek(std::io::SeekFrom::Start(far)).unwrap();
        from.write_all(b"end").unwrap();
        from.set_len(far + (20 << 20)).unwrap();
        let size = from.metadata().unwrap().size();
        data(&from, &to, size).unwrap();
        let copied = to.metadata().unwrap();
        assert_eq!(copied.size(), size);
        assert!(copied.blocks() * 512 < 1 << 20, "{}", copied.blocks());
        let mut bytes = Vec::new();
        to.rewind().unwrap();
        to.read_to_end(&mut bytes).unwrap();
        assert!(bytes.starts_with(b"begin\0"));
        let far = usize::try_from(far).unwrap();
        assert_eq!(&bytes[far..far + 4], b"end\0");
    }

    #[test]
    fn attributes_for_the_host_are_not_kept() {
        for name in ["user.mime_type", "security.capability"] {
            assert!(is_kept(name.as_bytes()), "{name}");
        }
        for name in [
            "",
            "user.overlay.opaque",
            "trusted.overlay.opaque",
            "security.selinux",
            "system.posix_acl_access",
        ] {
            assert!(!is_kept(name.as_bytes()), "{name}");
        }
    }
}
