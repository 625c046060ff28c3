//! The tables `[images]` and `[registries]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Images {
    /// Layers of one pull that are fetched at once.
    pub(crate) parallel_layers: usize,
    /// Seconds in which a registry must send `stall_bytes`, or it counts as hung.
    pub(crate) stall_seconds: u64,
    pub(crate) stall_bytes: u64,
    /// Seconds to connect to a registry.
    pub(crate) connect_seconds: u64,
    /// Seconds that one pull may take in all.
    pub(crate) pull_seconds: u64,
    /// Seconds for which the beginning of a cut layer is kept.
    pub(crate) partial_seconds: u64,
    /// Most bytes one layer may unpack to.
    pub(crate) max_layer_bytes: u64,
    /// Most entries one layer may have.
    pub(crate) max_layer_entries: u64,
    /// Most bytes that one byte may unpack to, looked at beyond the first GiB of a layer.
    pub(crate) max_layer_ratio: u64,
    /// Most layers of an image.
    pub(crate) max_layers: usize,
    /// Most bytes that all layers of an image may unpack to.
    pub(crate) max_image_bytes: u64,
    /// Most bytes that all layers of an image may have as they are fetched.
    pub(crate) max_image_compressed_bytes: u64,
    /// Longest manifest or index, bytes.
    pub(crate) max_manifest_bytes: usize,
    /// Images that the kubelet is to spare: names, ids, and patterns with `*`.
    pub(crate) pinned: Vec<String>,
    /// Docker's `config.json` files to look for credentials in, in this order.
    pub(crate) auth_files: Vec<PathBuf>,
    /// Where `docker-credential-…` programs are.
    pub(crate) helper_dirs: Vec<PathBuf>,
    /// Seconds that a credential helper may take.
    pub(crate) helper_seconds: u64,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            parallel_layers: 3,
            stall_seconds: 30,
            stall_bytes: 16 << 10,
            connect_seconds: 10,
            pull_seconds: 6 * 3600,
            partial_seconds: 24 * 3600,
            max_layer_bytes: 64 << 30,
            max_layer_entries: 2_000_000,
            max_layer_ratio: 200,
            max_layers: 500,
            max_image_bytes: 128 << 30,
            max_image_compressed_bytes: 64 << 30,
            max_manifest_bytes: 4 << 20,
            pinned: Vec::new(),
            auth_files: Vec::new(),
            helper_dirs: ["/usr/local/bin", "/usr/bin", "/bin"]
                .map(PathBuf::from)
                .to_vec(),
            helper_seconds: 10,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Registry {
    /// Tried in this order before the registry itself: `http(s)://host[:port][/prefix]`.
    pub(crate) mirrors: Vec<String>,
    /// Speak plain HTTP to the registry itself.
    pub(crate) insecure: bool,
    /// PEM file with further certificate authorities.
    pub(crate) ca_file: Option<PathBuf>,
    /// PEM files of a certificate to show to the registry, and of its key.
    pub(crate) client_cert_file: Option<PathBuf>,
    pub(crate) client_key_file: Option<PathBuf>,
    /// A `docker-credential-…` program for this registry, by what follows the dash.
    pub(crate) credential_helper: Option<String>,
    /// A file as docker's `config.json`, asked for this registry before all others.
    pub(crate) auth_file: Option<PathBuf>,
}

impl Images {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        for (key, value) in [
            ("parallel_layers", self.parallel_layers as u64),
            ("stall_seconds", self.stall_seconds),
            ("connect_seconds", self.connect_seconds),
            ("pull_seconds", self.pull_seconds),
            ("max_layer_bytes", self.max_layer_bytes),
            ("max_layer_entries", self.max_layer_entries),
            ("max_layer_ratio", self.max_layer_ratio),
            ("max_layers", self.max_layers as u64),
            ("max_image_bytes", self.max_image_bytes),
            (
                "max_image_compressed_bytes",
                self.max_image_compressed_bytes,
            ),
            ("max_manifest_bytes", self.max_manifest_bytes as u64),
            ("helper_seconds", self.helper_seconds),
        ] {
            anyhow::ensure!(value > 0, "images.{key}: 0 is too few");
        }
        anyhow::ensure!(
            self.max_layers <= 500,
            "images.max_layers: {} is more than overlayfs stacks (500)",
            self.max_layers
        );
        for (key, paths) in [
            ("auth_files", &self.auth_files),
            ("helper_dirs", &self.helper_dirs),
        ] {
            for path in paths {
                anyhow::ensure!(
                    path.is_absolute(),
                    "images.{key}: {} is not absolute",
                    path.display()
                );
            }
        }
        Ok(())
    }
}

impl Registry {
    pub(super) fn check(&self, host: &str) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.client_cert_file.is_some() == self.client_key_file.is_some(),
            "registries.{host:?}: client_cert_file and client_key_file go together"
        );
        Ok(())
    }
}
