//! Image engines: the contract, the embedded store, and what engines share.

pub mod engine;
pub mod reference;
pub mod registry;
