//! Manifests and indexes: read strictly, since the same bytes must not mean
//! different things to different readers.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::failure::{Failure, presentable};
use crate::reference::Digest;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1";

/// What is asked for when an image is: never schema 1.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// Says nothing about the document; some servers send it for everything.
const GENERIC: [&str; 5] = [
    "",
    "application/json",
    "application/octet-stream",
    "binary/octet-stream",
    "text/plain",
];

/// Kinds of configuration that make a manifest a container image. Very old pushes
/// left the third one.
const CONFIGS: [&str; 3] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
    "application/octet-stream",
];

/// Names content, its size and its kind. A descriptor's `urls` are dropped in
/// parsing: content comes from the registry it was asked of and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
}

/// An image manifest: one platform's configuration and layers, bottom layer first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

/// Either document that a name can stand for.
#[derive(Debug)]
pub(super) enum Parsed {
    Manifest(Manifest),
    Index(Vec<Entry>),
}

/// One manifest of an index.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) descriptor: Descriptor,
    pub(super) platform: Option<Platform>,
}

impl Entry {
    pub(super) fn is_index(&self) -> bool {
        matches!(self.descriptor.media_type.as_str(), OCI_INDEX | DOCKER_LIST)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    pub(super) os: String,
    #[serde(default)]
    pub(super) architecture: String,
    #[serde(default)]
    pub(super) variant: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
    fs_layers: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

impl RawDescriptor {
    fn check(self) -> Result<Descriptor, Failure> {
        let digest = Digest::parse(&self.digest)
            .map_err(|error| Failure::corrupt(format!("manifest: {error}")))?;
        Ok(Descriptor {
            media_type: self.media_type,
            digest,
            size: self.size,
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Manifest,
    Index,
}

/// Reads a document that came as `content_type`, under a descriptor that promised
/// `promised` if it came through an index.
pub(super) fn parse(
    bytes: &[u8],
    content_type: Option<&str>,
    promised: Option<&str>,
) -> Result<Parsed, Failure> {
    let served = content_type.unwrap_or_default();
    if served.starts_with(DOCKER_SCHEMA_1) {
        return Err(schema_1());
    }
    let raw: RawDocument = serde_json::from_slice(bytes)
        .map_err(|error| Failure::corrupt(format!("manifest cannot be read: {error}")))?;
    if raw.schema_version == Some(1) || raw.fs_layers.is_some() {
        return Err(schema_1());
    }
    if raw.schema_version != Some(2) {
        return Err(Failure::corrupt("manifest has no schemaVersion 2"));
    }
    let written = raw.media_type.as_deref().unwrap_or_default();
    let agreed = agree([written, served, promised.unwrap_or_default()])?;
    match (kind_of(agreed, &raw)?, raw) {
        (
            Kind::Index,
            RawDocument {
                manifests: Some(entries),
                ..
            },
        ) => index(entries),
        (
            Kind::Manifest,
            RawDocument {
                config: Some(config),
                layers: Some(layers),
                ..
            },
        ) => manifest(config, layers),
        _ => Err(Failure::corrupt("manifest lacks what its kind must have")),
    }
}

/// The one media type that all who name one name.
fn agree(claims: [&str; 3]) -> Result<&str, Failure> {
    let mut agreed = "";
    for claim in claims.into_iter().filter(|claim| !GENERIC.contains(claim)) {
        if !agreed.is_empty() && agreed != claim {
            return Err(Failure::corrupt(format!(
                "manifest is called {} and also {}",
                presentable(agreed),
                presentable(claim)
            )));
        }
        agreed = claim;
    }
    Ok(agreed)
}

/// By name, or by content if there is no name; in either case the content must not
/// be of the other kind too.
fn kind_of(media_type: &str, raw: &RawDocument) -> Result<Kind, Failure> {
    let like_index = raw.manifests.is_some();
    let like_manifest = raw.layers.is_some() || raw.config.is_some();
    let kind = match media_type {
        OCI_INDEX | DOCKER_LIST => Kind::Index,
        OCI_MANIFEST | DOCKER_MANIFEST => Kind::Manifest,
        "" if like_index => Kind::Index,
        "" => Kind::Manifest,
        other => {
            return Err(Failure::Unsupported(format!(
                "manifests of type {}",
                presentable(other)
            )));
        }
    };
    if (kind == Kind::Index && like_manifest) || (kind == Kind::Manifest && like_index) {
        return Err(Failure::corrupt(
            "manifest could be read as an index, or the reverse",
        ));
    }
    Ok(kind)
}

fn manifest(config: RawDescriptor, layers: Vec<RawDescriptor>) -> Result<Parsed, Failure> {
    let config = config.check()?;
    if !CONFIGS.contains(&config.media_type.as_str()) {
        let kind = presentable(&config.media_type);
        return Err(Failure::Unsupported(format!(
            "artifacts that are no images ({kind})"
        )));
    }
    let layers = layers
        .into_iter()
        .map(RawDescriptor::check)
        .collect::<Result<_, _>>()?;
    Ok(Parsed::Manifest(Manifest { config, layers }))
}

fn index(entries: Vec<RawDescriptor>) -> Result<Parsed, Failure> {
    let entry = |mut raw: RawDescriptor| {
        let platform = raw.platform.take();
        Ok(Entry {
            descriptor: raw.check()?,
            platform,
        })
    };
    Ok(Parsed::Index(
        entries
            .into_iter()
            .map(entry)
            .collect::<Result<_, Failure>>()?,
    ))
}

fn schema_1() -> Failure {
    Failure::Unsupported("Docker schema 1 manifests; the image must be pushed anew".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "9700a4ffc9ddaa5ab8e15ca5ba7b6c4ba1d0a6e5a1ba1ab1e5a2a8eb1a1a66bf";

    fn descriptor(kind: &str, more: &str) -> String {
        format!(r#"{{"mediaType":"{kind}","digest":"sha256:{HEX}","size":7{more}}}"#)
    }

    fn manifest_text(more: &str) -> String {
        let config = descriptor(CONFIGS[0], "");
        let layer = descriptor(
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            r#","urls":["https://evil.example/layer"]"#,
        );
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]{more}}}"#)
    }

    fn index_text(more: &str) -> String {
        let entry = descriptor(
            OCI_MANIFEST,
            r#","platform":{"os":"linux","architecture":"arm64"}"#,
        );
        format!(r#"{{"schemaVersion":2,"manifests":[{entry}]{more}}}"#)
    }

    fn outcome(text: &str, content_type: Option<&str>) -> &'static str {
        match parse(text.as_bytes(), content_type, None) {
            Ok(Parsed::Manifest(_)) => "manifest",
            Ok(Parsed::Index(_)) => "index",
            Err(Failure::Corrupt(_)) => "corrupt",
            Err(Failure::Unsupported(_)) => "unsupported",
            Err(_) => "other",
        }
    }

    #[test]
    fn kind_comes_from_the_name_or_else_from_the_content() {
        let named = format!(r#","mediaType":"{DOCKER_MANIFEST}""#);
        assert_eq!(
            outcome(&manifest_text(&named), Some(DOCKER_MANIFEST)),
            "manifest"
        );
        assert_eq!(
            outcome(&manifest_text(""), Some("application/json")),
            "manifest"
        );
        assert_eq!(outcome(&manifest_text(""), None), "manifest");
        assert_eq!(outcome(&index_text(""), Some(OCI_INDEX)), "index");
        assert_eq!(outcome(&index_text(""), None), "index");
    }

    #[test]
    fn documents_that_could_be_two_things_are_neither() {
        let entry = descriptor(OCI_MANIFEST, "");
        let both = manifest_text(&format!(r#","manifests":[{entry}]"#));
        assert_eq!(outcome(&both, Some(OCI_MANIFEST)), "corrupt");
        assert_eq!(outcome(&both, Some(OCI_INDEX)), "corrupt");
        assert_eq!(outcome(&both, None), "corrupt");
        assert_eq!(
            outcome(&index_text(r#","layers":[]"#), Some(OCI_INDEX)),
            "corrupt"
        );
        assert_eq!(outcome(&manifest_text(r#","layers":[]"#), None), "corrupt");
        assert_eq!(outcome(&manifest_text(""), Some(OCI_INDEX)), "corrupt");
        assert_eq!(outcome(&index_text(""), Some(OCI_MANIFEST)), "corrupt");
    }

    #[test]
    fn names_that_differ_are_refused() {
        let named = format!(r#","mediaType":"{OCI_MANIFEST}""#);
        let text = manifest_text(&named);
        assert_eq!(outcome(&text, Some(DOCKER_MANIFEST)), "corrupt");
        assert!(parse(text.as_bytes(), None, Some(DOCKER_MANIFEST)).is_err());
        assert!(parse(text.as_bytes(), None, Some(OCI_MANIFEST)).is_ok());
    }

    #[test]
    fn what_is_no_image_says_so() {
        assert_eq!(
            outcome(r#"{"schemaVersion":1,"fsLayers":[]}"#, None),
            "unsupported"
        );
        assert_eq!(
            outcome("{}", Some(&format!("{DOCKER_SCHEMA_1}+prettyjws"))),
            "unsupported"
        );
        let chart =
            manifest_text("").replace(CONFIGS[0], "application/vnd.cncf.helm.config.v1+json");
        assert_eq!(outcome(&chart, None), "unsupported");
        assert_eq!(
            outcome(&manifest_text(""), Some("application/vnd.example")),
            "unsupported"
        );
    }

    #[test]
    fn garbage_is_corrupt() {
        let mut cases = ["", "{", "[]", "null", "{}", r#"{"schemaVersion":2}"#]
            .map(str::to_owned)
            .to_vec();
        cases.push(manifest_text("").replace(HEX, "../../../etc/passwd"));
        cases.push(manifest_text("").replace(":7", ":-7"));
        cases.push(manifest_text("").replace(":7", ":7.5"));
        cases.push("[".repeat(100_000));
        for text in cases {
            assert_eq!(outcome(&text, None), "corrupt", "{text:.60}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,200}") {
            outcome(&text, None);
        }
    }
}
