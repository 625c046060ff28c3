//! Signals of a process that takes them when it is ready: blocked, and read.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Keeps every signal pending that can be kept.
pub fn block_all() -> io::Result<()> {
    Ok(SigSet::all().thread_set_mask()?)
}

/// Lets every signal through.
pub fn unblock_all() -> io::Result<()> {
    Ok(SigSet::empty().thread_set_mask()?)
}

/// Tells that children have ended; SIGCHLD must be blocked.
#[derive(Debug)]
pub struct ChildSignal {
    fd: SignalFd,
}

impl ChildSignal {
    pub fn new() -> io::Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGCHLD);
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { fd })
    }

    /// Takes what is pending; a signal stands for any number of children.
    pub fn clear(&self) {
        // There is one at most: SIGCHLD does not queue.
        let _ = self.fd.read_signal();
    }

    /// Waits for the next one, for a process that has nothing else to do.
    pub fn wait() -> io::Result<()> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGCHLD);
        set.wait()?;
        Ok(())
    }
}

impl AsFd for ChildSignal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
