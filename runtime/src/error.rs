//! What the holder answers when it does not do what it was asked.

use std::io;

use carpel_proto::holder as wire;
use carpel_proto::holder::error::Code;
use rustix::io::Errno;

/// Longest text of an error: it must fit, with all else, into one pipe message.
const TEXT: usize = 2048;

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// A refusal, by what the daemon can do about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    AlreadyExists(String),
    #[error("{0}")]
    FailedPrecondition(String),
    #[error("{0}")]
    Unsupported(String),
    #[error("{0}")]
    Exhausted(String),
    #[error("{what}: {source}")]
    Os { what: String, source: io::Error },
    #[error(transparent)]
    Native(#[from] carpel_native::Error),
    #[error(transparent)]
    Oci(#[from] carpel_oci_cli::Error),
    /// As a worker told it.
    #[error("{}", .0.message)]
    Told(wire::Error),
}

impl Error {
    fn code(&self) -> Code {
        match self {
            Self::Invalid(_) | Self::Native(carpel_native::Error::Invalid(_)) => Code::Invalid,
            Self::Oci(error) => of_runtime(error),
            Self::NotFound(_) => Code::NotFound,
            Self::AlreadyExists(_) => Code::AlreadyExists,
            Self::FailedPrecondition(_) => Code::FailedPrecondition,
            Self::Unsupported(_) | Self::Native(carpel_native::Error::Unsupported(_)) => {
                Code::Unsupported
            }
            Self::Native(carpel_native::Error::CannotExecute(_)) => Code::CannotExecute,
            Self::Exhausted(_) => Code::ResourceExhausted,
            Self::Os { source, .. } | Self::Native(carpel_native::Error::Os { source, .. }) => {
                code_of(source)
            }
            Self::Told(error) => error.code(),
        }
    }

    pub(crate) fn to_wire(&self) -> wire::Error {
        let mut message = self.to_string();
        message.truncate(message.floor_char_boundary(TEXT));
        wire::Error {
            code: self.code().into(),
            message,
        }
    }
}

fn of_runtime(error: &carpel_oci_cli::Error) -> Code {
    use carpel_oci_cli::Error as E;
    match error {
        E::Invalid(_) => Code::Invalid,
        E::CannotExecute(_) => Code::CannotExecute,
        E::NoRuntime { .. } => Code::FailedPrecondition,
        E::Refused(_) | E::Os { .. } => Code::Internal,
    }
}

fn code_of(error: &io::Error) -> Code {
    match Errno::from_io_error(error) {
        // The container, whose namespaces were to be joined, has ended.
        Some(Errno::SRCH) => Code::FailedPrecondition,
        Some(Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE | Errno::AGAIN) => {
            Code::ResourceExhausted
        }
        _ => Code::Internal,
    }
}

/// Says what was being done when the kernel refused.
pub(crate) trait Context<T> {
    fn during(self, what: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn during(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::Os {
            what: what.into(),
            source: source.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut() {
        let wire = Error::Invalid("ä".repeat(TEXT)).to_wire();
        assert!(wire.message.len() <= TEXT);
        assert_eq!(wire.code(), Code::Invalid);
    }

    #[test]
    fn the_kernels_word_and_what_was_done_are_told() {
        let refused: io::Result<()> = Err(io::Error::from_raw_os_error(13));
        let wire = refused.during("open x").unwrap_err().to_wire();
        assert!(wire.message.starts_with("open x: Permission denied"));
        assert_eq!(wire.code(), Code::Internal);
        for (errno, code) in [
            (Errno::SRCH, Code::FailedPrecondition),
            (Errno::AGAIN, Code::ResourceExhausted),
            (Errno::NOSPC, Code::ResourceExhausted),
        ] {
            let refused: io::Result<()> = Err(errno.into());
            assert_eq!(refused.during("x").unwrap_err().to_wire().code(), code);
        }
    }
}
