//! What can be wrong with a profile.

use std::io;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("seccomp profile {path:?}: {why}")]
    Invalid { path: String, why: String },
    #[error("read seccomp profile {path:?}: {source}")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    /// The library failed on a profile that is well formed.
    #[error("compile seccomp profile: {step}: {source}")]
    Compile {
        step: &'static str,
        #[source]
        source: libseccomp::error::SeccompError,
    },
    #[error("hold a seccomp program in memory: {source}")]
    Memory {
        #[source]
        source: io::Error,
    },
}

impl From<Error> for crate::error::Error {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            // A profile that is not on this node is the request's mistake, not ours.
            Error::Invalid { .. } | Error::Read { .. } => Self::Invalid(text),
            Error::Compile { .. } | Error::Memory { .. } => Self::Internal(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_profile_is_the_clients_mistake() {
        let missing = Error::Read {
            path: "/p".to_owned(),
            source: io::ErrorKind::NotFound.into(),
        };
        let error = crate::error::Error::from(missing);
        assert!(matches!(error, crate::error::Error::Invalid(text) if text.contains("\"/p\"")));
    }
}
