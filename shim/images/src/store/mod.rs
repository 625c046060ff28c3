//! The embedded engine: content-addressed plain files under one directory.
//!
//! ```text
//! lock                          held while a process uses the store
//! boot                          the kernel's boot id, see `recover`
//! blobs/sha256/<hex>            manifests, configurations, layers as they came
//! ingest/sha256-<hex>           the beginning of a blob that did not come whole yet
//! layers/<chain id>/{fs,record} a layer unpacked, named by it and all below it
//! images/<id>.json              an image: its layers and all its names
//! rootfs/<key>/{upper,work,record}  what a container writes, and the image it leases;
//!                               with its own tmp/ on another disk where configured so
//! empty/                        bottom of images without layers
//! tmp/                          what is being made, or being deleted
//! ```
//!
//! Everything is made in `tmp` and renamed into its place. One `syncfs` before an
//! image record is written makes all that it names durable; content that no record
//! names is not trusted across a boot. The index in memory answers all queries.

mod blob;
mod budget;
mod commit;
mod config;
pub(crate) mod delete;
mod durable;
mod engine;
mod index;
mod ingest;
mod layout;
mod lock;
mod measure;
mod open;
mod partial;
mod pinned;
mod pull;
mod record;
mod rootfs;

pub use config::StoreConfig;
pub use delete::path as remove_tree;
pub use durable::{Durability, Kernel};
pub use engine::Store;

pub(crate) use blob::{Cancel, Until};
pub(crate) use commit::NewImage;
pub(crate) use engine::{Inner, blocking};
pub(crate) use index::{Content, Pins};
pub(crate) use layout::Temp;
pub(crate) use pull::Origin;
pub(crate) use record::Held;
#[cfg(feature = "testing")]
pub(crate) use rootfs::check_key;
