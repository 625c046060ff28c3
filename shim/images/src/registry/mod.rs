//! From an image name to verified bytes: the client side of the OCI distribution
//! protocol, with mirrors, credentials and resumption.
//!
//! [`Registry`] is one per process and holds connections only. [`Session`] is one
//! per pull and holds that pull's credentials and tokens; nothing of it outlives it.

mod auth;
mod challenge;
mod config;
mod endpoint;
mod failure;
mod guard;
mod helper;
mod keychain;
mod layer;
mod manifest;
mod platform;
mod resolve;
mod retry;
mod session;
mod site;
mod tls;
mod transport;
mod verify;

pub use config::{HostConfig, KeychainConfig, Mirror, RegistryConfig, RetryPolicy, Timeouts};
pub use keychain::is_for;
pub use layer::{LayerStream, error_from_io};
pub use manifest::{Descriptor, Manifest};
pub use session::{Registry, ResolvedImage, Session};
pub use verify::Verifier;
