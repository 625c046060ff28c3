//! The filesystems that the configuration points to.

use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags, StatVfsMountFlags, open, statfs, statvfs};
use toml::{Table, Value};

use super::config::at;
use crate::doctor::facts::{Config, Disk, Filesystem};

// <linux/magic.h>
const MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];
const OVERLAY: [i64; 1] = [0x794c_7630];
const NETWORK: [i64; 4] = [0x6969, 0xff53_4d42, 0xfe53_4d42, 0x0102_1997];
/// Of a directory, to see whether they have types.
const ENTRIES: usize = 50;

pub(super) fn look(table: &Table, config: &Config) -> Vec<Disk> {
    let mut disks = vec![
        disk("paths.root", &config.root),
        disk("paths.run", &config.run),
    ];
    // Content or writable layers may be somewhere else.
    for (key, path) in [
        ("images.root", ["images", "root"]),
        ("images.rootfs", ["images", "rootfs"]),
    ] {
        if let Some(place) = at(table, &path).and_then(Value::as_str)
            && !place.is_empty()
        {
            disks.push(disk(key, Path::new(place)));
        }
    }
    disks
}

fn disk(key: &'static str, path: &Path) -> Disk {
    let mut disk = Disk {
        key,
        path: path.to_owned(),
        ..Disk::default()
    };
    let place = nearest(path);
    match (statfs(&place), statvfs(&place)) {
        (Ok(kind), Ok(fs)) => {
            disk.kind = kind_of(kind.f_type);
            disk.bytes = fs.f_blocks * fs.f_frsize;
            disk.bytes_free = fs.f_bavail * fs.f_frsize;
            (disk.inodes, disk.inodes_free) = (fs.f_files, fs.f_favail);
            disk.read_only = fs.f_flag.contains(StatVfsMountFlags::RDONLY);
            disk.entry_types = entry_types(&place);
        }
        (Err(error), _) | (_, Err(error)) => disk.unreadable = Some(error.to_string()),
    }
    disk
}

/// The path, or what of it is there already.
fn nearest(path: &Path) -> PathBuf {
    let there = path.ancestors().find(|place| place.is_dir());
    there.unwrap_or(Path::new("/")).to_owned()
}

fn kind_of(magic: i64) -> Filesystem {
    match magic {
        magic if MEMORY.contains(&magic) => Filesystem::Memory,
        magic if OVERLAY.contains(&magic) => Filesystem::Overlay,
        magic if NETWORK.contains(&magic) => Filesystem::Network,
        _ => Filesystem::Disk,
    }
}

fn entry_types(path: &Path) -> Option<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let entries = Dir::new(open(path, flags, Mode::empty()).ok()?).ok()?;
    let mut types = entries.take(ENTRIES).flatten().filter_map(|entry| {
        let dots = [&b"."[..], b".."];
        (!dots.contains(&entry.file_name().to_bytes())).then(|| entry.file_type())
    });
    let first = types.next()?;
    Some(first != FileType::Unknown && types.all(|kind| kind != FileType::Unknown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_yet_is_judged_by_where_it_will_be() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let disk = disk("paths.root", &dir.path().join("a/b/c"));
        assert!(disk.bytes > 0 && disk.unreadable.is_none(), "{disk:?}");
        assert_eq!(disk.entry_types, Some(true));
        assert_eq!(nearest(&dir.path().join("a/b")), dir.path());
    }

    #[test]
    fn kinds_are_told_apart() {
        assert_eq!(kind_of(0x0102_1994), Filesystem::Memory);
        assert_eq!(kind_of(0x794c_7630), Filesystem::Overlay);
        assert_eq!(kind_of(0x6969), Filesystem::Network);
        assert_eq!(kind_of(0xef53), Filesystem::Disk);
    }
}
