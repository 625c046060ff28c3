//! What the store is told at its start.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::registry::RegistryConfig;
use crate::unpack::Limits;

use super::durable::{Durability, Kernel};

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
    /// Where containers write; below `root` unless it is to be another disk.
    pub containers: Option<PathBuf>,
    /// How long the beginning of a blob is kept for a pull that goes on with it.
    pub partial_keep: Duration,
    /// The longest that one pull may take.
    pub pull_limit: Duration,
    pub durability: Arc<dyn Durability>,
    /// How old a figure of writable space may be.
    pub usage_age: Duration,
    /// Names and ids of images that are reported as pinned; `*` stands for any text.
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
            containers: None,
            partial_keep: Duration::from_secs(24 * 3600),
            pull_limit: Duration::from_secs(6 * 3600),
            durability: Arc::new(Kernel),
            usage_age: Duration::from_secs(10),
            pinned: Vec::new(),
        }
    }
}
