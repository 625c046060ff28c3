//! How something is made to last: three calls, apart so that a test can watch them.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

/// Makes what was written outlive a power cut. Nothing is durable before such a call
/// has returned.
pub trait Durability: Send + Sync + fmt::Debug {
    /// Content and attributes of one file, which stands at `path` now.
    fn file(&self, file: &File, path: &Path) -> io::Result<()>;

    /// The names in a directory, not what they stand for.
    fn directory(&self, path: &Path) -> io::Result<()>;

    /// All that was written so far on the file system of `path`.
    fn filesystem(&self, path: &Path) -> io::Result<()>;
}

/// The kernel's own calls.
#[derive(Debug)]
pub struct Kernel;

impl Durability for Kernel {
    fn file(&self, file: &File, _path: &Path) -> io::Result<()> {
        file.sync_all()
    }

    fn directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn filesystem(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(path)?)?)
    }
}
