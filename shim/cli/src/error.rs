//! What can go wrong, as the user reads it.

use std::fmt::{self, Display, Write as _};
use std::io;
use std::path::PathBuf;

use thiserror::Error;
use tonic::{Code, Response, Status};

use crate::manifest::Mistake;

pub(crate) type Result<T> = std::result::Result<T, CliError>;

/// Everything that ends a command.
#[derive(Debug, Error)]
pub(crate) enum CliError {
    /// Nobody serves the socket.
    #[error("cannot reach the runtime at {}: {reason}", socket.display())]
    Connect { socket: PathBuf, reason: String },

    /// The command needs a call that is not part of the CRI.
    #[error("{what} needs carpeld's admin socket, {}: {reason}", socket.display())]
    NoAdmin {
        what: &'static str,
        socket: PathBuf,
        reason: String,
    },

    /// The runtime refused.
    #[error("{doing}: {}", explain(status))]
    Rpc { doing: String, status: Box<Status> },

    /// A manifest with mistakes, already bound to its file.
    #[error("{}", mistakes(found))]
    Manifest { found: Vec<(String, Mistake)> },

    #[error("{doing}: {source}")]
    Io { doing: String, source: io::Error },

    /// What the user named is not there.
    #[error("{kind} {wanted:?} is not there")]
    Absent { kind: &'static str, wanted: String },

    /// What was asked for is not clear, or does not make sense.
    #[error("{0}")]
    Refused(String),

    /// The command line itself is wrong.
    #[error("{0}")]
    Usage(String),

    /// The exit code of a program that was run for the user.
    #[error("exit code {0}")]
    Exit(u8),

    /// Whoever read our output has gone: not an error of ours.
    #[error("output closed")]
    Closed,
}

impl CliError {
    pub(crate) fn io(doing: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            doing: doing.into(),
            source,
        }
    }

    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::Refused(message.into())
    }

    /// What a script sees.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Exit(code) => *code,
            Self::Usage(_) => 2,
            Self::Closed => 0,
            _ => 1,
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        match self {
            Self::Absent { .. } => true,
            Self::Rpc { status, .. } => status.code() == Code::NotFound,
            _ => false,
        }
    }

    /// Whether the runtime may be back in a moment.
    pub(crate) fn is_unavailable(&self) -> bool {
        matches!(self, Self::Rpc { status, .. } if status.code() == Code::Unavailable)
    }
}

/// Adds to a reply what was being done.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl Display) -> Result<T>;
}

impl<T> Doing<T> for std::result::Result<Response<T>, Status> {
    fn doing(self, what: impl Display) -> Result<T> {
        match self {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(CliError::Rpc {
                doing: what.to_string(),
                status: Box::new(status),
            }),
        }
    }
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl Display) -> Result<T> {
        self.map_err(|source| CliError::io(what.to_string(), source))
    }
}

fn explain(status: &Status) -> String {
    let message = one_line(status.message());
    let reason = match status.code() {
        Code::Unavailable => "not available",
        Code::DeadlineExceeded => "took too long",
        Code::Cancelled if message == "Timeout expired" => {
            return "no answer within --timeout".to_owned();
        }
        Code::Cancelled => "was cancelled",
        Code::Unimplemented => "this runtime cannot do that",
        Code::PermissionDenied => "not allowed",
        Code::Unauthenticated => "credentials are needed",
        Code::ResourceExhausted => "the runtime has no room for it",
        Code::Internal => "the runtime failed",
        // These speak for themselves.
        _ => "",
    };
    match (reason, message.as_str()) {
        ("", "") => format!("{:?}", status.code()),
        ("", message) => message.to_owned(),
        (reason, "") => reason.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

fn one_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

fn mistakes(found: &[(String, Mistake)]) -> String {
    let mut text = String::new();
    for (index, (file, mistake)) in found.iter().enumerate() {
        let separator = if index == 0 { "" } else { "\ncarpel: " };
        let gap = if mistake.at.line > 0 { "" } else { " " };
        // Writing to a String cannot fail.
        let _: fmt::Result = write!(text, "{separator}{file}:{gap}{mistake}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rpc(status: Status) -> String {
        CliError::Rpc {
            doing: "start web".to_owned(),
            status: Box::new(status),
        }
        .to_string()
    }

    #[test]
    fn codes_become_words() {
        assert_eq!(rpc(Status::not_found("no pod x")), "start web: no pod x");
        assert_eq!(
            rpc(Status::unimplemented("")),
            "start web: this runtime cannot do that"
        );
        assert_eq!(
            rpc(Status::unavailable("a\n b\n")),
            "start web: not available: a; b"
        );
        assert_eq!(
            rpc(Status::invalid_argument("")),
            "start web: InvalidArgument"
        );
        assert_eq!(
            rpc(Status::cancelled("Timeout expired")),
            "start web: no answer within --timeout"
        );
    }

    #[test]
    fn exit_codes() {
        assert_eq!(CliError::Exit(7).exit_code(), 7);
        assert_eq!(CliError::Usage(String::new()).exit_code(), 2);
        assert_eq!(CliError::refused("x").exit_code(), 1);
        assert_eq!(CliError::Closed.exit_code(), 0);
    }
}
