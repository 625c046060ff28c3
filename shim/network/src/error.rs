//! Small helpers that give errors their context.

use std::io;

use crate::driver::Error;

/// `map_err(context(|| …))`: what was being done when the io error came.
pub(crate) fn context<F, S>(what: F) -> impl FnOnce(io::Error) -> Error
where
    F: FnOnce() -> S,
    S: Into<String>,
{
    move |source| Error::Io {
        what: what().into(),
        source,
    }
}

pub(crate) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Error {
    Error::Invalid {
        what: what.into(),
        why: why.into(),
    }
}

/// None went wrong, one did, or several did.
pub(crate) fn collected(mut errors: Vec<Error>) -> Result<(), Error> {
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(Error::Several(errors)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_errors_are_all_told() {
        assert!(collected(Vec::new()).is_ok());
        assert_eq!(
            collected(vec![invalid("a", "b")]).unwrap_err().to_string(),
            "a: b"
        );
        let both = collected(vec![invalid("a", "b"), invalid("c", "d")]).unwrap_err();
        assert_eq!(both.to_string(), "a: b; c: d");
    }
}
