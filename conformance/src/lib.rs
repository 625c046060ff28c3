//! Black-box harness: it starts the built binaries on a node of their own, serves
//! them images from a registry of its own, and looks afterwards what they left.
//!
//! It links none of the crates it tests and speaks the CRI through an independent
//! client crate.

mod cgroups;
mod client;
mod ginkgo;
pub mod image;
mod leaks;
mod logs;
mod namespaces;
mod node;
pub mod paths;
pub mod registry;
mod settings;
pub mod spec;

pub use cgroups::Cgroups;
pub use client::Cri;
pub use ginkgo::{Expectations, Outcome, Report};
pub use leaks::Snapshot;
pub use logs::{LogLine, parse_log};
pub use namespaces::Namespaces;
pub use node::{Node, text_of};
pub use settings::Settings;
