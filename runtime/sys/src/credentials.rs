//! User, groups and the like of the calling thread.
//!
//! These are the kernel's calls, which change one thread: for single-threaded
//! processes.

use std::io;

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{Gid, Uid};

/// Replaces the supplementary groups.
pub fn set_groups(groups: &[u32]) -> io::Result<()> {
    let groups: Vec<Gid> = groups
        .iter()
        .map(|gid| Gid::from_raw_unchecked(*gid))
        .collect();
    Ok(rustix::thread::set_thread_groups(&groups)?)
}

/// Sets the real, effective and saved group; `u32::MAX` is no group.
pub fn set_gid(gid: u32) -> io::Result<()> {
    if gid == u32::MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let gid = Gid::from_raw_unchecked(gid);
    Ok(rustix::thread::set_thread_res_gid(gid, gid, gid)?)
}

/// Sets the real, effective and saved user; `u32::MAX` is no user.
pub fn set_uid(uid: u32) -> io::Result<()> {
    if uid == u32::MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let uid = Uid::from_raw_unchecked(uid);
    Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
}

/// Whether the permitted capabilities outlive the change to another user.
pub fn set_keep_capabilities(keep: bool) -> io::Result<()> {
    Ok(rustix::thread::set_keep_capabilities(keep)?)
}

/// Bars this thread and its programs from gaining privileges by `execve`, for good.
pub fn set_no_new_privileges() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// Hides `/proc/PID/fd` and the like from all without CAP_SYS_PTRACE over the
/// host, until the next `execve`.
pub fn hide_from_tracers() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(
        DumpableBehavior::NotDumpable,
    )?)
}

pub fn set_umask(mask: u32) {
    rustix::process::umask(Mode::from_raw_mode(mask & 0o777));
}

/// Sets both limits of a resource; `u64::MAX` is no limit.
pub fn set_limit(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let value = |limit| (limit != u64::MAX).then_some(limit);
    let limit = Rlimit {
        current: value(soft),
        maximum: value(hard),
    };
    Ok(rustix::process::setrlimit(resource, limit)?)
}

/// Gives this process a session keyring of its own, where the kernel has keyrings:
/// the one that it inherited may hold keys of others.
pub fn new_session_keyring() -> io::Result<()> {
    const NO_NAME: *const libc::c_char = std::ptr::null();
    // SAFETY: without a name the call reads no memory of ours.
    let done =
        unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, NO_NAME) };
    if done >= 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session_keyring() -> libc::c_long {
        const SESSION: libc::c_long = -3;
        // SAFETY: takes and gives numbers.
        unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_GET_KEYRING_ID, SESSION, 0) }
    }

    #[test]
    fn a_session_keyring_is_new() {
        let before = session_keyring();
        let after = std::thread::spawn(|| {
            new_session_keyring().unwrap();
            session_keyring()
        });
        let after = after.join().unwrap();
        assert!(after != before && after > 0, "{before} {after}");
    }

    #[test]
    fn the_id_for_unchanged_is_no_id() {
        assert_eq!(
            set_uid(u32::MAX).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        assert_eq!(
            set_gid(u32::MAX).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }
}
