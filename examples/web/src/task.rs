//! Runs something until it ends or somebody asks us to end.

use std::io;
use std::sync::mpsc;
use std::thread;

use nix::sys::signal::{SigSet, Signal};

/// PID 1 of a namespace gets no default action for a signal: without this, only SIGKILL
/// would end a container.
pub(crate) fn until_signal(
    work: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    // Before any thread starts, so that all of them have it blocked.
    signals.thread_block()?;
    let (ended, end) = mpsc::channel();
    let by_signal = ended.clone();
    thread::spawn(move || {
        let result = signals.wait().map(drop).map_err(io::Error::from);
        // Nobody waits any more when the work has ended first.
        drop(by_signal.send(result));
    });
    thread::spawn(move || drop(ended.send(work())));
    end.recv().map_err(io::Error::other)?
}
