//! Images in files: OCI layouts and `docker save` archives, read and written.

mod content;
mod docker;
mod load;
mod oci;
mod save;
mod spool;

pub use load::Loaded;
