//! The registry client against a registry that misbehaves.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod access;
#[allow(unreachable_pub, reason = "shared with other test binaries")]
#[path = "../support/registry.rs"]
mod fake;
mod keychain;
mod layers;
mod mirrors;
mod resolve;

use std::sync::Arc;
use std::time::Duration;

use carpel_images::engine::{Credentials, Error, NoProgress};
use carpel_images::reference::Reference;
use carpel_images::registry::{
    LayerStream, Registry, RegistryConfig, ResolvedImage, RetryPolicy, Session, Timeouts,
};

use fake::{FakeRegistry, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Pushed, config, descriptor};

const REPOSITORY: &str = "some/app";

fn quick() -> RegistryConfig {
    RegistryConfig {
        timeouts: Timeouts {
            connect: Duration::from_secs(2),
            stall: Duration::from_millis(400),
            stall_bytes: 64,
            document: Duration::from_secs(3),
        },
        retry: RetryPolicy {
            attempts: 4,
            base: Duration::from_millis(5),
            max: Duration::from_millis(20),
            max_retry_after: Duration::from_secs(2),
        },
        ..RegistryConfig::default()
    }
}

fn layer_bytes() -> Vec<u8> {
    (0..300_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn user() -> Credentials {
    Credentials::Basic {
        username: "jo".into(),
        password: "hunter2".into(),
    }
}

async fn with_image() -> (FakeRegistry, Pushed) {
    let registry = FakeRegistry::start().await;
    let pushed = put(&registry);
    (registry, pushed)
}

fn put(registry: &FakeRegistry) -> Pushed {
    registry.put_image(
        REPOSITORY,
        Some("1"),
        &config("a"),
        &[(OCI_LAYER, &layer_bytes())],
    )
}

fn session_of(config: RegistryConfig, name: &str, credentials: Credentials) -> Session {
    let reference = Reference::parse(name).unwrap();
    let registry = Registry::new(config).unwrap();
    registry
        .session(&reference, credentials, Arc::new(NoProgress))
        .unwrap()
}

fn session(registry: &FakeRegistry, credentials: Credentials) -> Session {
    session_of(
        quick(),
        &format!("{}/{REPOSITORY}:1", registry.host()),
        credentials,
    )
}

async fn resolve(registry: &FakeRegistry) -> Result<ResolvedImage, Error> {
    session(registry, Credentials::Anonymous).resolve().await
}

async fn read(mut stream: LayerStream) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next_chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn first_layer(session: &Session) -> Result<Vec<u8>, Error> {
    let image = session.resolve().await?;
    read(session.open_layer(&image.manifest.layers[0]).await?).await
}

async fn pull(registry: &FakeRegistry, credentials: Credentials) -> Result<Vec<u8>, Error> {
    first_layer(&session(registry, credentials)).await
}

fn corrupt(error: &Error) -> bool {
    matches!(error, Error::Corrupt { .. })
}

fn denied(error: &Error) -> bool {
    matches!(error, Error::Denied { .. })
}

fn unavailable(error: &Error) -> bool {
    matches!(error, Error::Unavailable { .. })
}

fn manifest_bytes(configuration: &[u8]) -> Vec<u8> {
    serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, configuration), "layers": [],
    })
    .to_string()
    .into_bytes()
}
