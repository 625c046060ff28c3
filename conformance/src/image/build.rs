//! A whole image out of layers and a configuration.

use std::io::Write;

use flate2::{Compression as Level, GzBuilder};
use serde_json::{Value, json};

use super::{Content, Layer, digest_of};

/// How layers are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Gzip,
    Zstd,
    None,
}

/// Which family of media types describes the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Oci,
    Docker,
}

/// Layers, bottom first, and the `config` object of the image.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    layers: Vec<(Vec<u8>, Compression)>,
    config: Value,
    format: Format,
}

impl Default for ImageBuilder {
    fn default() -> Self {
        let config = json!({
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["/bin/sh"],
        });
        Self {
            layers: Vec::new(),
            config,
            format: Format::Oci,
        }
    }
}

impl ImageBuilder {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn layer(self, layer: Layer) -> Self {
        self.tar(layer.finish(), Compression::Gzip)
    }

    /// A layer as any bytes.
    #[must_use]
    pub fn tar(mut self, tar: Vec<u8>, compression: Compression) -> Self {
        self.layers.push((tar, compression));
        self
    }

    #[must_use]
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// Sets one member of the configuration, such as `Cmd` or `User`.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    /// Adds the image to `content` under `names` and gives the manifest's digest.
    pub fn push(self, content: &mut Content, names: &[&str]) -> String {
        let (media_type, manifest) = self.manifest(content);
        content.manifest(names, media_type, manifest)
    }

    /// Adds an index with this image for our platform, and one that is for another.
    pub fn push_index(self, content: &mut Content, names: &[&str]) -> String {
        let format = self.format;
        let (media_type, ours) = self.manifest(content);
        let other = Self::new()
            .format(format)
            .with("Cmd", json!(["/wrong"]))
            .manifest(content)
            .1;
        let mut entry = |data: Vec<u8>, os: &str, architecture: &str| {
            let size = data.len();
            let digest = content.manifest(&[], media_type, data);
            let platform = json!({"os": os, "architecture": architecture});
            json!({"mediaType": media_type, "digest": digest, "size": size, "platform": platform})
        };
        let manifests = vec![
            entry(other, "plan9", "mips"),
            entry(ours, "linux", super::debian::architecture()),
        ];
        let index_type = match format {
            Format::Oci => "application/vnd.oci.image.index.v1+json",
            Format::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
        };
        let index = json!({"schemaVersion": 2, "mediaType": index_type, "manifests": manifests});
        content.manifest(names, index_type, index.to_string())
    }

    fn manifest(self, content: &mut Content) -> (&'static str, Vec<u8>) {
        let oci = self.format == Format::Oci;
        let diff_ids: Vec<_> = self.layers.iter().map(|(tar, _)| digest_of(tar)).collect();
        let history = vec![json!({"created": "2026-01-01T00:00:00Z"}); diff_ids.len()];
        let config = json!({
            "architecture": super::debian::architecture(),
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": history,
        })
        .to_string();
        let layers: Vec<_> = self
            .layers
            .iter()
            .map(|(tar, packed)| describe(content, tar, *packed, oci))
            .collect();
        let config_type = if oci {
            "application/vnd.oci.image.config.v1+json"
        } else {
            "application/vnd.docker.container.image.v1+json"
        };
        let media_type = if oci {
            "application/vnd.oci.image.manifest.v1+json"
        } else {
            "application/vnd.docker.distribution.manifest.v2+json"
        };
        let size = config.len();
        let digest = content.blob(config);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": {"mediaType": config_type, "digest": digest, "size": size},
            "layers": layers,
        });
        (media_type, manifest.to_string().into_bytes())
    }
}

fn describe(content: &mut Content, tar: &[u8], compression: Compression, oci: bool) -> Value {
    let (data, suffix) = match compression {
        Compression::Gzip => (gzip(tar), "gzip"),
        Compression::Zstd => (zstd::encode_all(tar, 1).expect("packing memory"), "zstd"),
        Compression::None => (tar.to_vec(), ""),
    };
    let media_type = match (oci, suffix) {
        (true, "") => "application/vnd.oci.image.layer.v1.tar".to_owned(),
        (true, suffix) => format!("application/vnd.oci.image.layer.v1.tar+{suffix}"),
        (false, "") => "application/vnd.docker.image.rootfs.diff.tar".to_owned(),
        (false, suffix) => format!("application/vnd.docker.image.rootfs.diff.tar.{suffix}"),
    };
    let size = data.len();
    json!({"mediaType": media_type, "digest": content.blob(data), "size": size})
}

/// The same bytes each time: no name, no time.
fn gzip(data: &[u8]) -> Vec<u8> {
    let mut writer = GzBuilder::new().write(Vec::new(), Level::fast());
    writer.write_all(data).expect("packing memory");
    writer.finish().expect("packing memory")
}
