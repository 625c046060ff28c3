//! Copies what an image has at a path into a fresh volume.
//!
//! The image is a stranger's: every lookup is by descriptor, no link is followed, no
//! device is made, and the work is bounded in entries, names and depth.

mod file;
mod tree;

pub(crate) use tree::{Fault, copy_up};
