//! The mounts of a container, made or passed, attached below its root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use carpel_sys::mount::{self, Attr, Flags, FsContext};
use carpel_sys::openat2::{self, Make, OFlags};
use nix::errno::Errno;
use oci_spec::runtime::Mount;

use crate::cgroup;
use crate::error::{Context, Error, Result};
use crate::options::Options;

/// Places that the container's own tools trust, and that we write through: they
/// must be what they are called.
const PLAIN: [&str; 3] = ["/proc", "/sys", "/dev"];
/// Files of procfs that only tell about the host, and that tools put a container's
/// own view over.
const PROC_FILES: [&str; 8] = [
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "slabinfo",
    "stat",
    "swaps",
    "uptime",
];
const MOUNT_POINT_MODE: u32 = 0o755;

/// The tree of one container while it is put together.
#[derive(Debug)]
pub(crate) struct Tree<'a> {
    /// The attached root file system.
    pub(crate) root: BorrowedFd<'a>,
    /// A fresh `/dev`, if the container gets one.
    pub(crate) dev: Option<Dev>,
}

/// A tmpfs of the container's own that device nodes go into.
#[derive(Debug)]
pub(crate) struct Dev {
    pub(crate) mount: OwnedFd,
    /// To be made read-only when the nodes are there.
    pub(crate) seal: bool,
}

impl Tree<'_> {
    /// Attaches `passed`, or makes the mount by its type.
    pub(crate) fn add(
        &mut self,
        mount: &Mount,
        passed: Option<BorrowedFd<'_>>,
        hierarchies: &[cgroup::Hierarchy],
    ) -> Result<()> {
        let place = mount.destination();
        let kind = mount.typ().as_deref().unwrap_or("bind");
        guard_proc(place, kind, passed)?;
        let mut options = Options::new(mount.options().as_deref().unwrap_or_default());
        if let Some(passed) = passed {
            return self.attach(place, passed, is_dir(passed, place)?, false);
        }
        if options.bind || kind == "bind" {
            return self.bind(mount, &options);
        }
        if kind == "cgroup" || kind == "cgroup2" {
            return self.cgroup(place, &options, hierarchies);
        }
        let dev = place == Path::new("/dev") && kind == "tmpfs";
        let seal = dev && options.attr.set.contains(Flags::READ_ONLY);
        if seal {
            options.attr.set = options.attr.set.without(Flags::READ_ONLY);
        }
        let made = make(kind, mount.source().as_deref(), &options)
            .with(|| describe("mount", kind, place))?;
        if let Some(propagation) = options.attr.propagation {
            mount::set_attr(&made, &Attr::propagation(propagation), false)
                .with(|| describe("set the propagation of", kind, place))?;
        }
        let plain = kind == "proc" || kind == "sysfs" || kind == "tmpfs" && dev;
        self.attach(place, made.as_fd(), true, plain)?;
        if dev {
            self.dev = Some(Dev { mount: made, seal });
        }
        Ok(())
    }

    /// Binds a path of the holder's own tree.
    fn bind(&self, mount: &Mount, options: &Options) -> Result<()> {
        let place = mount.destination();
        let source = mount.source().as_deref().unwrap_or(Path::new(""));
        if !source.is_absolute() || !options.data.is_empty() {
            let what = format!(
                "bind mount of {} on {} with options {:?}",
                source.display(),
                place.display(),
                options.data
            );
            return Err(Error::Invalid(what));
        }
        let made = mount::clone_path(source, options.recursive_bind)
            .with(|| describe("bind", &source.to_string_lossy(), place))?;
        apply(&made, options, place)?;
        self.attach(place, made.as_fd(), is_dir(made.as_fd(), place)?, false)
    }

    fn cgroup(
        &self,
        place: &Path,
        options: &Options,
        hierarchies: &[cgroup::Hierarchy],
    ) -> Result<()> {
        let made = cgroup::base(hierarchies, options.attr.set)
            .with(|| describe("mount", "cgroup", place))?;
        self.attach(place, made.as_fd(), true, false)?;
        cgroup::attach_hierarchies(&made, hierarchies, options.attr.set)
            .with(|| describe("mount", "cgroup", place))
    }

    fn attach(
        &self,
        place: &Path,
        made: BorrowedFd<'_>,
        directory: bool,
        plain: bool,
    ) -> Result<()> {
        let plain = plain || PLAIN.iter().any(|path| place == Path::new(path));
        let target = self.mount_point(place, directory, plain)?;
        guard_target(place, &target)?;
        mount::attach(made, target).with(|| format!("attach the mount on {}", place.display()))
    }

    /// Finds the place inside the root, and makes it where the image has none.
    fn mount_point(&self, place: &Path, directory: bool, plain: bool) -> Result<OwnedFd> {
        if !place.is_absolute() || place.components().count() < 2 {
            let what = format!("mount on {}: not a path below the root", place.display());
            return Err(Error::Invalid(what));
        }
        let make = if directory {
            Make::Directory
        } else {
            Make::File
        };
        let what = || format!("make the mount point {}", place.display());
        if plain {
            return self.plain_directory(place, what);
        }
        match openat2::create_in_root(self.root, place, make, MOUNT_POINT_MODE) {
            Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => Err(Error::Invalid(
                format!("{} of the image leads through a bad link", place.display()),
            )),
            other => other.with(what),
        }
    }

    /// A directory that is reached without any symbolic link.
    fn plain_directory(&self, place: &Path, what: impl Fn() -> String) -> Result<OwnedFd> {
        let below: PathBuf = place.components().skip(1).collect();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let find = || openat2::open_no_links(self.root, &below, flags, 0);
        let found = match find() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                openat2::mkdir_all_in_root(self.root, place, MOUNT_POINT_MODE).with(&what)?;
                find()
            }
            found => found,
        };
        match found {
            Err(error)
                if [Errno::ELOOP, Errno::ENOTDIR, Errno::EXDEV]
                    .iter()
                    .any(|errno| error.raw_os_error() == Some(*errno as i32)) =>
            {
                Err(Error::Invalid(format!(
                    "{} of the image is not a directory",
                    place.display()
                )))
            }
            other => other.with(what),
        }
    }
}

