//! Data that travels as a descriptor: written once, sealed, read by the other side.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};

/// Makes a memory file of these bytes that nobody can change any more.
pub fn sealed(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create(name, flags)?);
    file.write_all(bytes)?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// Reads a whole file from its start, wherever its offset stands; a file longer
/// than `limit` is refused.
pub fn read(fd: impl AsFd, limit: usize) -> io::Result<Vec<u8>> {
    let fd = fd.as_fd();
    let size = usize::try_from(rustix::fs::fstat(fd)?.st_size).unwrap_or(usize::MAX);
    if size > limit {
        return Err(too_large(limit));
    }
    // One byte more than is there, so that the last read finds the end.
    let mut bytes = vec![0; size + 1];
    let mut len = 0;
    loop {
        match rustix::io::pread(fd, &mut bytes[len..], len as u64) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        if len > limit {
            return Err(too_large(limit));
        }
        if len == bytes.len() {
            bytes.resize(len * 2, 0);
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

fn too_large(limit: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::FileTooLarge,
        format!("longer than the limit of {limit} bytes"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_read_and_cannot_be_written() {
        let fd = sealed("test", b"data").unwrap();
        assert_eq!(read(&fd, 4).unwrap(), b"data");
        assert_eq!(read(&fd, 4).unwrap(), b"data", "the offset plays no part");
        File::from(fd).write_all(b"x").unwrap_err();
    }

    #[test]
    fn too_much_is_refused() {
        let fd = sealed("test", b"data").unwrap();
        assert_eq!(
            read(&fd, 3).unwrap_err().kind(),
            io::ErrorKind::FileTooLarge
        );
    }

    #[test]
    fn a_file_without_a_size_is_read_whole() {
        let status = File::open("/proc/self/status").unwrap();
        let text = read(&status, 1 << 16).unwrap();
        assert!(text.starts_with(b"Name:"));
        read(&status, 16).unwrap_err();
    }
}
