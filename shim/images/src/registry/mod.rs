//! From an image name to verified bytes: the client side of the OCI distribution
//! protocol, with mirrors, credentials and resumption.
//!
//! [`Registry`] is one per process and holds connections only. [`Session`] is one
//! per pull and holds that pull's credentials and tokens; nothing of it outlives it.

mod config;
mod layer;
mod manifest;
mod session;
mod verify;

pub use config::{HostConfig, Mirror, RegistryConfig, RetryPolicy, Timeouts};
pub use layer::LayerStream;
pub use manifest::{Descriptor, Manifest};
pub use session::{Registry, ResolvedImage, Session};
pub use verify::Verifier;