/// Nothing but a procfs may stand in for it, nor for a part of it that programs
/// rely on.
fn guard_proc(place: &Path, kind: &str, passed: Option<BorrowedFd<'_>>) -> Result<()> {
    let Ok(below) = place.strip_prefix("/proc") else {
        return Ok(());
    };
    let allowed = if below.as_os_str().is_empty() {
        match passed {
            Some(fd) => mount::is_procfs(fd).during("look at the mount for /proc")?,
            None => kind == "proc",
        }
    } else {
        PROC_FILES.iter().any(|file| below == Path::new(file))
    };
    if allowed {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "mount on {}: only a procfs may be there",
        place.display()
    )))
}

/// The same for what a link of the image leads to.
fn guard_target(place: &Path, target: &OwnedFd) -> Result<()> {
    let on_proc = mount::is_procfs(target).with(|| format!("look at {}", place.display()))?;
    if on_proc && !place.starts_with("/proc") {
        let what = format!("mount on {}: leads into a procfs", place.display());
        return Err(Error::Invalid(what));
    }
    Ok(())
}

fn describe(verb: &str, what: &str, place: &Path) -> String {
    format!("{verb} {what} on {}", place.display())
}

fn make(kind: &str, source: Option<&Path>, options: &Options) -> std::io::Result<OwnedFd> {
    let context = FsContext::open(kind)?;
    if let Some(source) = source {
        context.string("source", source)?;
    }
    for option in &options.data {
        context.option(option)?;
    }
    context.mount(options.attr.set)
}

/// Changes what a mount was not made with.
fn apply(made: &OwnedFd, options: &Options, place: &Path) -> Result<()> {
    for (attr, recursive) in options.changes() {
        mount::set_attr(made, &attr, recursive)
            .with(|| format!("set the options of the mount on {}", place.display()))?;
    }
    Ok(())
}

fn is_dir(fd: BorrowedFd<'_>, place: &Path) -> Result<bool> {
    openat2::is_directory(fd).with(|| format!("look at the source of {}", place.display()))
}

/// Makes a mount read-only.
pub(crate) fn seal(mount: impl AsFd, recursive: bool) -> std::io::Result<()> {
    mount::set_attr(mount, &Attr::set(Flags::READ_ONLY), recursive)
}
