//! Work inside another network namespace.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::driver::Error;
use crate::error::context;

const STACK: usize = 256 * 1024;

/// Runs `work` on a thread of its own that has entered `netns` and ends with the
/// work: no thread that is used again ever changes its namespace.
pub(crate) fn within<T, F>(netns: &OwnedFd, work: F) -> Result<T, Error>
where
    T: Send,
    F: FnOnce() -> Result<T, Error> + Send,
{
    thread::scope(|scope| {
        thread::Builder::new()
            .name("carpel-netns".into())
            .stack_size(STACK)
            .spawn_scoped(scope, || {
                move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
                    .map_err(io::Error::from)
                    .map_err(context(|| "enter the pod's network namespace"))?;
                work()
            })
            .map_err(context(|| "start a thread for the pod's network namespace"))?
            .join()
            .unwrap_or_else(|_| Err(panicked()))
    })
}

/// Runs blocking work off the runtime's threads. It runs to its end even when
/// the future is dropped.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Error> + Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(panicked()))
}

fn panicked() -> Error {
    Error::Io {
        what: "network work".into(),
        source: io::Error::other("its thread panicked"),
    }
}
