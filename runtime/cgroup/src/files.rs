//! Reading and writing the small files of a cgroup.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// One write, as the kernel wants it.
pub(crate) fn write(path: &Path, value: &str) -> Result<()> {
    try_write(path, value).map_err(Error::io("write", path))
}

pub(crate) fn try_write(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(value.as_bytes())
}

pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(Error::io("read", path))
}

/// The text of a file, or nothing if this kernel has none.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// The number after `key` in a file of `key value` lines.
pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::keyed;

    #[test]
    fn a_key_is_found_by_its_whole_name() {
        let text = "inactive_file 7\ntotal_inactive_file 9\n";
        assert_eq!(keyed(text, "total_inactive_file"), Some(9));
        assert_eq!(keyed(text, "inactive_file"), Some(7));
        assert_eq!(keyed(text, "inactive"), None);
    }
}
