//! Reads an image's user tables without trusting them.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::BorrowedFd;

use carpel_sys::openat2::{self, OFlags};
use rustix::fs::FileType;

use crate::error::Error;

/// No real table is larger; a hostile one is not read on.
const LARGEST: u64 = 10 << 20;

/// The text of `path` in the root filesystem; empty if it is not there.
///
/// Only a regular file inside the root is read: a FIFO or a device would hang the
/// daemon, a link out of the root would show it the host's users.
pub(super) fn read_table(rootfs: BorrowedFd<'_>, path: &str) -> Result<String, Error> {
    let failed = |error: io::Error| Error::io(format!("open {path} of the image"))(error);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match openat2::open_in_root(rootfs, path, flags, 0) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
        Err(error) if error.kind() == ErrorKind::NotADirectory => return Ok(String::new()),
        Err(error) => return Err(failed(error)),
    };
    let stat = rustix::fs::fstat(&file).map_err(|e| failed(e.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::Invalid(format!(
            "{path} of the image is no regular file"
        )));
    }
    let mut bytes = Vec::new();
    File::from(file)
        .take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::io(format!("read {path} of the image")))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::Invalid(format!(
            "{path} of the image is larger than {LARGEST} bytes"
        )));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::read_table;

    #[test]
    fn only_a_regular_file_inside_the_root_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        std::fs::write(etc.join("passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
        std::os::unix::fs::symlink("/etc/hostname-outside", etc.join("group")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            etc.join("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        assert!(
            read_table(root.as_fd(), "etc/passwd")
                .unwrap()
                .starts_with("root:")
        );
        assert_eq!(read_table(root.as_fd(), "etc/group").unwrap(), "");
        assert_eq!(read_table(root.as_fd(), "etc/missing").unwrap(), "");
        assert!(read_table(root.as_fd(), "etc/fifo").is_err());
    }

    #[test]
    fn an_endless_file_is_not_read_on() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join("passwd")).unwrap();
        file.set_len(11 << 20).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        assert!(
            read_table(root.as_fd(), "passwd")
                .unwrap_err()
                .to_string()
                .contains("larger")
        );
    }
}
