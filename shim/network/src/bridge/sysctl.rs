//! Settings of the calling thread's network namespace under `/proc/sys/net`.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::driver::Error;
use crate::error::context;

fn path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(key)
}

pub(super) fn get(key: &str) -> Result<String, Error> {
    let path = path(key);
    let value =
        fs::read_to_string(&path).map_err(context(|| format!("read {}", path.display())))?;
    Ok(value.trim().to_owned())
}

/// Does not write what is there already: the file may be read-only.
pub(super) fn set(key: &str, value: &str) -> Result<(), Error> {
    if get(key)? == value {
        return Ok(());
    }
    let path = path(key);
    fs::write(&path, value).map_err(context(|| format!("write {value} to {}", path.display())))
}

/// For settings that not every kernel has.
pub(super) fn set_if_there(key: &str, value: &str) -> Result<(), Error> {
    match set(key, value) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
