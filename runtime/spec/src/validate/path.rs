//! Checks of text that becomes a path or a line of a file.

use crate::error::{Error, Result};

/// NUL ends a string in the kernel, a newline a line in the files we write.
pub(super) fn plain(field: &str, text: &str) -> Result<()> {
    if text.contains(['\0', '\n', '\r']) {
        return Err(Error::invalid(
            field,
            text,
            "has a NUL or newline character",
        ));
    }
    Ok(())
}

/// An absolute path that cannot lead upwards.
pub(super) fn absolute(field: &str, path: &str) -> Result<()> {
    plain(field, path)?;
    if !path.starts_with('/') {
        return Err(Error::invalid(field, path, "is not an absolute path"));
    }
    no_parent(field, path)
}

/// One slash between the parts, and no part that is only ".".
pub(super) fn clean(path: &str) -> String {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    format!("/{}", parts.collect::<Vec<_>>().join("/"))
}

/// A container's log path: relative, below the pod's log directory. Empty is none.
pub fn log_path(path: &str) -> Result<()> {
    plain("log_path", path)?;
    if path.starts_with('/') {
        return Err(Error::invalid(
            "log_path",
            path,
            "is not relative to the log directory",
        ));
    }
    if path.ends_with('/') {
        return Err(Error::invalid("log_path", path, "names a directory"));
    }
    no_parent("log_path", path)
}

fn no_parent(field: &str, path: &str) -> Result<()> {
    if path.split('/').any(|part| part == "..") {
        return Err(Error::invalid(field, path, "contains \"..\""));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_path_stays_in_the_log_directory() {
        for path in ["", "main.log", "main/0.log", "..log", "a..b/c"] {
            assert_eq!(log_path(path), Ok(()), "{path}");
        }
        for path in [
            "/var/log/x",
            "..",
            "../x",
            "a/../../x",
            "a/..",
            "a\0b",
            "a\nb",
            "a/",
        ] {
            let error = log_path(path).unwrap_err();
            assert!(matches!(&error, Error::Invalid { field, value, .. }
                if field == "log_path" && value == path));
        }
    }

    #[test]
    fn absolute_is_what_starts_at_the_root_and_never_leads_up() {
        assert_eq!(absolute("f", "/a/b"), Ok(()));
        for path in ["", "a", "./a", "/a/../b", "/a\0"] {
            assert!(absolute("f", path).is_err(), "{path}");
        }
    }
}
