//! What a holder answers when it does not do what it was asked.

use std::time::Duration;

use carpel_proto::holder::error::Code;

#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum HolderError {
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    FailedPrecondition(String),
    /// The container's program is not there or cannot be executed.
    #[error("{0}")]
    CannotExecute(String),
    #[error("{0}")]
    Unsupported(String),
    #[error("{0}")]
    Exhausted(String),
    #[error("{0}")]
    Internal(String),
    #[error("the pod's holder is gone")]
    Gone,
    #[error("the pod's holder did not {what} within {after:?}")]
    Deadline { what: String, after: Duration },
}

impl From<carpel_proto::holder::Error> for HolderError {
    fn from(error: carpel_proto::holder::Error) -> Self {
        let code = error.code();
        let text = error.message;
        match code {
            Code::Invalid => Self::Invalid(text),
            Code::NotFound => Self::NotFound(text),
            Code::AlreadyExists | Code::FailedPrecondition => Self::FailedPrecondition(text),
            Code::CannotExecute => Self::CannotExecute(text),
            Code::Unsupported => Self::Unsupported(text),
            Code::ResourceExhausted => Self::Exhausted(text),
            Code::Internal => Self::Internal(text),
        }
    }
}
