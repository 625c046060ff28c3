//! Closing descriptors in bulk.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// Closes every descriptor but 0, 1, 2 and `keep`, for a child just cloned.
///
/// Whatever else the parent's values still own is gone afterwards: the child must
/// touch only what it kept, and end without dropping the rest.
pub fn close_all_but(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, RawFd::MAX)
}

fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    // SAFETY: no memory is passed, and by the contract above nobody uses what is
    // closed here.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
