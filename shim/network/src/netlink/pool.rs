//! Sockets for work at the same time.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use super::Socket;

/// One waits long while devices are deleted; the others are quick.
const SOCKETS: usize = 4;

/// All speak to the network namespace in which the pool was opened.
#[derive(Debug)]
pub(crate) struct Pool([Mutex<Socket>; SOCKETS]);

impl Pool {
    pub(crate) fn open() -> io::Result<Self> {
        let mut sockets = Vec::with_capacity(SOCKETS);
        for _ in 0..SOCKETS {
            sockets.push(Mutex::new(Socket::open()?));
        }
        let sockets = <[_; SOCKETS]>::try_from(sockets);
        sockets
            .map(Self)
            .map_err(|_| io::Error::other("sockets were miscounted"))
    }

    /// A socket that no one uses, or else the first. Ask for one at a time.
    pub(crate) fn socket(&self) -> MutexGuard<'_, Socket> {
        for socket in &self.0 {
            match socket.try_lock() {
                Ok(socket) => return socket,
                Err(TryLockError::Poisoned(socket)) => return socket.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        self.0[0].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
