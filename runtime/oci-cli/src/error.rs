//! What went wrong, by what can be done about it.

use std::io;

pub(crate) type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is wrong in itself: asking again is no use.
    #[error("{0}")]
    Invalid(String),
    /// The container's program is not there, or cannot be run.
    #[error("{0}")]
    CannotExecute(String),
    /// The runtime is not there, or is not one.
    #[error("runtime {binary:?}: {why}")]
    NoRuntime { binary: String, why: String },
    /// As the runtime told it.
    #[error("{0}")]
    Refused(String),
    #[error("{what}: {source}")]
    Os { what: String, source: io::Error },
}

/// Says what was being done when the kernel refused.
pub(crate) trait Context<T> {
    fn during(self, what: &str) -> Result<T>;
    fn with(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn during(self, what: &str) -> Result<T> {
        self.with(|| what.to_owned())
    }

    fn with(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Os {
            what: what(),
            source: source.into(),
        })
    }
}
