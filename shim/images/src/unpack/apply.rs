//! Makes the entries of a layer.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::reference::Digest;

use super::limits::{Fault, Limits};
use super::name::{Name, shown};
use super::tarball::{Kind, Member, Tarball};
use super::tree::{Tree, is_directory, is_whiteout, look, set_opaque};
use super::whiteout::{self, Whiteout};
use super::xattr::{self, Verdict};
use super::{Hashed, Inflate};

const BUFFER: usize = 128 << 10;
const SYMLINK_MAX: usize = 4095;

/// A layer as a directory, and what must be known of it.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// Digest of the archive as it is when not compressed.
    pub(crate) diff_id: Digest,
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
    /// Directories that no entry describes: theirs are the attributes of what lies
    /// below in the chain. The empty path is the root.
    pub(crate) implicit: Vec<Vec<u8>>,
    /// Nothing of the layers below shows through at all.
    pub(crate) opaque: bool,
}

/// Unpacks a layer, compressed or not, into the empty directory `root`.
pub(crate) fn unpack(source: impl Read, root: &Path, limits: &Limits) -> Result<Unpacked, Fault> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::open(root, flags, Mode::empty())
        .map_err(|e| Fault::io(format_args!("open {}", root.display()), e))?;
    let inflate = Inflate::open(source, limits).map_err(|e| Fault::read("layer", e))?;
    let mut tarball = Tarball::new(Hashed::new(inflate), limits.entries);
    let mut layer = Layer::new(dir);
    while let Some(member) = tarball.next()? {
        layer.apply(&member, &mut tarball)?;
    }
    let diff_id = tarball.finish()?.finish();
    layer.finish(diff_id)
}

struct Layer {
    tree: Tree,
    buffer: Vec<u8>,
    bytes: u64,
    /// Set last, since making entries in a directory changes its time.
    times: Vec<(Vec<u8>, (i64, u32))>,
    root_described: bool,
    opaque: bool,
}

impl Layer {
    fn new(root: OwnedFd) -> Self {
        Self {
            tree: Tree::new(root),
            buffer: vec![0; BUFFER],
            bytes: 0,
            times: Vec::new(),
            root_described: false,
            opaque: false,
        }
    }

    fn apply(&mut self, member: &Member, content: &mut impl Read) -> Result<(), Fault> {
        let name = Name::parse(&member.path)?;
        let refuse = |why: &str| Fault::Corrupt(format!("entry {}: {why}", shown(&member.path)));
        for (attribute, _) in &member.xattrs {
            if xattr::judge(attribute) == Verdict::Refuse {
                return Err(refuse(&format!(
                    "attribute {} is not allowed",
                    shown(attribute)
                )));
            }
        }
        if name.is_root() {
            return match member.kind {
                Kind::Directory => self.root(member),
                _ => Err(refuse("the root is no directory")),
            };
        }
        if let Some(whiteout) = whiteout::parse(name.base()) {
            return self.whiteout(&name, &whiteout);
        }
        let parent = self.tree.parent(&name)?;
        let done = match member.kind {
            Kind::File => return self.file(&parent, &name, member, content),
            Kind::Directory => return self.directory(&parent, &name, member),
            Kind::Symlink => self.symlink(&parent, &name, member)?,
            Kind::Hardlink => return self.hardlink(&parent, &name, member),
            Kind::Fifo => self.fifo(&parent, &name, member),
            Kind::Device => return Err(refuse("device nodes are not allowed")),
            Kind::Other(flag) => {
                return Err(refuse(&format!(
                    "entries of type {flag:#x} are not supported"
                )));
            }
        };
        done.map_err(|e| entry_fault(member, e))
    }

    fn root(&mut self, member: &Member) -> Result<(), Fault> {
        self.root_described = true;
        self.attributes(self.tree.root().as_fd(), member)?;
        self.times.push((Vec::new(), member.mtime));
        Ok(())
    }

