//! The contract between the daemon and whatever holds images.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;

/// Where images come from: our own store, or another container engine.
///
/// Every call may be dropped at any await point without leaving anything half done
/// behind. Calls run concurrently; an engine does its own locking.
///
/// Identity: an image *is* its configuration blob. Two names, tags or registries
/// whose manifests have the same configuration digest are one [`Image`] with all
/// the names, and [`ImageId`] is the same from every call.
#[async_trait]
pub trait ImageEngine: Send + Sync + fmt::Debug {
    /// Short name for messages and records: `store`, `containerd`, ….
    fn name(&self) -> &str;

    /// Makes `request.reference` present and unpacked, and gives its id.
    ///
    /// A tag is always resolved anew at its registry. On failure names that
    /// resolved before still do, to what they did.
    async fn pull(&self, request: PullRequest) -> Result<ImageId, Error>;

    /// Looks an image up by name (normalised as in a pull), `name@digest`, id, or
    /// unique id prefix. `Ok(None)` is the answer for one that is not there, once
    /// `remove` has returned at the latest.
    async fn status(&self, query: &str) -> Result<Option<Image>, Error>;

    async fn list(&self) -> Result<Vec<Image>, Error>;

    /// Removes the image with *all* its names. One that is not there is no error,
    /// nor is a removal that runs already: it is waited for. Content that a
    /// prepared root filesystem uses stays until that is released.
    async fn remove(&self, query: &str) -> Result<(), Error>;

    /// Space used by image content and by containers' writable layers.
    async fn usage(&self) -> Result<Usage, Error>;

    /// Makes a writable root filesystem of an image for container `key`, as a
    /// detached mount that is attached nowhere. Calling it again with the same key
    /// (after a crash, say) gives a mount of the same files.
    async fn prepare(&self, image: &ImageId, key: &str) -> Result<Rootfs, Error>;

    /// Gives back what `prepare` made, and deletes the writable layer. An unknown
    /// key is no error.
    async fn release(&self, key: &str) -> Result<(), Error>;

    /// Bytes and inodes of the writable layer of `key`; may be some seconds old.
    async fn writable_usage(&self, key: &str) -> Result<LayerUsage, Error>;

    /// Keys that were prepared and not released, for the daemon's start-up clean-up.
    async fn prepared(&self) -> Result<Vec<String>, Error>;
}

/// Digest of the image configuration, `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageId(pub String);

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug)]
pub struct PullRequest {
    /// As the user wrote it: `name`, `name:tag`, `name@digest`, `host/name…`.
    pub reference: String,
    pub credentials: Credentials,
    pub progress: Arc<dyn Progress>,
}

/// What CRI's AuthConfig carries. Never logged: `Debug` shows the kind only.
#[derive(Clone, Default)]
pub enum Credentials {
    #[default]
    Anonymous,
    Basic {
        username: String,
        password: String,
    },
    /// OAuth2 refresh token, exchanged at the registry's token service.
    IdentityToken(String),
    /// Bearer token that the registry itself takes.
    RegistryToken(String),
}

impl Credentials {
    /// From base64 of `user:password`, as in docker's `config.json` (CRI AuthConfig.auth).
    pub fn from_docker_auth(auth: &str) -> Result<Self, Error> {
        let invalid = |why: &str| Error::Invalid {
            what: "auth".into(),
            why: why.into(),
        };
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(auth.trim())
            .map_err(|_| invalid("is not base64"))?;
        let text = String::from_utf8(bytes).map_err(|_| invalid("is not UTF-8 inside"))?;
        let (username, password) = text
            .split_once(':')
            .ok_or_else(|| invalid("has no colon inside"))?;
        let password = password.trim_end_matches('\0').to_owned();
        Ok(Self::Basic {
            username: username.to_owned(),
            password,
        })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic(…)",
            Self::IdentityToken(_) => "IdentityToken(…)",
            Self::RegistryToken(_) => "RegistryToken(…)",
        })
    }
}

/// Told about a pull as it goes. Must not block.
pub trait Progress: Send + Sync + fmt::Debug {
    fn layer(&self, digest: &str, state: LayerState);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerState {
    Waiting,
    /// Compressed bytes; `total` 0 when not known.
    Fetching {
        current: u64,
        total: u64,
    },
    Unpacking,
    Done,
    /// Was there already.
    Exists,
}

/// For callers who do not look.
#[derive(Debug)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn layer(&self, _digest: &str, _state: LayerState) {}
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub id: ImageId,
    /// `name:tag`, sorted.
    pub repo_tags: Vec<String>,
    /// `name@digest` of each manifest or index it was pulled by, sorted.
    pub repo_digests: Vec<String>,
    /// Compressed size of configuration and layers, bytes; never 0.
    pub size: u64,
    /// `config.User` of the image, whole.
    pub user: String,
    pub pinned: bool,
    pub config: ImageConfig,
    /// The image configuration blob itself, JSON, for verbose status.
    pub config_json: Arc<str>,
    /// Chain id of the topmost layer.
    pub chain_id: String,
}

/// The part of the OCI image configuration that running it needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub working_dir: String,
    pub user: String,
    pub stop_signal: String,
    pub volumes: Vec<String>,
    pub labels: BTreeMap<String, String>,
}

/// A root filesystem: a mount that is attached nowhere, and what made it.
#[derive(Debug)]
pub struct Rootfs {
    pub mount: OwnedFd,
    pub image: Image,
}

#[derive(Debug, Clone, Default)]
pub struct Usage {
    pub images: Vec<FsUsage>,
    pub containers: Vec<FsUsage>,
}

#[derive(Debug, Clone)]
pub struct FsUsage {
    /// A directory that exists on the filesystem meant.
    pub path: PathBuf,
    pub used: LayerUsage,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LayerUsage {
    pub bytes: u64,
    pub inodes: u64,
}

/// By what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reference, digest or query is malformed.
    #[error("{what}: {why}")]
    Invalid { what: String, why: String },
    #[error("image {0:?} not found")]
    NotFound(String),
    /// The registry wants other credentials.
    #[error("registry {registry} refuses access to {reference}: {why}")]
    Denied {
        registry: String,
        reference: String,
        why: String,
    },
    /// Did not answer, or answered with a server error, on every mirror.
    #[error("registry {registry} is unavailable: {why}")]
    Unavailable { registry: String, why: String },
    /// Content that breaks its own rules: wrong digest, hostile layer, bad manifest.
    #[error("image {reference} is corrupt or hostile: {why}")]
    Corrupt { reference: String, why: String },
    #[error("no space or over a limit: {0}")]
    Exhausted(String),
    #[error("{what} took longer than {after:?}")]
    Deadline { what: String, after: Duration },
    #[error("engine {engine} does not support {what}")]
    Unsupported { engine: &'static str, what: String },
    #[error("{what}")]
    Io {
        what: String,
        #[source]
        source: std::io::Error,
    },
}
