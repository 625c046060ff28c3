//! From a layer's bytes to a directory: inflate, hash, read the archive, and make
//! its entries without ever leaving the directory, whatever they say.

mod apply;
mod inflate;
mod inherit;
mod limits;
mod name;
mod tarball;
mod tree;
mod whiteout;
mod xattr;

pub(crate) use inflate::{Encoding, Hashed, Inflate};
pub(crate) use inherit::inherit;
pub(crate) use limits::Fault;
pub use limits::Limits;
pub(crate) use name::clean_name;
pub(crate) use tarball::{Kind, Tarball};

pub(crate) use apply::{Unpacked, unpack};