    fn file(
        &mut self,
        parent: &OwnedFd,
        name: &Name,
        member: &Member,
        content: &mut impl Read,
    ) -> Result<(), Fault> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let base = name.base();
        let make = || rustix::fs::openat(parent, base, flags, Mode::from_raw_mode(0o600));
        let fd = self
            .tree
            .replace(parent, base, make)
            .map_err(|e| entry_fault(member, e))?;
        let mut file = std::fs::File::from(fd);
        let mut left = member.size;
        while left > 0 {
            let most = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(self.buffer.len());
            let n = content
                .read(&mut self.buffer[..most])
                .map_err(|e| Fault::read(format_args!("entry {}", shown(&member.path)), e))?;
            file.write_all(&self.buffer[..n])
                .map_err(|e| entry_fault(member, e))?;
            left -= n as u64;
        }
        self.bytes += member.size;
        self.attributes(file.as_fd(), member)?;
        rustix::fs::futimens(&file, &times(member.mtime)).map_err(|e| entry_fault(member, e))
    }

    fn directory(&mut self, parent: &OwnedFd, name: &Name, member: &Member) -> Result<(), Fault> {
        let fault = |e: Errno| entry_fault(member, e);
        let base = name.base();
        let before = look(parent, base).map_err(fault)?;
        if before.as_ref().is_none_or(|stat| !is_directory(stat)) {
            let make = || rustix::fs::mkdirat(parent, base, Mode::from_raw_mode(0o700));
            self.tree.replace(parent, base, make).map_err(fault)?;
        } else {
            self.tree.explicit(name.path());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(parent, base, flags, Mode::empty()).map_err(fault)?;
        // A hole and then a directory: what the layers below have in it is gone.
        if before.as_ref().is_some_and(is_whiteout) {
            set_opaque(dir.as_fd()).map_err(fault)?;
        }
        self.attributes(dir.as_fd(), member)?;
        let kept = self.tree.keep(name.path())?;
        self.times.push((kept, member.mtime));
        Ok(())
    }

    fn symlink(
        &mut self,
        parent: &OwnedFd,
        name: &Name,
        member: &Member,
    ) -> Result<Result<(), Errno>, Fault> {
        let target = &member.link[..];
        if target.is_empty() || target.len() > SYMLINK_MAX || target.contains(&0) {
            let why = format!("entry {}: malformed link target", shown(&member.path));
            return Err(Fault::Corrupt(why));
        }
        let base = name.base();
        let make = || rustix::fs::symlinkat(target, parent, base);
        Ok(self
            .tree
            .replace(parent, base, make)
            .and_then(|()| stamp(parent, base, member)))
    }

    fn fifo(&mut self, parent: &OwnedFd, name: &Name, member: &Member) -> Result<(), Errno> {
        let base = name.base();
        let make = || rustix::fs::mkfifoat(parent, base, Mode::from_raw_mode(0o600));
        self.tree.replace(parent, base, make)?;
        let mode = Mode::from_raw_mode(member.mode);
        stamp(parent, base, member)?;
        rustix::fs::chmodat(parent, base, mode, AtFlags::empty())
    }

    fn hardlink(&mut self, parent: &OwnedFd, name: &Name, member: &Member) -> Result<(), Fault> {
        let refuse = |why: &str| {
            let (entry, link) = (shown(&member.path), shown(&member.link));
            Fault::Corrupt(format!("entry {entry}: hard link to {link}: {why}"))
        };
        let target =
            Name::parse_target(&member.link).map_err(|fault| refuse(&fault.to_string()))?;
        let missing = "there is no such file in the layer";
        let from = self
            .tree
            .existing_parent(&target)
            .map_err(|_| refuse(missing))?;
        let stat = look(&from, target.base()).map_err(|e| entry_fault(member, e))?;
        let stat = stat
            .filter(|_| !target.is_root())
            .ok_or_else(|| refuse(missing))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::Symlink | FileType::Fifo => {}
            _ => return Err(refuse("it is no file")),
        }
        let base = name.base();
        let present = look(parent, base).map_err(|e| entry_fault(member, e))?;
        if present.is_some_and(|p| (p.st_dev, p.st_ino) == (stat.st_dev, stat.st_ino)) {
            return Ok(());
        }
        let link = || rustix::fs::linkat(&from, target.base(), parent, base, AtFlags::empty());
        let linked = self.tree.replace(parent, base, link);
        self.tree.inodes -= u64::from(linked.is_ok());
        linked.map_err(|e| entry_fault(member, e))
    }

    /// Within one layer an entry and the hole of its name do not concern each other,
    /// in whatever order they come: the hole is for the layers below.
    fn whiteout(&mut self, name: &Name, whiteout: &Whiteout<'_>) -> Result<(), Fault> {
        let fault = |e: Errno| Fault::io(format_args!("whiteout {}", shown(name.path())), e);
        match whiteout {
            Whiteout::Bookkeeping => Ok(()),
            Whiteout::Malformed => Err(Fault::Corrupt(format!(
                "entry {}: malformed whiteout",
                shown(name.path())
            ))),
            Whiteout::Opaque if name.parent().is_empty() => {
                self.opaque = true;
                Ok(())
            }
            Whiteout::Opaque => {
                self.tree.parent(name)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let dir = self.tree.open(name.parent(), flags);
                let dir = dir.map_err(|e| Fault::io("opaque directory", e))?;
                set_opaque(dir.as_fd()).map_err(fault)
            }
            Whiteout::Gone(base) => {
                let parent = self.tree.parent(name)?;
                match look(&parent, base).map_err(fault)? {
                    Some(stat) if is_directory(&stat) => {
                        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                        let flags = flags | OFlags::CLOEXEC;
                        let dir = rustix::fs::openat(&parent, *base, flags, Mode::empty());
                        set_opaque(dir.map_err(fault)?.as_fd()).map_err(fault)
                    }
                    Some(_) => Ok(()),
                    None => {
                        self.tree.inodes += 1;
                        let kind = FileType::CharacterDevice;
                        rustix::fs::mknodat(&parent, *base, kind, Mode::empty(), 0).map_err(fault)
                    }
                }
            }
        }
    }

    /// Owner before mode and attributes: a change of owner clears what they grant.
    fn attributes(&self, fd: BorrowedFd<'_>, member: &Member) -> Result<(), Fault> {
        let (uid, gid) = (Uid::from_raw(member.uid), Gid::from_raw(member.gid));
        let fault = |e: Errno| entry_fault(member, e);
        rustix::fs::fchown(fd, Some(uid), Some(gid)).map_err(fault)?;
        rustix::fs::fchmod(fd, Mode::from_raw_mode(member.mode)).map_err(fault)?;
        for (name, value) in &member.xattrs {
            if xattr::judge(name) != Verdict::Keep {
                continue;
            }
            match rustix::fs::fsetxattr(fd, &name[..], value, XattrFlags::empty()) {
                // A file system without them is the operator's choice; privileges
                // that a program counts on must not get lost in silence.
                Err(Errno::NOTSUP) if name.starts_with(b"user.") => {}
                set => set.map_err(fault)?,
            }
        }
        Ok(())
    }

    fn finish(self, diff_id: Digest) -> Result<Unpacked, Fault> {
        let Self {
            tree,
            bytes,
            times: directories,
            root_described,
            opaque,
            ..
        } = self;
        for (path, mtime) in directories.iter().rev() {
            // One that a later entry replaced has nothing to set.
            if let Ok(dir) = tree.open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)
            {
                rustix::fs::futimens(&dir, &times(*mtime))
                    .map_err(|e| Fault::io(format_args!("directory {}", shown(path)), e))?;
            }
        }
        let inodes = tree.inodes;
        let mut implicit = tree.into_implicit();
        if !root_described {
            implicit.push(Vec::new());
        }
        Ok(Unpacked {
            diff_id,
            bytes,
            inodes,
            implicit,
            opaque,
        })
    }
}

/// Owner and time of what cannot be opened.
fn stamp(parent: &OwnedFd, base: &[u8], member: &Member) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(member.uid), Gid::from_raw(member.gid));
    rustix::fs::chownat(
        parent,
        base,
        Some(uid),
        Some(gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    rustix::fs::utimensat(
        parent,
        base,
        &times(member.mtime),
        AtFlags::SYMLINK_NOFOLLOW,
    )
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Some errors are the entry's own doing, however the kernel puts them.
fn entry_fault(member: &Member, error: impl Into<std::io::Error>) -> Fault {
    let error = error.into();
    let what = format!("entry {}", shown(&member.path));
    match Errno::from_io_error(&error) {
        Some(Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::INVAL | Errno::MLINK) => {
            Fault::Corrupt(format!("{what} cannot be made: {error}"))
        }
        _ => Fault::io(what, error),
    }
}
