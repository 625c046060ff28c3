//! Image engines: the contract, the embedded store, and what engines share.

mod archive;
pub mod engine;
mod image;
pub mod overlay;
pub mod reference;
pub mod registry;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod unpack;

pub use archive::Loaded;
pub use store::{Durability, Kernel, Store, StoreConfig, remove_tree};
pub use unpack::Limits;
