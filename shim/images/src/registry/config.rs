//! How registries are reached. Plain values; whoever reads a configuration file
//! fills them in.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::keychain::default_dirs;

/// Everything the client may be told.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// By registry as it stands in names: `docker.io`, `localhost:5000`.
    pub hosts: BTreeMap<String, HostConfig>,
    pub timeouts: Timeouts,
    pub retry: RetryPolicy,
    pub keychain: KeychainConfig,
    /// Longest manifest or index, bytes.
    pub max_manifest_bytes: usize,
    /// Layers of one image that are fetched at once.
    pub max_concurrent_layers: usize,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            hosts: BTreeMap::new(),
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
            keychain: KeychainConfig::default(),
            max_manifest_bytes: 4 << 20,
            max_concurrent_layers: 4,
        }
    }
}

/// Where credentials are found that do not come with a pull.
#[derive(Debug, Clone)]
pub struct KeychainConfig {
    /// Files as docker's `config.json`, looked at in this order.
    pub files: Vec<PathBuf>,
    /// Where `docker-credential-…` programs are.
    pub helper_dirs: Vec<PathBuf>,
    pub helper_timeout: Duration,
}

impl Default for KeychainConfig {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            helper_dirs: default_dirs(),
            helper_timeout: Duration::from_secs(10),
        }
    }
}

/// One registry.
#[derive(Debug, Clone, Default)]
pub struct HostConfig {
    /// Asked in this order before the registry itself.
    pub mirrors: Vec<Mirror>,
    /// The registry speaks plain HTTP. Registries on loopback do so unless `server`
    /// says otherwise.
    pub insecure: bool,
    /// PEM file of certificate authorities trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM files of a certificate and its key, shown to a registry that asks for one.
    pub client_identity: Option<(PathBuf, PathBuf)>,
    /// Name of a credential helper for this registry: `docker-credential-<name>`.
    pub credential_helper: Option<String>,
    /// A file as docker's `config.json`, for this registry before all others.
    pub auth_file: Option<PathBuf>,
    /// URL to use in place of the registry's own name.
    pub server: Option<String>,
}

/// Another place with the same content.
#[derive(Debug, Clone, Default)]
pub struct Mirror {
    /// `http://` or `https://`, host, and optionally a path before `/v2/`.
    pub url: String,
    pub ca_file: Option<PathBuf>,
    /// Whether the mirror may see the credentials of the registry it stands for.
    pub send_credentials: bool,
}

impl Mirror {
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ..Self::default()
        }
    }
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    pub connect: Duration,
    /// A body that brings fewer than `stall_bytes` in this time counts as cut.
    pub stall: Duration,
    pub stall_bytes: u64,
    /// For a manifest, configuration or token, headers and body together.
    pub document: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            stall_bytes: 16 << 10,
            document: Duration::from_secs(60),
        }
    }
}

/// How often, and how long between.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    pub attempts: u32,
    /// Pause after the first failure; doubles with each.
    pub base: Duration,
    pub max: Duration,
    /// A registry that asks for a longer pause than this is given up.
    pub max_retry_after: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            base: Duration::from_millis(250),
            max: Duration::from_secs(5),
            max_retry_after: Duration::from_secs(30),
        }
    }
}
