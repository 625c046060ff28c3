//! Container logs in the format of the CRI.

mod entry;
mod file;

pub(crate) use entry::{Entry, Joiner};
pub(crate) use file::LogFile;
