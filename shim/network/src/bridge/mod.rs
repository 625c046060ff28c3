//! The built-in network: a bridge, a veth pair a pod, addresses from the pod
//! CIDRs, host ports and masquerade by nftables.
//!
//! What is written down before it is made: a record a pod, and one of the node with
//! the settings that were changed. What cannot be seen here and must fit: the host's
//! own FORWARD policy (one that drops, as Docker sets it, drops pods' packets too).
//! Host ports do not answer on `::1`, to which no other device leads back.

mod addresses;
mod base;
mod config;
mod driver;
mod inventory;
mod listeners;
mod names;
mod nft;
mod pod;
mod ports;
mod record;
mod ruleset;
mod state;
mod store;
mod sysctl;

pub use config::{BridgeConfig, StaticRoute};
pub use driver::BridgeDriver;
pub use inventory::{Inventory, Recorded};
