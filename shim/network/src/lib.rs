//! Pod networks: the contract, the built-in bridge, host and none.

pub mod driver;
