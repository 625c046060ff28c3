//! One pull of one image, over all the sites that may have it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::auth::Source;
use super::config::{RegistryConfig, RetryPolicy};
use super::endpoint::{Endpoint, authority, endpoints};
use super::failure::{Failure, Failures};
use super::keychain::Keychain;
use super::layer::LayerStream;
use super::manifest::{Descriptor, Manifest};
use super::platform::Machine;
use super::resolve;
use super::site::Site;
use super::transport::Transport;
use super::verify::Verifier;
use crate::engine::{Credentials, Error, Progress};
use crate::reference::{Digest, Reference};

/// The process's one registry client: connections and settings, no credentials.
#[derive(Debug, Clone)]
pub struct Registry {
    config: Arc<RegistryConfig>,
    transport: Arc<Transport>,
    keychain: Arc<Keychain>,
}

impl Registry {
    /// Refuses a configuration with a URL that cannot be.
    pub fn new(config: RegistryConfig) -> Result<Self, Error> {
        for host in config.hosts.keys() {
            endpoints(&config, host)?;
        }
        let transport = Arc::new(Transport::new(config.timeouts));
        let keychain = Keychain::new(config.keychain.clone(), config.hosts.clone());
        Ok(Self {
            config: Arc::new(config),
            transport,
            keychain: Arc::new(keychain),
        })
    }

    /// Starts one pull. The credentials live and die with the session.
    pub fn session(
        &self,
        reference: &Reference,
        credentials: Credentials,
        progress: Arc<dyn Progress>,
    ) -> Result<Session, Error> {
        let all = endpoints(&self.config, &reference.registry)?;
        let last = all.len() - 1;
        let given = !matches!(credentials, Credentials::Anonymous);
        let site = |(at, endpoint): (usize, Endpoint)| {
            let source = if given && endpoint.trusted {
                Source::Given(credentials.clone())
            } else {
                // A mirror is known by its own name, never by whom it stands for.
                let itself = endpoint.namespace.is_none();
                Source::Keychain {
                    keychain: Arc::clone(&self.keychain),
                    registry: match itself {
                        true => reference.registry.clone(),
                        false => authority(&endpoint.base),
                    },
                }
            };
            // Nobody waits for a sick mirror while there is another place to ask.
            let attempts = if at == last {
                self.config.retry.attempts.max(1)
            } else {
                1
            };
            let policy = RetryPolicy {
                attempts,
                ..self.config.retry
            };
            let transport = Arc::clone(&self.transport);
            Arc::new(Site::new(
                transport,
                endpoint,
                &reference.repository,
                source,
                policy,
            ))
        };
        Ok(Session {
            sites: all.into_iter().enumerate().map(site).collect(),
            first: AtomicUsize::new(0),
            slots: Arc::new(Semaphore::new(self.config.max_concurrent_layers.max(1))),
            reference: reference.clone(),
            progress,
            max_manifest_bytes: self.config.max_manifest_bytes,
        })
    }
}

/// One pull of one image.
#[derive(Debug)]
pub struct Session {
    /// Mirrors in order, then the registry itself.
    sites: Vec<Arc<Site>>,
    /// The site that knew the name; those before it have nothing to offer.
    first: AtomicUsize,
    slots: Arc<Semaphore>,
    reference: Reference,
    progress: Arc<dyn Progress>,
    max_manifest_bytes: usize,
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
        F: Fn(&Digest) -> Option<Vec<u8>> + Send + Sync,
    {
        let mut failures = Failures::default();
        for (at, site) in self.sites.iter().enumerate() {
            match Box::pin(self.resolve_at(site, &held)).await {
                Ok(image) => {
                    self.first.store(at, Ordering::Relaxed);
                    return Ok(image);
                }
                Err(failure) => failures.push(site.name(), failure),
            }
        }
        Err(failures.to_error(&self.reference))
    }

    async fn resolve_at<F>(&self, site: &Site, held: &F) -> Result<ResolvedImage, Failure>
    where
        F: Fn(&Digest) -> Option<Vec<u8>> + Send + Sync,
    {
        let machine = Machine::this();
        let found = resolve::find(site, &self.reference, machine, self.max_manifest_bytes).await?;
        let config = &found.manifest.config;
        let held = held(&config.digest);
        let config_bytes = resolve::config(site, config, machine, held).await?;
        Ok(ResolvedImage {
            reference: self.reference.clone(),
            digest: found.digest,
            manifest_digest: found.manifest_digest,
            manifest: found.manifest,
            manifest_bytes: found.bytes,
            config_bytes,
            source: site.name().to_owned(),
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
        if *seen.expected() != layer.digest || seen.bytes() > layer.size {
            return Err(Error::Invalid {
                what: format!("resumption of {} at byte {}", layer.digest, seen.bytes()),
                why: "is not of this layer".to_owned(),
            });
        }
        let slot = Arc::clone(&self.slots)
            .acquire_owned()
            .await
            .map_err(|_| Error::Exhausted("the pull's slots for layers are closed".to_owned()))?;
        let mut stream = LayerStream::new(
            layer.clone(),
            seen,
            self.usable_sites(),
            self.reference.clone(),
            Arc::clone(&self.progress),
            slot,
        );
        stream.open().await?;
        Ok(stream)
    }

    /// How many places content may come from.
    pub fn sources(&self) -> usize {
        self.sites.len() - self.first.load(Ordering::Relaxed)
    }

    /// Whether one of them has given no wrong content so far.
    pub fn has_trusted_source(&self) -> bool {
        let rest = &self.sites[self.first.load(Ordering::Relaxed)..];
        rest.iter().any(|site| !site.suspect())
    }

    /// Where layers may come from, best first; never empty.
    fn usable_sites(&self) -> Vec<Arc<Site>> {
        let rest = &self.sites[self.first.load(Ordering::Relaxed)..];
        let mut sites: Vec<_> = rest
            .iter()
            .filter(|site| !site.suspect())
            .cloned()
            .collect();
        if sites.is_empty() {
            sites.extend(rest.last().cloned());
        }
        sites
    }
}
