//! PID 1 of a PID namespace that the pod's containers share.

use std::io;

use carpel_sys::clone::{self, SingleThreaded};
use carpel_sys::namespace::Kinds;
use carpel_sys::{descriptors, signal};
use rustix::process::{Signal, WaitOptions};

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
    loop {
        signal::ChildSignal::wait()?;
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
    }
}
