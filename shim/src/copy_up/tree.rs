//! The walk over a directory of an image.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use carpel_sys::openat2::{self, ResolveFlags};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::file;

/// As many as a layer may have.
const MOST_ENTRIES: u64 = 2_000_000;
/// Names that are kept in memory at once: directories to come, and hard links.
const MOST_KEPT: usize = 64 << 20;
/// Of a path below the volume; the kernel takes no longer one.
const LONGEST: usize = 4095;

const INSIDE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_XDEV);
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW);

/// Why a volume cannot be filled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The image asks for what no honest one does.
    #[error("{0}")]
    Image(String),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
}

impl Fault {
    fn io(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("{what} {:?} of the image", path.display());
        move |source| Self::Io { what, source }
    }

    fn errno(what: &str, path: &Path) -> impl FnOnce(Errno) -> Self {
        let fault = Self::io(what, path);
        move |errno| fault(errno.into())
    }
}

/// Copies the directory that `path` names inside `rootfs`, whatever links are on the
/// way, into the empty directory `to`; owner and mode of `to` become those of the
/// image's. Where the image has nothing, nothing is done.
pub(crate) fn copy_up(rootfs: BorrowedFd<'_>, path: &Path, to: OwnedFd) -> Result<(), Fault> {
    let found = match openat2::open_in_root(rootfs, path, OFlags::PATH, 0) {
        Ok(found) => found,
        Err(error) if is_missing(&error) => return Ok(()),
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            let what = format!("volume {:?} leads through a bad link", path.display());
            return Err(Fault::Image(what));
        }
        Err(error) => return Err(Fault::io("open volume", path)(error)),
    };
    if !openat2::is_directory(&found).map_err(Fault::io("look at volume", path))? {
        let what = format!(
            "volume {:?} of the image is not a directory",
            path.display()
        );
        return Err(Fault::Image(what));
    }
    let from = openat2::open(&found, ".", DIRECTORY, 0, ResolveFlags::BENEATH)
        .map_err(Fault::io("open volume", path))?;
    let mut copy = Copy {
        from,
        to,
        pending: vec![PathBuf::new()],
        links: HashMap::new(),
        entries: 0,
        kept: 0,
    };
    while let Some(directory) = copy.pending.pop() {
        copy.directory(&directory)?;
    }
    Ok(())
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

struct Copy {
    from: OwnedFd,
    to: OwnedFd,
    /// Directories that are made and not filled yet, by path below the volume.
    pending: Vec<PathBuf>,
    /// Files with several names: by inode, where the copy is.
    links: HashMap<(u64, u64), PathBuf>,
    entries: u64,
    kept: usize,
}

