//! Child processes made by `clone3(2)`, and what they need before `execve`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::CWD;
use rustix::process::{Pid, WaitOptions, WaitStatus};

use crate::namespace::Kinds;

/// `CLONE_INTO_CGROUP`, which does not fit the type that libc gives it.
const INTO_CGROUP: u64 = 1 << 33;

/// The highest number of a signal.
const LAST_SIGNAL: i32 = 64;

/// Evidence that this process has one thread, so that a child may run any code.
///
/// A child of a process with more threads would inherit locks that nobody in it
/// can release. Do not start a thread while holding one of these.
#[derive(Debug, Clone, Copy)]
pub struct SingleThreaded(());

impl SingleThreaded {
    /// Counts the threads in `/proc`, which must be the system's own.
    pub fn verify() -> io::Result<Self> {
        let tasks = rustix::fs::statat(CWD, "/proc/self/task", rustix::fs::AtFlags::empty())?;
        // Two links of the directory itself, and one a thread.
        if tasks.st_nlink == 3 {
            Ok(Self(()))
        } else {
            Err(io::Error::other(
                "a process with several threads cannot clone itself",
            ))
        }
    }
}

/// Ends the process when dropped: nothing may unwind out of a child.
struct EndOnUnwind;

impl Drop for EndOnUnwind {
    fn drop(&mut self) {
        std::process::abort();
    }
}

/// Runs `child` in a child process with fresh namespaces of the given kinds, in
/// the v2 cgroup of `cgroup` if there is one, and returns its pid as we count.
///
/// The child ends with what `child` returns; no destructor of the caller runs there.
pub fn spawn(
    _: SingleThreaded,
    kinds: Kinds,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> i32,
) -> io::Result<i32> {
    let mut flags = u64::from(kinds.bits());
    let mut directory = 0;
    if let Some(fd) = cgroup {
        flags |= INTO_CGROUP;
        directory = u64::try_from(fd.as_raw_fd()).unwrap_or(u64::MAX);
    }
    let pid = clone3(flags, directory)?;
    if pid != 0 {
        return Ok(pid);
    }
    let guard = EndOnUnwind;
    let code = child();
    std::mem::forget(guard);
    exit_now(code)
}

fn clone3(flags: u64, cgroup: u64) -> io::Result<i32> {
    // SAFETY: all fields are integers, for which zero is a value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags;
    args.exit_signal = u64::try_from(libc::SIGCHLD).unwrap_or(0);
    args.cgroup = cgroup;
    // SAFETY: `args` outlives the call and has the size given. Without CLONE_VM
    // the child has its own copy of the address space and of the stack, as after
    // fork(2); the caller showed that no other thread exists whose locks it could
    // have copied. No memory of ours is written (no CLONE_PIDFD or the like).
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            std::ptr::from_mut(&mut args),
            size_of::<libc::clone_args>(),
        )
    };
    match i32::try_from(pid) {
        Ok(pid) if pid >= 0 => Ok(pid),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends this process at once; neither destructors nor exit handlers run.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: has no precondition and does not come back.
    unsafe { libc::_exit(code) }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Exited(i32),
    Signaled(i32),
}

/// Waits until the child has ended, and removes it from the process table.
pub fn wait(pid: i32) -> io::Result<Ended> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    loop {
        match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => {
                if let Some(ended) = ended(status) {
                    return Ok(ended);
                }
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn ended(status: WaitStatus) -> Option<Ended> {
    let signaled = || status.terminating_signal().map(Ended::Signaled);
    status.exit_status().map(Ended::Exited).or_else(signaled)
}

/// Gives all signals their default action, as a program expects that starts:
/// `execve` hands down what is ignored. For the last step before it.
pub fn reset_signal_actions() {
    // The kernel's own structure, all zero: the default action, no flags, no mask.
    // Its size differs between architectures and is nowhere larger.
    let default = [0_u64; 8];
    for signal in 1..=LAST_SIGNAL {
        // Not through the C library, which keeps two signals for itself and leaves
        // them as they were inherited. KILL and STOP refuse, and need not be set.
        // SAFETY: `default` outlives the call and is large enough; the default
        // action runs no code of ours; no old action is asked for.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null::<u64>(),
                size_of::<u64>(),
            )
        };
    }
}

/// Marks every descriptor from `first` on to be closed by `execve`.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: changes a flag of descriptors and closes none.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
