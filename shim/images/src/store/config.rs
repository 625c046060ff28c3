//! What the store is told at its start.

use std::path::PathBuf;
use std::time::Duration;

use crate::registry::RegistryConfig;
use crate::unpack::Limits;

#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Directory that the store owns; made when missing.
    pub root: PathBuf,
    pub registries: RegistryConfig,
    pub limits: Limits,
    /// Layers of one image that are fetched and unpacked at once.
    pub parallel_layers: usize,
    /// How long content of failed pulls stays for another try.
    pub orphan_grace: Duration,
    /// How old a figure of writable space may be.
    pub usage_age: Duration,
    /// Names and ids of images that are reported as pinned.
    pub pinned: Vec<String>,
}

impl StoreConfig {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            registries: RegistryConfig::default(),
            limits: Limits::default(),
            parallel_layers: 3,
            orphan_grace: Duration::from_secs(600),
            usage_age: Duration::from_secs(10),
            pinned: Vec::new(),
        }
    }
}
