//! Images made on the spot: layers entry by entry, whole images, and the set that
//! critest and our own tests expect to find under its usual names.

mod archive;
mod build;
mod cache;
mod catalogue;
mod content;
mod debian;
mod hostile;
mod layer;

pub use archive::{docker_archive, oci_archive};
pub use build::{Compression, Format, ImageBuilder};
pub use cache::test_images;
pub use catalogue::{busybox_layer, full_layer};
pub use content::{Content, digest_of};
pub use debian::helper;
pub use layer::Layer;
