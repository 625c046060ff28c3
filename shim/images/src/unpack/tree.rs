//! The directory that a layer becomes, touched through descriptors only.
//!
//! Every lookup takes the layer's root for `/`, so a link leads at most back into
//! the layer; the last part of a name is never followed.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use carpel_sys::openat2::{open_in_root, open_no_links};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;

use crate::store::delete;

use super::limits::{Fault, KEPT_NAMES};
use super::name::{Name, shown};

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);
/// How often a name that is in the way is removed before giving up.
const ATTEMPTS: usize = 3;

pub(super) const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

pub(super) struct Tree {
    root: Rc<OwnedFd>,
    /// Parent of the entry before, which most entries share.
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Directories made because an entry lies in them, not by an entry of their own.
    implicit: BTreeSet<Vec<u8>>,
    kept: usize,
    pub(super) inodes: u64,
}

impl Tree {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self {
            root: Rc::new(root),
            last: None,
            implicit: BTreeSet::new(),
            kept: 0,
            inodes: 1,
        }
    }

    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }

    pub(super) fn into_implicit(self) -> Vec<Vec<u8>> {
        self.implicit.into_iter().collect()
    }

    /// Counts names that stay in memory, which an archive could have millions of.
    pub(super) fn keep(&mut self, name: &[u8]) -> Result<Vec<u8>, Fault> {
        self.kept += name.len() + size_of::<Vec<u8>>();
        if self.kept > KEPT_NAMES {
            return Err(Fault::Exhausted("layer has too many directories".into()));
        }
        Ok(name.to_vec())
    }

    /// The directory that `name` lies in, made where it is missing.
    pub(super) fn parent(&mut self, name: &Name) -> Result<Rc<OwnedFd>, Fault> {
        let path = name.parent();
        if let Some((last, fd)) = &self.last
            && last == path
        {
            return Ok(Rc::clone(fd));
        }
        let fd = Rc::new(self.directory(path)?);
        self.last = Some((path.to_vec(), Rc::clone(&fd)));
        Ok(fd)
    }

    /// The directory that `name` lies in, which must be there.
    pub(super) fn existing_parent(&self, name: &Name) -> io::Result<OwnedFd> {
        self.open(name.parent(), DIRECTORY)
    }

    /// Opens a directory of the layer by its path.
    pub(super) fn open(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        open_in_root(&self.root, as_path(path), flags, 0)
    }

    fn directory(&mut self, path: &[u8]) -> Result<OwnedFd, Fault> {
        match self.open(path, DIRECTORY) {
            Err(e) if lacks(&e) => self.make_directories(path),
            opened => opened.map_err(|e| parent_fault(path, e)),
        }
    }

    /// Goes from each directory to the next, so that a long way costs its length and
    /// not its square; only through a link the way starts at the root again.
    fn make_directories(&mut self, path: &[u8]) -> Result<OwnedFd, Fault> {
        let fault = |e: io::Error| parent_fault(path, e);
        let mut above = self.open(b"", DIRECTORY).map_err(fault)?;
        let ends = path
            .iter()
            .enumerate()
            .filter(|(_, b)| **b == b'/')
            .map(|(at, _)| at);
        let mut begin = 0;
        for end in ends.chain([path.len()]) {
            let (prefix, part) = (&path[..end], &path[begin..end]);
            let found = match open_no_links(&above, as_path(part), DIRECTORY, 0) {
                Err(e) if Errno::from_io_error(&e) == Some(Errno::LOOP) => {
                    self.open(prefix, DIRECTORY)
                }
                found => found,
            };
            above = match found {
                Err(e) if lacks(&e) => {
                    let kept = self.keep(prefix)?;
                    self.implicit.insert(kept);
                    self.make_directory(&above, part)
                        .map_err(|e| fault(e.into()))?
                }
                opened => opened.map_err(fault)?,
            };
            begin = end + 1;
        }
        Ok(above)
    }

    /// In the place of nothing or of a hole; the latter keeps hiding what is below.
    fn make_directory(&mut self, above: &OwnedFd, part: &[u8]) -> Result<OwnedFd, Errno> {
        let hole = look(above, part)?.as_ref().is_some_and(is_whiteout);
        if hole {
            self.remove(above, part)?;
        }
        rustix::fs::mkdirat(above, part, Mode::from_raw_mode(0o755))?;
        self.inodes += 1;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(above, part, flags, Mode::empty())?;
        if hole {
            set_opaque(made.as_fd())?;
        }
        Ok(made)
    }

    /// An entry made a directory its own that others had only implied.
    pub(super) fn explicit(&mut self, path: &[u8]) {
        self.implicit.remove(path);
    }

    /// Makes something under a name of which a later entry may take the place of an
    /// earlier one.
    pub(super) fn replace<T>(
        &mut self,
        parent: &OwnedFd,
        base: &[u8],
        mut make: impl FnMut() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        for _ in 0..ATTEMPTS {
            match make() {
                Err(Errno::EXIST) => self.remove(parent, base)?,
                Ok(made) => {
                    self.inodes += 1;
                    return Ok(made);
                }
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::EXIST)
    }

    /// Removes a name and all below it.
    pub(super) fn remove(&mut self, parent: &OwnedFd, base: &[u8]) -> Result<(), Errno> {
        self.last = None;
        match rustix::fs::unlinkat(parent, base, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {}
            done => return done,
        }
        let dir = rustix::fs::openat(
            parent,
            base,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        delete::contents(dir.as_fd()).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
        rustix::fs::unlinkat(parent, base, AtFlags::REMOVEDIR)
    }
}

/// What is under a name, itself and not what it may link to.
pub(super) fn look(parent: &OwnedFd, base: &[u8]) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(parent, base, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

pub(super) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Overlayfs takes a character device with number 0 for a hole.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(super) fn as_path(raw: &[u8]) -> &std::path::Path {
    use std::os::unix::ffi::OsStrExt;
    std::path::Path::new(std::ffi::OsStr::from_bytes(raw))
}

/// Makes overlayfs show nothing from below in a directory.
pub(super) fn set_opaque(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::fs::fsetxattr(dir, OPAQUE_XATTR, b"y", XattrFlags::empty())
}

/// A directory that is not there; a hole may stand in its place.
fn lacks(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// What stands in the way of a directory is the layer's own doing.
fn parent_fault(path: &[u8], error: io::Error) -> Fault {
    let what = format!("directory {}", shown(path));
    match Errno::from_io_error(&error) {
        Some(Errno::NOTDIR | Errno::LOOP | Errno::EXIST | Errno::NAMETOOLONG) => {
            Fault::Corrupt(format!("{what} cannot be made in the layer: {error}"))
        }
        _ => Fault::io(what, error),
    }
}
