//! The one message of a new process about how far it came.

use std::os::fd::{AsFd, OwnedFd};

use crate::error::{Context, Error, MESSAGE_BYTES, Result};

const READY: u8 = 0;

/// What comes out of the pipe of a new process.
#[derive(Debug)]
pub(crate) enum Report {
    /// All is set up, and whether the kernel refused to lower oom_score_adj.
    Ready {
        oom_score_adj_refused: bool,
    },
    Failed(Error),
    /// The pipe was closed without a word: by `execve`, or by the process's death.
    Silent,
}

/// Both ends of a pipe that programs do not inherit.
pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).during("make a pipe")
}

pub(crate) fn send_ready(pipe: &OwnedFd, oom_score_adj_refused: bool) -> Result<()> {
    rustix::io::write(pipe, &[READY, u8::from(oom_score_adj_refused)]).during("report")?;
    Ok(())
}

/// Nobody is left to tell when this fails as well.
pub(crate) fn send_error(pipe: impl AsFd, error: &Error) {
    rustix::io::write(pipe, &error.encode()).ok();
}

/// Waits for the message; it is written in one piece.
pub(crate) fn receive(pipe: &OwnedFd) -> Result<Report> {
    let mut bytes = [0; MESSAGE_BYTES];
    let length = read(pipe, &mut bytes).during("wait for the container's process")?;
    Ok(match &bytes[..length] {
        [] => Report::Silent,
        [READY, refused] => Report::Ready {
            oom_score_adj_refused: *refused != 0,
        },
        error => Report::Failed(Error::decode(error)),
    })
}

/// Reads once; a signal does not end the wait.
pub(crate) fn read(fd: impl AsFd, bytes: &mut [u8]) -> rustix::io::Result<usize> {
    loop {
        match rustix::io::read(fd.as_fd(), &mut *bytes) {
            Err(rustix::io::Errno::INTR) => {}
            read => return read,
        }
    }
}
