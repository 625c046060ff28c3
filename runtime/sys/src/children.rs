//! Children that nobody asked for: a subreaper inherits them.

use std::io;

use rustix::process::{Pid, WaitOptions};

/// The children of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Children {
    None,
    /// There are some, and none has ended.
    Alive,
    /// One has ended, and is left a zombie.
    Ended(i32),
}

/// Looks for a child that has ended, without taking its exit from whoever wants it.
pub fn peek() -> io::Result<Children> {
    // SAFETY: all fields are integers or pointers, for which zero is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is written during the call and outlives it.
    let done = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) };
    if done != 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ECHILD) => Ok(Children::None),
            _ => Err(error),
        };
    }
    // SAFETY: waitid(2) fills in the pid, or leaves the zero of above.
    match unsafe { info.si_pid() } {
        0 => Ok(Children::Alive),
        pid => Ok(Children::Ended(pid)),
    }
}

/// Removes a child that has ended.
pub fn bury(pid: i32) -> io::Result<()> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    rustix::process::waitpid(Some(pid), WaitOptions::NOHANG)?;
    Ok(())
}
