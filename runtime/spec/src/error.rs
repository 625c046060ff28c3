//! What can be wrong with a request.

/// Result of everything in this crate.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// A request that cannot be turned into a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request itself is wrong; asking again is no use.
    #[error("{field}: {value:?}: {why}")]
    Invalid {
        /// Path of the field, as the CRI names it.
        field: String,
        value: String,
        why: String,
    },
    /// The request is well formed, but this host or this version cannot serve it.
    #[error("{field}: {why}")]
    Unsupported { field: String, why: String },
}

impl Error {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers pass numbers and temporaries"
    )]
    pub(crate) fn invalid(
        field: impl Into<String>,
        value: impl ToString,
        why: impl Into<String>,
    ) -> Self {
        Self::Invalid {
            field: field.into(),
            value: value.to_string(),
            why: why.into(),
        }
    }

    pub(crate) fn unsupported(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Unsupported {
            field: field.into(),
            why: why.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_field_and_value_and_escapes_what_is_not_printable() {
        let error = Error::invalid("hostname", "a\nb", "has a character that is not allowed");
        assert_eq!(
            error.to_string(),
            r#"hostname: "a\nb": has a character that is not allowed"#
        );
    }
}
