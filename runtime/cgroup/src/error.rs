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
    NoController(String),
    /// The kernel does not take a limit; what was set before it is as it was.
    #[error("{path}: {value:?} is refused: {source}")]
    Limit {
        path: PathBuf,
        value: String,
        source: io::Error,
    },
    /// More is in use than the limit would allow, and nobody shall be killed for it.
    #[error("memory.max: {limit} is less than the {usage} bytes in use")]
    InUse { limit: i64, usage: u64 },
    #[error("{cause}; and these could not be set back: {}", left.join(", "))]
    HalfDone { cause: Box<Self>, left: Vec<String> },
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
