//! What can go wrong with a cgroup.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path or a limit that makes no sense.
    #[error("cgroup {what}: {why}")]
    Invalid { what: String, why: String },
    /// A limit for which this host has no controller.
    #[error("cgroup controller {0} is not available on this host")]
    NoController(&'static str),
    /// Processes that do not die or do not leave.
    #[error("cgroup {path} still has processes after {tries} tries to kill them")]
    Busy { path: PathBuf, tries: u32 },
    #[error("{what} {path}: {source}")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            what,
            path: path.to_owned(),
            source,
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, Error>;
