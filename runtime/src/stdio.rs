//! Standard input, output and error of a container.

use std::io;
use std::os::fd::OwnedFd;

use carpel_logs::{Stream, Writer};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

/// Output taken in one piece.
pub(crate) const CHUNK: usize = 16 * 1024;
/// Pieces of one stream before others get their turn.
const TURN: usize = 8;
/// Pieces that are still taken when a stream is closed by force: a full pipe.
const LAST: usize = 64;

/// A pipe's read and write end.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?)
}

/// A pipe whose read end, ours, does not block.
pub(crate) fn pipe_to_us() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe()?;
    rustix::fs::fcntl_setfl(&read, OFlags::NONBLOCK)?;
    Ok((read, write))
}

/// In the holder's own tree: the host's would be pinned by it.
pub(crate) fn null() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/dev/null", flags, Mode::empty())?)
}

/// Our ends of a container's output, and its log.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    pub(crate) log: Writer,
}

impl Output {
    fn pipe(&mut self, stream: Stream) -> &mut Option<OwnedFd> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Logs what has come; returns the pipe when the stream has ended.
    pub(crate) fn pump(&mut self, stream: Stream, buffer: &mut [u8]) -> Option<OwnedFd> {
        self.take(stream, buffer, TURN).then(|| self.end(stream))?
    }

    /// Logs what is there and ends the stream, whoever still holds its other end.
    pub(crate) fn close(&mut self, stream: Stream, buffer: &mut [u8]) -> Option<OwnedFd> {
        self.take(stream, buffer, LAST);
        self.end(stream)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.stdout.is_none() && self.stderr.is_none()
    }

    fn end(&mut self, stream: Stream) -> Option<OwnedFd> {
        let pipe = self.pipe(stream).take()?;
        self.log.finish(stream);
        Some(pipe)
    }

    /// Whether the end has been reached.
    fn take(&mut self, stream: Stream, buffer: &mut [u8], pieces: usize) -> bool {
        for _ in 0..pieces {
            let Some(pipe) = self.pipe(stream) else {
                return true;
            };
            match rustix::io::read(&*pipe, &mut buffer[..CHUNK]) {
                Ok(0) => return true,
                Ok(n) => self.log.write(stream, &buffer[..n]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                Err(_) => return true,
            }
        }
        false
    }
}
