//! Opens log files: the daemon does it, the holder only gets descriptors.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use carpel_sys::openat2::{self, OFlags};
use rustix::fs::{FileType, Mode};
use rustix::io::Errno;

use crate::error::Error;

/// Where a container's log is: absolute, or empty when it has none.
pub(super) fn path(directory: &str, relative: &str) -> String {
    if directory.is_empty() || relative.is_empty() {
        return String::new();
    }
    Path::new(directory).join(relative).display().to_string()
}

/// Opens `relative` below `directory` for appending, and makes it and its parents
/// if they are missing (mode 0640, as the kubelet's readers expect).
///
/// No symbolic link below the pod's log directory is followed, and nothing but a
/// regular file is opened: a container that can write there must neither choose which
/// file of the host grows nor make the daemon wait.
pub(super) fn open(directory: &str, relative: &str) -> Result<OwnedFd, Error> {
    let full = path(directory, relative);
    let failed = |error: io::Error| Error::io(format!("open log {full}"))(error);
    std::fs::create_dir_all(directory)
        .map_err(Error::io(format!("create log directory {directory}")))?;
    let place = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir: OwnedFd =
        rustix::fs::open(directory, place, Mode::empty()).map_err(|e| failed(e.into()))?;
    let (parents, name) = relative.rsplit_once('/').unwrap_or(("", relative));
    for part in parents
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
    {
        match rustix::fs::mkdirat(&dir, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        dir = openat2::open_no_links(&dir, part, place, 0).map_err(failed)?;
    }
    open_regular(&dir, name).map_err(failed)
}

/// Looks at what is there before it is opened, as opening alone can do things.
fn open_regular(dir: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    let append = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC;
    let create = append | OFlags::CREATE | OFlags::EXCL;
    match openat2::open_no_links(dir, name, create, 0o640) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made,
    }
    let found = openat2::open_no_links(dir, name, OFlags::PATH | OFlags::NOFOLLOW, 0)?;
    let stat = rustix::fs::fstat(&found)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "there is something that is no regular file",
        ));
    }
    let same = format!("/proc/self/fd/{}", found.as_raw_fd());
    Ok(rustix::fs::open(same, append, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::open;

    #[test]
    fn parents_are_made_and_the_file_is_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("pod").display().to_string();
        for text in ["a\n", "b\n"] {
            std::fs::File::from(open(&root, "web/0.log").unwrap())
                .write_all(text.as_bytes())
                .unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(dir.path().join("pod/web/0.log")).unwrap(),
            "a\nb\n"
        );
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        std::fs::write(&target, "").unwrap();
        let logs = dir.path().join("logs");
        std::fs::create_dir(&logs).unwrap();
        std::os::unix::fs::symlink(&target, logs.join("0.log")).unwrap();
        std::os::unix::fs::symlink(dir.path(), logs.join("web")).unwrap();
        let root = logs.display().to_string();
        assert!(open(&root, "0.log").is_err());
        assert!(open(&root, "web/target").is_err());
    }

    #[test]
    fn only_a_regular_file_is_a_log() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display().to_string();
        let mode = rustix::fs::Mode::RWXU;
        for (name, kind, device) in [
            ("fifo", rustix::fs::FileType::Fifo, 0),
            (
                "null",
                rustix::fs::FileType::CharacterDevice,
                rustix::fs::makedev(1, 3),
            ),
        ] {
            let path = dir.path().join(name);
            rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, device).unwrap();
            let _reader = (name == "fifo").then(|| {
                let both = std::fs::File::options().read(true).write(true).open(&path);
                both.unwrap()
            });
            let error = open(&root, name).unwrap_err().to_string();
            assert!(error.contains("no regular file"), "{name}: {error}");
        }
    }
}
