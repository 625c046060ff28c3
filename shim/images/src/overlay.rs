//! From directories to a root filesystem, for every engine that has directories.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use carpel_sys::mount::{self, Upper};

/// Makes a detached overlay of `lower` (topmost first, at least one) that writes to
/// `upper`. `work` must be on the same file system, and of this mount alone.
///
/// The mount is volatile where the kernel knows that: a container's own files do not
/// outlive a crash of the machine, and so cost no syncing.
pub fn mount(lower: &[PathBuf], upper: &Path, work: &Path) -> io::Result<OwnedFd> {
    let lower: Vec<&Path> = lower.iter().map(PathBuf::as_path).collect();
    forget_volatile(work)?;
    let with = |volatile| {
        mount::overlay(
            &lower,
            Some(Upper {
                dir: upper,
                work,
                volatile,
            }),
        )
    };
    match with(true) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => with(false),
        mounted => mounted,
    }
}

/// A volatile mount leaves a mark, which keeps the directories from being mounted
/// again. It stands for the fear that they were not synced before a crash; what was
/// written before the daemon alone died is all there.
fn forget_volatile(work: &Path) -> io::Result<()> {
    match crate::store::delete::path(&work.join("work/incompat")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn the_same_directories_mount_again() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["top", "base", "upper", "work"] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::write(at("base/a"), "base").unwrap();
        fs::write(at("top/a"), "top").unwrap();
        let lower = [at("top"), at("base")];
        let first = mount(&lower, &at("upper"), &at("work")).unwrap();
        let inside = |mount: &OwnedFd, name: &str| {
            PathBuf::from(format!("/proc/self/fd/{}/{name}", mount.as_raw_fd()))
        };
        assert_eq!(fs::read_to_string(inside(&first, "a")).unwrap(), "top");
        fs::write(inside(&first, "b"), "written").unwrap();
        let again = mount(&lower, &at("upper"), &at("work")).unwrap();
        drop(first);
        assert_eq!(fs::read_to_string(inside(&again, "b")).unwrap(), "written");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(dir.path().to_str().unwrap()));
    }
}
