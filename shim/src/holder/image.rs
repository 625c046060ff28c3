//! The holder's program, sealed in memory once and executed for each pod.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::error::Error;

/// A copy that nothing can write to: a container that reaches its holder's
/// executable (CVE-2019-5736) changes nothing, and replacing the file on disk
/// during an upgrade does not disturb this daemon.
#[derive(Debug)]
pub(crate) struct HolderImage {
    memory: OwnedFd,
}

impl HolderImage {
    pub(crate) fn load(configured: &Path) -> Result<Self, Error> {
        let path = locate(configured)?;
        let memory = seal(&path).map_err(Error::io(format!(
            "load the holder's binary {}",
            path.display()
        )))?;
        Ok(Self { memory })
    }

    /// Path under which a child of this process can execute it.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.memory.as_raw_fd()))
    }
}

impl AsFd for HolderImage {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
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

fn seal(path: &Path) -> io::Result<OwnedFd> {
    let mut source = File::open(path)?;
    let memory = memfd_create(
        "carpel-holder",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?;
    let mut file = File::from(memory);
    io::copy(&mut source, &mut file)?;
    fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;

    use super::HolderImage;

    #[test]
    fn the_copy_cannot_be_written() {
        let image = HolderImage::load(Path::new("/bin/true")).unwrap();
        let mut file = std::fs::OpenOptions::new().write(true).open(image.path());
        if let Ok(file) = &mut file {
            assert!(file.write_all(b"x").is_err());
        }
    }

    #[test]
    fn a_missing_binary_is_named() {
        let error = HolderImage::load(Path::new("/nonexistent/holder")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/holder"), "{error}");
    }
}
