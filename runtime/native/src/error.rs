//! What went wrong, in a form that crosses a pipe.

use std::io;

/// A pipe takes this much in one piece, whoever else writes to it.
pub(crate) const MESSAGE_BYTES: usize = 4096;
/// Tag and error number before the text.
const HEAD: usize = 5;

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// A failure, by what can be done about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is wrong in itself: asking again is no use.
    #[error("{0}")]
    Invalid(String),
    /// The program is not in the image, or cannot be run.
    #[error("{0}")]
    CannotExecute(String),
    /// This executor, or this host, cannot do what the specification asks for.
    #[error("{0}")]
    Unsupported(String),
    /// The kernel refused.
    #[error("{what}: {source}")]
    Os { what: String, source: io::Error },
}

impl Error {
    /// The error as bytes, which fit into a pipe in one piece.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (tag, number, text) = match self {
            Self::Invalid(text) => (1, 0, text.clone()),
            Self::CannotExecute(text) => (2, 0, text.clone()),
            Self::Unsupported(text) => (3, 0, text.clone()),
            Self::Os { what, source } => match source.raw_os_error() {
                Some(number) => (4, number, what.clone()),
                None => (4, 0, format!("{what}: {source}")),
            },
        };
        let mut bytes = vec![tag];
        bytes.extend(number.to_le_bytes());
        let end = text.floor_char_boundary(MESSAGE_BYTES - HEAD);
        bytes.extend(&text.as_bytes()[..end]);
        bytes
    }

    /// The error that [`Error::encode`] made; bytes of another origin are an error too.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        let Some((head, text)) = bytes.split_first_chunk::<HEAD>() else {
            return Self::malformed(bytes.len());
        };
        let text = String::from_utf8_lossy(text).into_owned();
        let number = i32::from_le_bytes([head[1], head[2], head[3], head[4]]);
        match (head[0], number) {
            (1, _) => Self::Invalid(text),
            (2, _) => Self::CannotExecute(text),
            (3, _) => Self::Unsupported(text),
            (4, 0) => match text.rsplit_once(": ") {
                Some((what, why)) => Self::Os {
                    what: what.to_owned(),
                    source: io::Error::other(why.to_owned()),
                },
                None => Self::Os {
                    what: text,
                    source: io::Error::other("failed"),
                },
            },
            (4, number) => Self::Os {
                what: text,
                source: io::Error::from_raw_os_error(number),
            },
            _ => Self::malformed(bytes.len()),
        }
    }

    fn malformed(length: usize) -> Self {
        Self::Os {
            what: "read the error of the container's process".to_owned(),
            source: io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{length} bytes that make no sense"),
            ),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn over(error: &Error) -> Error {
        Error::decode(&error.encode())
    }

    #[test]
    fn every_kind_crosses_a_pipe() {
        assert!(matches!(over(&Error::Invalid("a".into())), Error::Invalid(t) if t == "a"));
        assert!(
            matches!(over(&Error::CannotExecute("b".into())), Error::CannotExecute(t) if t == "b")
        );
        assert!(matches!(over(&Error::Unsupported("c".into())), Error::Unsupported(t) if t == "c"));
        let denied = Error::Os {
            what: "open x".into(),
            source: io::Error::from_raw_os_error(13),
        };
        let Error::Os { what, source } = over(&denied) else {
            panic!()
        };
        assert_eq!((what.as_str(), source.raw_os_error()), ("open x", Some(13)));
    }

    #[test]
    fn an_error_without_a_number_keeps_its_text() {
        let own = Error::Os {
            what: "mount y".into(),
            source: io::Error::other("no: such option"),
        };
        assert_eq!(over(&own).to_string(), "mount y: no: such option");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let bytes = Error::Invalid("ä".repeat(MESSAGE_BYTES)).encode();
        assert!(bytes.len() <= MESSAGE_BYTES);
        let Error::Invalid(text) = Error::decode(&bytes) else {
            panic!()
        };
        assert!(text.chars().all(|c| c == 'ä'));
    }

    #[test]
    fn garbage_is_an_error_too() {
        for garbage in [&b""[..], b"\x01\x00", b"\x09\x00\x00\x00\x00x"] {
            assert!(matches!(Error::decode(garbage), Error::Os { .. }));
        }
    }
}
