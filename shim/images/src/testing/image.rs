//! Small images, byte by byte as a registry or an archive would hold them.

use std::io::Write;

use serde_json::{Value, json};
use tar::{EntryType, Header};

use crate::image::sha256;
use crate::reference::Digest;

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Plain,
    Gzip,
    Zstd,
}

impl Compression {
    fn apply(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain => bytes.to_vec(),
            Self::Gzip => {
                let level = flate2::Compression::fast();
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder
                    .write_all(bytes)
                    .and_then(|()| encoder.finish())
                    .unwrap_or_default()
            }
            Self::Zstd => zstd::encode_all(bytes, 1).unwrap_or_default(),
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Plain => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// A layer's archive. Names and links go in as they are, however bad.
#[derive(Debug, Default, Clone)]
pub struct LayerBuilder {
    bytes: Vec<u8>,
}

impl LayerBuilder {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(EntryType::Regular, path, "", 0o644, content)
    }

    #[must_use]
    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(EntryType::Directory, path, "", mode, b"")
    }

    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, target, 0o777, b"")
    }

    #[must_use]
    pub fn hardlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, target, 0o644, b"")
    }

    /// One entry of any kind, owned by 7:8, as of one second past 1970.
    #[must_use]
    pub fn entry(
        mut self,
        kind: EntryType,
        path: &str,
        link: &str,
        mode: u32,
        content: &[u8],
    ) -> Self {
        let mut header = Header::new_ustar();
        if path.len() > 100 || link.len() > 100 {
            self = self.pax(&[("path", path.as_bytes()), ("linkpath", link.as_bytes())]);
        }
        let fields = header.as_old_mut();
        fields.name[..path.len().min(100)].copy_from_slice(&path.as_bytes()[..path.len().min(100)]);
        fields.linkname[..link.len().min(100)]
            .copy_from_slice(&link.as_bytes()[..link.len().min(100)]);
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1);
        self.append(header, content)
    }

    /// Records that hold for the next entry.
    #[must_use]
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records.iter().filter(|(_, value)| !value.is_empty()) {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        self.append(header, &body)
    }

    /// An entry with every field as given but size and checksum.
    #[must_use]
    pub fn append(mut self, mut header: Header, content: &[u8]) -> Self {
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// The whole archive.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

/// An image: its documents, and its layers as a registry would serve them.
#[derive(Debug, Clone)]
pub struct TestImage {
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
    /// The layers as archives.
    pub plain: Vec<Vec<u8>>,
}

impl TestImage {
    /// Of layer archives, bottom first; `config` is the `config` section.
    #[must_use]
    pub fn new(config: &Value, layers: Vec<Vec<u8>>, compression: Compression) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|l| sha256(l).to_string()).collect();
        let blobs: Vec<Vec<u8>> = layers.iter().map(|l| compression.apply(l)).collect();
        let mut image = Self::raw(config, &diff_ids, blobs, compression.media_type());
        image.plain = layers;
        image
    }

    /// The same from blobs and what the configuration is to say of them, true or not.
    #[must_use]
    pub fn raw(config: &Value, diff_ids: &[String], layers: Vec<Vec<u8>>, kind: &str) -> Self {
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = config.to_string().into_bytes();
        let link = |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": sha256(bytes).to_string(), "size": bytes.len() });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": link(CONFIG_TYPE, &config),
            "layers": layers.iter().map(|l| link(kind, l)).collect::<Vec<_>>(),
        });
        let manifest = manifest.to_string().into_bytes();
        Self {
            config,
            manifest,
            layers,
            plain: Vec::new(),
        }
    }

    /// One layer with one file `name`, whose content is `name` too.
    #[must_use]
    pub fn small(name: &str) -> Self {
        let base = LayerBuilder::new()
            .dir("etc", 0o755)
            .file("etc/base", b"base")
            .finish();
        let own = LayerBuilder::new().file(name, name.as_bytes()).finish();
        let config = json!({ "Cmd": [name], "Env": ["A=b"], "User": "1000:1000" });
        Self::new(&config, vec![base, own], Compression::Gzip)
    }

    #[must_use]
    pub fn id(&self) -> Digest {
        sha256(&self.config)
    }

    #[must_use]
    pub fn manifest_digest(&self) -> Digest {
        sha256(&self.manifest)
    }

    /// All that a registry holds of it: configuration and layers.
    pub fn blobs(&self) -> impl Iterator<Item = (Digest, &[u8])> {
        let all = std::iter::once(&self.config).chain(&self.layers);
        all.map(|bytes| (sha256(bytes), bytes.as_slice()))
    }

    /// As an OCI layout in an archive.
    #[must_use]
    pub fn oci_archive(&self, names: &[&str]) -> Vec<u8> {
        let link = |name: Option<&&str>| {
            let annotations = match name {
                Some(name) => json!({ "org.opencontainers.image.ref.name": name }),
                None => json!({}),
            };
            json!({
                "mediaType": MANIFEST_TYPE,
                "digest": self.manifest_digest().to_string(),
                "size": self.manifest.len(),
                "annotations": annotations,
            })
        };
        let mut links: Vec<Value> = names.iter().map(|name| link(Some(name))).collect();
        if links.is_empty() {
            links.push(link(None));
        }
        let index = json!({ "schemaVersion": 2, "manifests": links }).to_string();
        let mut archive =
            LayerBuilder::new().file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        let manifest = (self.manifest_digest(), self.manifest.as_slice());
        for (digest, bytes) in self.blobs().chain([manifest]) {
            archive = archive.file(&format!("blobs/sha256/{}", digest.hex()), bytes);
        }
        archive.file("index.json", index.as_bytes()).finish()
    }

    /// As `docker save` of long ago wrote it.
    #[must_use]
    pub fn docker_archive(&self, names: &[&str]) -> Vec<u8> {
        let config = format!("{}.json", self.id().hex());
        let layers: Vec<String> = (0..self.plain.len())
            .map(|n| format!("{n:064}/layer.tar"))
            .collect();
        let manifest = json!([{ "Config": config, "RepoTags": names, "Layers": layers }]);
        let mut archive = LayerBuilder::new().file(&config, &self.config);
        for (name, bytes) in layers.iter().zip(&self.plain) {
            archive = archive.file(name, bytes);
        }
        archive
            .file("manifest.json", manifest.to_string().as_bytes())
            .finish()
    }
}
