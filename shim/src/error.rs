//! What can go wrong in the daemon, by what the client can do about it.

use std::io;
use std::time::Duration;

use crate::holder::HolderError;

#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Error {
    /// The request is wrong; names field and value.
    #[error("{0}")]
    Invalid(String),
    #[error("{kind} {id:?} not found")]
    NotFound { kind: &'static str, id: String },
    #[error("{0}")]
    AlreadyExists(String),
    /// Right request, wrong moment.
    #[error("{0}")]
    FailedPrecondition(String),
    #[error("{what} did not end within {after:?}")]
    Deadline { what: String, after: Duration },
    #[error("{0}")]
    Exhausted(String),
    /// Something we depend on does not answer; later it may.
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Denied(String),
    #[error("{0}")]
    Unimplemented(String),
    #[error("{0}")]
    Internal(String),
}

impl Error {
    pub(crate) fn pod_not_found(id: &str) -> Self {
        Self::NotFound {
            kind: "pod sandbox",
            id: id.to_owned(),
        }
    }

    pub(crate) fn container_not_found(id: &str) -> Self {
        Self::NotFound {
            kind: "container",
            id: id.to_owned(),
        }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| match error.raw_os_error() {
            Some(ENOSPC | EDQUOT | EMFILE | ENFILE) => Self::Exhausted(format!("{what}: {error}")),
            _ => Self::Internal(format!("{what}: {error}")),
        }
    }
}

const ENOSPC: i32 = rustix::io::Errno::NOSPC.raw_os_error();
const EMFILE: i32 = rustix::io::Errno::MFILE.raw_os_error();
const ENFILE: i32 = rustix::io::Errno::NFILE.raw_os_error();
const EDQUOT: i32 = rustix::io::Errno::DQUOT.raw_os_error();

impl From<HolderError> for Error {
    fn from(error: HolderError) -> Self {
        let text = error.to_string();
        match error {
            HolderError::Invalid(_) | HolderError::CannotExecute(_) => Self::Invalid(text),
            HolderError::NotFound(_) => Self::FailedPrecondition(text),
            HolderError::FailedPrecondition(_) => Self::FailedPrecondition(text),
            HolderError::Unsupported(_) => Self::Unimplemented(text),
            HolderError::Exhausted(_) => Self::Exhausted(text),
            HolderError::Gone => Self::FailedPrecondition(text),
            HolderError::Deadline { what, after } => Self::Deadline { what, after },
            HolderError::Internal(_) => Self::Internal(text),
        }
    }
}

impl From<carpel_oci_cli::Error> for Error {
    fn from(error: carpel_oci_cli::Error) -> Self {
        use carpel_oci_cli::Error as E;
        let text = error.to_string();
        match error {
            E::Invalid(_) | E::CannotExecute(_) => Self::Invalid(text),
            E::NoRuntime { .. } => Self::FailedPrecondition(text),
            E::Refused(_) => Self::Internal(text),
            E::Os { what, source } => Self::io(what)(source),
        }
    }
}

impl From<carpel_images::engine::Error> for Error {
    fn from(error: carpel_images::engine::Error) -> Self {
        use carpel_images::engine::Error as E;
        let text = error.to_string();
        match error {
            E::Invalid { .. } => Self::Invalid(text),
            E::NotFound(id) => Self::NotFound { kind: "image", id },
            E::Denied { .. } => Self::Denied(text),
            E::Unavailable { .. } => Self::Unavailable(text),
            E::Corrupt { .. } => Self::FailedPrecondition(text),
            E::Exhausted(_) => Self::Exhausted(text),
            E::Deadline { what, after } => Self::Deadline { what, after },
            E::Unsupported { .. } => Self::Unimplemented(text),
            E::Io { what, source } => Self::io(what)(source),
        }
    }
}

impl From<carpel_network::driver::Error> for Error {
    fn from(error: carpel_network::driver::Error) -> Self {
        use carpel_network::driver::Error as E;
        let text = error.to_string();
        match error {
            E::Invalid { .. } => Self::Invalid(text),
            E::PortInUse { .. } => Self::FailedPrecondition(text),
            E::Exhausted(_) => Self::Exhausted(text),
            E::NotReady(_) => Self::Unavailable(text),
            E::Damaged { .. } | E::Several(_) => Self::Internal(text),
            E::Io { what, source } => Self::io(what)(source),
        }
    }
}

impl From<carpel_spec::Error> for Error {
    fn from(error: carpel_spec::Error) -> Self {
        let text = error.to_string();
        match error {
            carpel_spec::Error::Invalid { .. } => Self::Invalid(text),
            carpel_spec::Error::Unsupported { .. } => Self::Unimplemented(text),
        }
    }
}

impl From<carpel_cgroup::Error> for Error {
    fn from(error: carpel_cgroup::Error) -> Self {
        match error {
            carpel_cgroup::Error::Invalid { .. } | carpel_cgroup::Error::NoController(_) => {
                Self::Invalid(error.to_string())
            }
            carpel_cgroup::Error::Busy { .. } => Self::Internal(error.to_string()),
            carpel_cgroup::Error::InUse { .. } => Self::FailedPrecondition(error.to_string()),
            carpel_cgroup::Error::Limit { ref source, .. } => refused_limit(&error, source),
            carpel_cgroup::Error::HalfDone { .. } => Self::Internal(error.to_string()),
            carpel_cgroup::Error::Io { what, path, source } => {
                Self::io(format!("{what} {}", path.display()))(source)
            }
        }
    }
}

/// What the kernel says to a limit: a wrong value, or one that does not fit now.
fn refused_limit(error: &carpel_cgroup::Error, source: &std::io::Error) -> Error {
    use rustix::io::Errno;
    let text = error.to_string();
    let errno = source.raw_os_error().map(Errno::from_raw_os_error);
    match errno {
        Some(Errno::INVAL | Errno::RANGE | Errno::ACCESS | Errno::PERM | Errno::NODEV) => {
            Error::Invalid(text)
        }
        Some(Errno::BUSY | Errno::NOSPC) => Error::FailedPrecondition(text),
        _ => Error::Internal(text),
    }
}

/// Collects what goes wrong in a teardown, which never stops at the first failure.
#[derive(Debug, Default)]
pub(crate) struct Failures(Vec<Error>);

impl Failures {
    pub(crate) fn note<T>(&mut self, result: Result<T, impl Into<Error>>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.0.push(error.into());
                None
            }
        }
    }

    /// The first kind with every message, or nothing if nothing failed.
    pub(crate) fn into_result(mut self) -> Result<(), Error> {
        match self.0.len() {
            0 => Ok(()),
            1 => Err(self.0.remove(0)),
            _ => {
                let all: Vec<String> = self.0.iter().map(ToString::to_string).collect();
                Err(Error::Internal(all.join("; ")))
            }
        }
    }
}
