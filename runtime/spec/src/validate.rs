//! Checks of a request's meaning, before anything is made.
//!
//! Every refusal names the field and its value ([`crate::Error::Invalid`]).

mod container;
mod namespaces;
mod path;
mod pod;
mod ports;
mod sysctl;

pub use container::{container, resources};
pub use path::log_path;
pub use pod::{hostname, pod};
pub use sysctl::sysctl_name;
