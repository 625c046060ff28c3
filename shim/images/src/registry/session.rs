use std::sync::Arc;

use super::{Descriptor, LayerStream, Manifest, RegistryConfig, Verifier};
use crate::engine::{Credentials, Error, Progress};
use crate::reference::{Digest, Reference};

/// The process's one registry client: connections and settings, no credentials.
#[derive(Debug, Clone)]
pub struct Registry {
    config: Arc<RegistryConfig>,
}

impl Registry {
    pub fn new(config: RegistryConfig) -> Result<Self, Error> {
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// Starts one pull. The credentials live and die with the session.
    pub fn session(
        &self,
        reference: &Reference,
        credentials: Credentials,
        progress: Arc<dyn Progress>,
    ) -> Result<Session, Error> {
        Ok(Session {
            registry: self.clone(),
            reference: reference.clone(),
            credentials,
            progress,
        })
    }
}

/// One pull of one image.
#[derive(Debug)]
pub struct Session {
    registry: Registry,
    reference: Reference,
    credentials: Credentials,
    progress: Arc<dyn Progress>,
}

/// What a name stands for at its registry now.
#[derive(Debug, Clone)]
pub struct ResolvedImage {
    pub reference: Reference,
    /// Of the manifest or index that the name stands for; makes the repo digest.
    pub digest: Digest,
    /// Of the manifest for this machine; `digest` itself unless that is an index.
    pub manifest_digest: Digest,
    pub manifest: Manifest,
    /// The manifest document, verified.
    pub manifest_bytes: Vec<u8>,
    /// The image configuration document, verified.
    pub config_bytes: Vec<u8>,
    /// URL of the mirror or registry that answered.
    pub source: String,
}

impl Session {
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Asks what the name stands for, and fetches the configuration.
    pub async fn resolve(&self) -> Result<ResolvedImage, Error> {
        self.resolve_with(|_| None).await
    }

    /// The same, except that a configuration which `held` gives is not fetched.
    pub async fn resolve_with<F>(&self, held: F) -> Result<ResolvedImage, Error>
    where
        F: Fn(&Digest) -> Option<Vec<u8>> + Send,
    {
        drop(held);
        let _ = (&self.registry.config, &self.credentials, &self.progress);
        Err(Error::Unsupported {
            engine: "store",
            what: "registries".into(),
        })
    }

    /// Opens a layer from its beginning. Waits while `max_concurrent_layers` others
    /// are open: finish or drop one before opening the next beyond that.
    pub async fn open_layer(&self, layer: &Descriptor) -> Result<LayerStream, Error> {
        self.resume_layer(layer, Verifier::new(&layer.digest)).await
    }

    /// Opens a layer behind the bytes that `seen` has hashed already.
    pub async fn resume_layer(
        &self,
        layer: &Descriptor,
        seen: Verifier,
    ) -> Result<LayerStream, Error> {
        drop(seen);
        Ok(LayerStream {
            descriptor: layer.clone(),
        })
    }
}
