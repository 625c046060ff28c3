//! The gRPC edge: wire messages in, wire messages out. Nothing behind it knows them.

mod chunks;
mod containers;
mod events;
mod filter;
mod from_wire;
mod image_service;
mod info;
mod metrics;
mod pods;
mod resources;
mod runtime_service;
mod stats;
mod status;
mod status_code;
mod to_wire;
mod usage;

pub(crate) use from_wire::decode;
pub(crate) use image_service::ImageEdge;
pub(crate) use runtime_service::RuntimeEdge;
pub(crate) use status_code::to_status;

/// Largest message either way; clients send up to this.
pub(crate) const MAX_MESSAGE: usize = 16 << 20;
