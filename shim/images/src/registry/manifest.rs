//! Manifest types.

use crate::reference::Digest;

/// Names content, its size and its kind. A descriptor's `urls` are dropped in
/// parsing: content comes from the registry it was asked of and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
}

/// An image manifest: one platform's configuration and layers, bottom layer first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}