impl Copy {
    fn directory(&mut self, path: &Path) -> Result<(), Fault> {
        let open = |dir: &OwnedFd| {
            let below = if path.as_os_str().is_empty() {
                Path::new(".")
            } else {
                path
            };
            openat2::open(dir, below, DIRECTORY, 0, INSIDE).map_err(Fault::io("open", path))
        };
        let (from, to) = (open(&self.from)?, open(&self.to)?);
        let entries = Dir::read_from(&from).map_err(Fault::errno("list", path))?;
        for entry in entries {
            let entry = entry.map_err(Fault::errno("list", path))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                self.count()?;
                self.entry(from.as_fd(), to.as_fd(), path, name)?;
            }
        }
        let like = rustix::fs::fstat(&from).map_err(Fault::errno("look at", path))?;
        file::dress(&from, &to, &like).map_err(Fault::errno("copy the attributes of", path))
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        directory: &Path,
        name: &OsStr,
    ) -> Result<(), Fault> {
        let path = directory.join(name);
        let failed = |what| Fault::errno(what, &path);
        let like =
            rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("look at"))?;
        match FileType::from_raw_mode(like.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::RWXU).map_err(failed("copy"))?;
                self.keep(&path)?;
                self.pending.push(path);
                Ok(())
            }
            FileType::RegularFile => self.regular(from, to, name, &path, &like),
            FileType::Symlink => symlink(from, to, name, &like).map_err(failed("copy link")),
            kind @ (FileType::Fifo | FileType::Socket) => {
                special(to, name, kind, &like).map_err(failed("copy"))
            }
            _ => {
                let what = format!("{:?} in a volume of the image is a device", path.display());
                Err(Fault::Image(what))
            }
        }
    }

    fn regular(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        like: &Stat,
    ) -> Result<(), Fault> {
        let inode = (like.st_dev, like.st_ino);
        if like.st_nlink > 1 {
            if let Some(first) = self.links.get(&inode) {
                return rustix::fs::linkat(&self.to, first, to, name, AtFlags::empty())
                    .map_err(Fault::errno("link", path));
            }
            self.keep(path)?;
            self.links.insert(inode, path.to_owned());
        }
        let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let source = openat2::open(from, name, read, 0, INSIDE).map_err(Fault::io("open", path))?;
        let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let target =
            openat2::open(to, name, write, 0o600, INSIDE).map_err(Fault::io("copy", path))?;
        let size = u64::try_from(like.st_size).unwrap_or_default();
        file::data(&source, &target, size)
            .and_then(|()| file::dress(&source, &target, like))
            .map_err(Fault::errno("copy", path))
    }

    fn count(&mut self) -> Result<(), Fault> {
        self.entries += 1;
        if self.entries > MOST_ENTRIES {
            let what = format!("a volume of the image has over {MOST_ENTRIES} entries");
            return Err(Fault::Image(what));
        }
        Ok(())
    }

    fn keep(&mut self, path: &Path) -> Result<(), Fault> {
        let length = path.as_os_str().len();
        self.kept += length + size_of::<PathBuf>();
        if length > LONGEST || self.kept > MOST_KEPT {
            let what = "a volume of the image is too deep, or has too many directories";
            return Err(Fault::Image(what.to_owned()));
        }
        Ok(())
    }
}

fn symlink(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &OsStr,
    like: &Stat,
) -> Result<(), Errno> {
    let target = rustix::fs::readlinkat(from, name, Vec::new())?;
    rustix::fs::symlinkat(target, to, name)?;
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(to, name, file::uid(like), file::gid(like), flags)?;
    rustix::fs::utimensat(to, name, &file::times(like), flags)
}

