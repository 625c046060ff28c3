//! Pod networks: the contract, the built-in bridge, host and none.

pub mod bridge;
pub mod driver;
mod error;
mod host;
mod netlink;
mod netns;
mod none;

pub use bridge::{BridgeConfig, BridgeDriver, Inventory, Recorded, StaticRoute};
pub use driver::{Attachment, Error, HostPort, NetworkDriver, PodNetwork, Pool, Protocol, Status};
pub use host::HostDriver;
pub use none::NoneDriver;
