//! For tests, here and in the daemon: images made in memory, an engine without a
//! disk, and the contract that every engine must keep.

pub mod contract;
mod fake;
mod image;

pub use fake::{Call, FakeEngine};
pub use image::{Compression, LayerBuilder, TestImage};
