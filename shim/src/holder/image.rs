//! The holder's program, copied to where nobody can change it, and executed for
//! each pod.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use carpel_sys::mount::{self, Attr, Flags};
use rustix::fs::{Mode, OFlags};

use crate::error::Error;

/// Shown as the executable of every holder.
const NAME: &str = "carpel-holder";
const MODE: u32 = 0o500;
/// What a file system needs beside the file's own bytes.
const SPARE: u64 = 64 << 10;

/// A copy in memory, on a mount that is attached nowhere and read-only: a container
/// that reaches its holder's executable (CVE-2019-5736) can change neither its bytes
/// nor its mode, as it could of a sealed memfd. Replacing the file on disk during an
/// upgrade does not disturb this daemon.
#[derive(Debug)]
pub(crate) struct HolderImage {
    mount: OwnedFd,
}

impl HolderImage {
    pub(crate) fn load(configured: &Path) -> Result<Self, Error> {
        let path = locate(configured)?;
        let mount = copy(&path).map_err(Error::io(format!(
            "load the holder's binary {}",
            path.display()
        )))?;
        Ok(Self { mount })
    }

    /// Path under which a child of this process can execute it.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{NAME}", self.mount.as_raw_fd()))
    }
}

fn locate(configured: &Path) -> Result<PathBuf, Error> {
    if !configured.as_os_str().is_empty() {
        return Ok(configured.to_owned());
    }
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(|dir| dir.join("carpel-holder")));
    let candidates: Vec<PathBuf> = beside
        .into_iter()
        .chain(["/usr/libexec/carpel/carpel-holder".into()])
        .collect();
    candidates
        .iter()
        .find(|path| path.is_file())
        .cloned()
        .ok_or_else(|| {
            Error::Invalid(format!(
                "holder.binary is not set, and none of {candidates:?} is there"
            ))
        })
}

fn copy(path: &Path) -> io::Result<OwnedFd> {
    let mut source = File::open(path)?;
    let size = source.metadata()?.len() + SPARE;
    let mount = mount::tmpfs(Some(size), 0o700, Flags::NOSUID | Flags::NODEV)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&mount, NAME, flags, Mode::from_raw_mode(MODE))?;
    // Closed before the mount is made read-only, which an open writer would forbid.
    io::copy(&mut source, &mut File::from(file))?;
    mount::set_attr(&mount, &Attr::set(Flags::READ_ONLY), false)?;
    Ok(mount)
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::HolderImage;

    #[test]
    fn nothing_of_the_copy_can_be_changed() {
        let image = HolderImage::load(Path::new("/bin/true")).unwrap();
        let path = image.path();
        let writer = std::fs::OpenOptions::new().write(true).open(&path);
        assert_eq!(writer.unwrap_err().raw_os_error(), Some(30));
        let closed = set_permissions(&path, Permissions::from_mode(0));
        assert_eq!(closed.unwrap_err().raw_os_error(), Some(30));
        assert!(
            std::process::Command::new(&path)
                .status()
                .unwrap()
                .success()
        );
        let own = std::fs::read("/bin/true").unwrap();
        assert!(std::fs::read(&path).unwrap() == own);
    }

    #[test]
    fn a_missing_binary_is_named() {
        let error = HolderImage::load(Path::new("/nonexistent/holder")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/holder"), "{error}");
    }
}
