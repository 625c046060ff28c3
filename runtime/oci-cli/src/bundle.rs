//! A bundle that only one worker sees.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use carpel_sys::mount::{self, Attr, Flags, Propagation};
use carpel_sys::namespace::{self, Kinds};
use carpel_sys::openat2;
use rustix::fs::CWD;

use crate::Place;
use crate::command::Command;
use crate::error::{Context, Error, Result};

/// Longest run of the runtime: less than its worker has.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
/// Name of the root filesystem.
pub(crate) const ROOTFS: &str = "rootfs";
/// Configuration, log, mount points.
const SIZE: u64 = 16 << 20;

/// A directory in memory, in a mount namespace of this process's own.
#[derive(Debug)]
pub(crate) struct Bundle {
    directory: PathBuf,
}

impl Bundle {
    /// Moves this process into a private copy of the place's mount namespace.
    ///
    /// What is unmounted on the host goes from the copy too, so that it keeps
    /// nothing busy; nothing goes the other way.
    pub(crate) fn enter(place: &Place) -> Result<Self> {
        namespace::join(&place.mount_namespace, Kinds::MOUNT)
            .during("enter the daemon's mount namespace")?;
        namespace::unshare(Kinds::MOUNT).during("make a mount namespace")?;
        let slave = Attr::propagation(Propagation::Slave);
        mount::set_attr_at(CWD, Path::new("/"), &slave, true).during("make all mounts slaves")?;
        let flags = Flags::NOSUID | Flags::NODEV;
        let memory = mount::tmpfs(Some(SIZE), 0o700, flags).during("make a bundle")?;
        let directory = place.directory.clone();
        mount::attach_at(&memory, CWD, &directory)
            .with(|| format!("attach the bundle on {}", directory.display()))?;
        place.runtime.make_root()?;
        Ok(Self { directory })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.directory
    }

    /// Attaches a detached mount under a name of ours.
    pub(crate) fn attach(&self, mount: BorrowedFd<'_>, name: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        let made = match openat2::is_directory(mount) {
            Ok(true) => fs::create_dir(&path),
            Ok(false) => fs::File::create(&path).map(drop),
            Err(error) => Err(error),
        };
        made.with(|| format!("make {name} of the bundle"))?;
        mount::attach_at(mount, CWD, &path).with(|| format!("attach {name} of the bundle"))?;
        Ok(path)
    }

    pub(crate) fn directory(&self, name: &str) -> Result<()> {
        let made = fs::create_dir(self.directory.join(name));
        made.with(|| format!("make {name} of the bundle"))
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.directory.join(name);
        fs::write(&path, bytes).with(|| format!("write {name} of the bundle"))?;
        Ok(path)
    }

    pub(crate) fn command(&self, place: &Place, verb: &str) -> Result<Command> {
        place.runtime.command(&self.directory.join("log"), verb)
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.directory.join("pid")
    }

    /// What the runtime wrote there.
    pub(crate) fn pid(&self) -> Result<i32> {
        let text = fs::read_to_string(self.pid_file()).during("read the runtime's pid file")?;
        let pid = text.trim().parse().ok().filter(|pid| *pid > 0);
        pid.ok_or_else(|| Error::Refused(format!("the runtime's pid file says {text:?}")))
    }
}

/// A copy of a path of this process's own tree, before it leaves that.
pub(crate) fn take_along(path: &Path) -> Result<std::os::fd::OwnedFd> {
    let taken = mount::clone_path(path, true);
    let taken = taken.with(|| format!("take {} along", path.display()))?;
    let private = Attr::propagation(Propagation::Private);
    mount::set_attr(taken.as_fd(), &private, true)
        .with(|| format!("make {} private", path.display()))?;
    Ok(taken)
}
