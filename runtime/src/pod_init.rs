//! PID 1 of a PID namespace that the pod's containers share.

use std::io;

use carpel_sys::capability::{self, Set};
use carpel_sys::clone::{self, SingleThreaded};
use carpel_sys::mount::{self, Attr, Flags, Propagation};
use carpel_sys::namespace::{self, Kinds};
use carpel_sys::{credentials, descriptors, signal};
use rustix::fs::CWD;
use rustix::process::{Signal, WaitOptions};

/// Nobody's, as the kernel's overflow id is.
const NOBODY: u32 = 65534;
/// The smallest that a tmpfs can be; nothing is ever in it.
const EMPTY_BYTES: u64 = 4096;

/// Starts it; it ends when it is killed or the holder ends, and the namespace with
/// it.
pub(crate) fn spawn() -> io::Result<i32> {
    let single = SingleThreaded::verify()?;
    clone::spawn(single, Kinds::PID, None, || match reap() {
        Ok(()) => 0,
        Err(_) => 1,
    })
}

/// Takes every orphan of the namespace, for ever. Signals stay blocked as they are
/// in the holder, so that only KILL from outside ends this.
fn reap() -> io::Result<()> {
    descriptors::close_all_but(&[])?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::thread::set_name(c"carpel-init")?;
    rustix::stdio::dup2_stderr(rustix::stdio::stdout())?;
    leave_everything()?;
    give_up_rights()?;
    // The change of user has taken it back.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    loop {
        signal::ChildSignal::wait()?;
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
    }
}

/// Containers of the pod see this process, and one that may trace could look through
/// its eyes: so it has an empty root instead of the holder's, where the host's procfs
/// is.
fn leave_everything() -> io::Result<()> {
    namespace::unshare(Kinds::MOUNT)?;
    let private = Attr::propagation(Propagation::Private);
    mount::set_attr_at(CWD, std::path::Path::new("/"), &private, true)?;
    let flags = Flags::READ_ONLY | Flags::NOSUID | Flags::NODEV | Flags::NOEXEC;
    let empty = mount::tmpfs(Some(EMPTY_BYTES), 0o555, flags)?;
    mount::attach_at(&empty, CWD, "/")?;
    rustix::process::fchdir(&empty)?;
    mount::pivot_to_cwd()
}

/// One that is traced can be made to do anything: so there is nothing it may do.
fn give_up_rights() -> io::Result<()> {
    capability::bound_to(Set::default())?;
    credentials::set_groups(&[])?;
    credentials::set_gid(NOBODY)?;
    credentials::set_uid(NOBODY)?;
    credentials::set_no_new_privileges()?;
    credentials::hide_from_tracers()
}
