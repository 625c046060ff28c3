//! The built-in network: a bridge, a veth pair a pod, addresses from the pod
//! CIDRs, host ports and masquerade by nftables.

mod addresses;
mod base;
mod config;
mod driver;
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
