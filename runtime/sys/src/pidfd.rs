//! Processes by descriptor: a number may be given to another, a pidfd never is.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    /// The number a shell shows: 128 + n for signal n.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// The status word of `waitpid(2)`, without the core dump bit.
    #[must_use]
    pub fn wait_status(self) -> i32 {
        match self {
            Self::Code(code) => (code & 0xff) << 8,
            Self::Signal(signal) => signal & 0x7f,
        }
    }
}

/// Gives a descriptor of a process, which may be a zombie by now.
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Sends a signal, a real-time one too; 0 only asks whether the process is there.
pub fn signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is passed but a null pointer, which the kernel takes for
    // "fill in the sender yourself".
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Takes the exit of a child if it has ended; it is no zombie afterwards.
pub fn try_wait(pidfd: impl AsFd) -> io::Result<Option<Exit>> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let Some(status) = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options)? else {
        return Ok(None);
    };
    let exit = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => return Ok(None),
    };
    Ok(Some(exit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A child in a test is waited for by pidfd, so `Child` has nothing left to do.
    fn wait(pidfd: &OwnedFd) -> Exit {
        let mut polled = [rustix::event::PollFd::new(
            pidfd,
            rustix::event::PollFlags::IN,
        )];
        rustix::event::poll(&mut polled, None).unwrap();
        try_wait(pidfd).unwrap().unwrap()
    }

    #[test]
    #[allow(clippy::zombie_processes)]
    fn exits_are_told_apart() {
        let child = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
        let pidfd = open(i32::try_from(child.id()).unwrap()).unwrap();
        assert_eq!(wait(&pidfd), Exit::Code(7));

        let child = Command::new("sleep").arg("100").spawn().unwrap();
        let pidfd = open(i32::try_from(child.id()).unwrap()).unwrap();
        assert_eq!(try_wait(&pidfd).unwrap(), None);
        // Real-time signals count too.
        signal(&pidfd, 35).unwrap();
        let exit = wait(&pidfd);
        assert_eq!(exit, Exit::Signal(35));
        assert_eq!(exit.code(), 163);
        assert!(signal(&pidfd, 9).is_err(), "it is gone");
    }

    #[test]
    fn the_status_word_is_that_of_waitpid() {
        assert_eq!(Exit::Code(3).wait_status(), 0x300);
        assert_eq!(Exit::Signal(9).wait_status(), 9);
    }
}