fn special(to: BorrowedFd<'_>, name: &OsStr, kind: FileType, like: &Stat) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(like.st_mode & 0o7777);
    rustix::fs::mknodat(to, name, kind, mode, 0)?;
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(to, name, file::uid(like), file::gid(like), flags)?;
    // Just made here, so it is no link.
    rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
    rustix::fs::utimensat(to, name, &file::times(like), flags)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    struct Case {
        image: tempfile::TempDir,
        volume: tempfile::TempDir,
    }

    impl Case {
        fn new() -> Self {
            let new = || tempfile::tempdir().unwrap();
            Self {
                image: new(),
                volume: new(),
            }
        }

        fn at(&self, path: &str) -> PathBuf {
            self.image.path().join(path)
        }

        fn copied(&self, path: &str) -> PathBuf {
            self.volume.path().join(path)
        }

        fn copy(&self, path: &str) -> Result<(), Fault> {
            let open = |path: &Path| OwnedFd::from(fs::File::open(path).unwrap());
            let root = open(self.image.path());
            copy_up(root.as_fd(), Path::new(path), open(self.volume.path()))
        }

        fn names(&self) -> Vec<String> {
            let names = fs::read_dir(self.volume.path()).unwrap();
            let mut names: Vec<_> = names
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    #[test]
    fn content_owners_modes_links_and_attributes_come_along() {
        let case = Case::new();
        fs::create_dir_all(case.at("data/sub/empty")).unwrap();
        fs::write(case.at("data/file"), "text").unwrap();
        fs::hard_link(case.at("data/file"), case.at("data/sub/second")).unwrap();
        fs::set_permissions(case.at("data/file"), PermissionsExt::from_mode(0o4751)).unwrap();
        symlink("/etc/passwd", case.at("data/link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            case.at("data/fifo"),
            FileType::Fifo,
            Mode::RUSR,
            0,
        )
        .unwrap();
        let key = "user.note";
        let set = |path: PathBuf| {
            rustix::fs::setxattr(path, key, b"kept", rustix::fs::XattrFlags::empty())
        };
        set(case.at("data/file")).unwrap();
        for (path, owner) in [("data", 7), ("data/file", 8), ("data/sub", 9)] {
            std::os::unix::fs::chown(case.at(path), Some(owner), Some(owner + 100)).unwrap();
        }
        fs::set_permissions(case.at("data/file"), PermissionsExt::from_mode(0o4751)).unwrap();
        fs::set_permissions(case.at("data"), PermissionsExt::from_mode(0o1770)).unwrap();
        case.copy("/data").unwrap();

        let of = |path: &str| fs::symlink_metadata(case.copied(path)).unwrap();
        let (top, file, sub) = (of(""), of("file"), of("sub"));
        assert_eq!(
            (top.uid(), top.gid(), top.mode() & 0o7777),
            (7, 107, 0o1770)
        );
        assert_eq!((file.uid(), file.mode() & 0o7777), (8, 0o4751));
        assert_eq!((sub.uid(), sub.gid()), (9, 109));
        assert_eq!(file.ino(), of("sub/second").ino());
        assert_eq!(
            file.mtime(),
            fs::metadata(case.at("data/file")).unwrap().mtime()
        );
        assert_eq!(fs::read_to_string(case.copied("file")).unwrap(), "text");
        let link = fs::read_link(case.copied("link")).unwrap();
        assert_eq!(link, Path::new("/etc/passwd"));
        assert!(std::os::unix::fs::FileTypeExt::is_fifo(
            &of("fifo").file_type()
        ));
        let mut value = [0; 16];
        let length = rustix::fs::getxattr(case.copied("file"), key, &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"kept");
        assert!(case.copied("sub/empty").is_dir());
    }

    /// CVE-2022-23648.
    #[test]
    fn no_path_and_no_link_leads_out_of_the_image() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "host").unwrap();
        let case = Case::new();
        fs::create_dir_all(case.at("etc")).unwrap();
        fs::write(case.at("etc/own"), "image").unwrap();
        symlink(outside.path(), case.at("absolute")).unwrap();
        symlink("../../../../../../../../etc", case.at("climbing")).unwrap();
        symlink("/proc/self/root/etc", case.at("magic")).unwrap();
        let out = outside.path().display().to_string();
        for path in ["/absolute", "/absolute/sub", "/magic", &out] {
            case.copy(path).unwrap();
            assert!(case.names().is_empty(), "{path}: {:?}", case.names());
        }
        case.copy("/../../etc").unwrap();
        assert_eq!(case.names(), ["own"]);
        fs::remove_file(case.copied("own")).unwrap();
        symlink("circle", case.at("circle")).unwrap();
        assert!(matches!(case.copy("/circle"), Err(Fault::Image(_))));
        case.copy("/climbing").unwrap();
        assert_eq!(case.names(), ["own"]);
    }

    #[test]
    fn a_file_or_a_device_is_refused_and_nothing_is_fine() {
        let case = Case::new();
        fs::write(case.at("file"), "").unwrap();
        let refused = case.copy("/file").unwrap_err().to_string();
        assert!(refused.contains("\"/file\"") && refused.contains("not a directory"));
        case.copy("/nowhere/at/all").unwrap();
        fs::create_dir(case.at("dev")).unwrap();
        let number = rustix::fs::makedev(1, 3);
        let node = case.at("dev/null");
        let kind = FileType::CharacterDevice;
        if rustix::fs::mknodat(rustix::fs::CWD, node, kind, Mode::RUSR, number).is_ok() {
            let refused = case.copy("/dev").unwrap_err().to_string();
            assert!(
                refused.contains("null") && refused.contains("device"),
                "{refused}"
            );
        }
    }

    #[test]
    fn what_is_too_deep_is_refused_in_bounded_work() {
        let case = Case::new();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at = rustix::fs::open(case.image.path(), flags, Mode::empty()).unwrap();
        let name = "d".repeat(200);
        for _ in 0..30 {
            rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, &name, flags, Mode::empty()).unwrap();
        }
        let refused = case.copy("/").unwrap_err();
        assert!(matches!(&refused, Fault::Image(_)), "{refused}");
    }
}
