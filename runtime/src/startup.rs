//! What the process does before it listens to anybody.

use std::io;
use std::os::fd::OwnedFd;

use carpel_sys::{clone, credentials, descriptors, signal};
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

use crate::error::{Context, Result};

/// Shown by `ps`.
const NAME: &std::ffi::CStr = c"carpel-holder";
const UMASK: u32 = 0o022;

/// Makes this process independent of the one that started it; returns the control
/// socket, which came as standard input.
pub(crate) fn detach() -> Result<OwnedFd> {
    descriptors::close_all_but(&[]).during("close inherited descriptors")?;
    clone::reset_signal_actions();
    // Nothing but KILL and the daemon ends a holder. Workers unblock them again.
    signal::block_all().during("block signals")?;
    // A session leader, which it is when started by hand, cannot begin another.
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(Pid::INIT)).during("become a subreaper")?;
    credentials::hide_from_tracers().during("hide from tracers")?;
    rustix::thread::set_name(NAME).during("set the name")?;
    credentials::set_umask(UMASK);
    let listener = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)
        .during("take the control socket from standard input")?;
    use_null("/dev/null").during("open /dev/null")?;
    Ok(listener)
}

/// Makes a null device standard input and output. Standard error stays: it is
/// where a holder that dies can say why.
pub(crate) fn use_null(path: &str) -> io::Result<()> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let null = rustix::fs::open(path, flags, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}
