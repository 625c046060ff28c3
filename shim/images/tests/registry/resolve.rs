//! What a name stands for.

use std::time::{Duration, Instant};

use carpel_images::engine::{Credentials, Error};
use carpel_images::registry::{HostConfig, Mirror, Registry};
use tokio::io::AsyncReadExt;

use crate::fake::{FakeRegistry, Fault, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, config, descriptor};
use crate::{
    REPOSITORY, corrupt, denied, fake, layer_bytes, manifest_bytes, quick, resolve, session,
    session_of, unavailable, with_image,
};

#[tokio::test]
async fn an_image_is_resolved_and_its_layers_read() {
    let (registry, pushed) = with_image().await;
    let session = session(&registry, Credentials::Anonymous);
    let image = session.resolve().await.unwrap();
    assert_eq!(image.digest.to_string(), pushed.manifest);
    assert_eq!(image.manifest_digest, image.digest);
    assert_eq!(image.manifest.config.digest.to_string(), pushed.config);
    assert_eq!(image.config_bytes, config("a"));
    assert_eq!(image.source, registry.url());
    let mut bytes = Vec::new();
    let stream = session.open_layer(&image.manifest.layers[0]).await.unwrap();
    stream.into_reader().read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, layer_bytes());
}

#[tokio::test]
async fn by_digest_only_those_bytes_will_do() {
    let (registry, pushed) = with_image().await;
    let name = format!(
        "{}/{REPOSITORY}:ignored@{}",
        registry.host(),
        pushed.manifest
    );
    let by_digest = session_of(quick(), &name, Credentials::Anonymous);
    assert_eq!(
        by_digest.resolve().await.unwrap().digest.to_string(),
        pushed.manifest
    );
    let other = format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[]}}"#,
        descriptor(OCI_CONFIG, b"x")
    );
    registry.always("/manifests/", Fault::Content(other.into_bytes()));
    assert!(corrupt(&by_digest.resolve().await.unwrap_err()));
}

#[tokio::test]
async fn a_digest_header_that_lies_is_noticed() {
    for value in [fake::sha256(b"other"), "sha256:../../x".to_owned()] {
        let (registry, _) = with_image().await;
        registry.always("/manifests/", Fault::Header("docker-content-digest", value));
        assert!(corrupt(&resolve(&registry).await.unwrap_err()));
    }
}

fn index_of(entries: &[(&str, &[u8], &str)]) -> Vec<u8> {
    let entries: Vec<_> = entries
        .iter()
        .map(|(kind, bytes, architecture)| {
            let mut entry = descriptor(kind, bytes);
            entry["platform"] = serde_json::json!({"os": "linux", "architecture": architecture});
            entry
        })
        .collect();
    serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
        .to_string()
        .into_bytes()
}

fn machine() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[tokio::test]
async fn an_index_leads_to_the_manifest_for_this_machine() {
    let registry = FakeRegistry::start().await;
    let configuration = config("mine");
    let manifest = manifest_bytes(&configuration);
    registry.put_blob(REPOSITORY, &configuration);
    let child = registry.put_manifest(REPOSITORY, None, OCI_MANIFEST, &manifest);
    let inner = index_of(&[
        (OCI_MANIFEST, b"none", "s390x"),
        (OCI_MANIFEST, &manifest, machine()),
    ]);
    registry.put_manifest(REPOSITORY, None, OCI_INDEX, &inner);
    let outer = index_of(&[(OCI_INDEX, &inner, machine())]);
    let top = registry.put_manifest(REPOSITORY, Some("1"), OCI_INDEX, &outer);
    let image = resolve(&registry).await.unwrap();
    assert_eq!(image.digest.to_string(), top);
    assert_eq!(image.manifest_digest.to_string(), child);
    assert_eq!(image.manifest_bytes, manifest);
}

#[tokio::test]
async fn an_index_without_this_machine_says_what_it_has() {
    let registry = FakeRegistry::start().await;
    let index = index_of(&[(OCI_MANIFEST, b"none", "s390x")]);
    registry.put_manifest(REPOSITORY, Some("1"), OCI_INDEX, &index);
    let error = resolve(&registry).await.unwrap_err();
    assert!(
        matches!(&error, Error::NotFound(what) if what.contains("linux/s390x")),
        "{error}"
    );
}

#[tokio::test]
async fn a_child_of_another_size_or_kind_is_refused() {
    let manifest = manifest_bytes(&config("x"));
    let mut long = descriptor(OCI_MANIFEST, &manifest);
    long["size"] = 7.into();
    let mut list = descriptor(
        "application/vnd.docker.distribution.manifest.v2+json",
        &manifest,
    );
    list["size"] = manifest.len().into();
    for entry in [long, list] {
        let registry = FakeRegistry::start().await;
        registry.put_blob(REPOSITORY, &config("x"));
        registry.put_manifest(REPOSITORY, None, OCI_MANIFEST, &manifest);
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
        registry.put_manifest(REPOSITORY, Some("1"), OCI_INDEX, index.as_bytes());
        assert!(corrupt(&resolve(&registry).await.unwrap_err()));
    }
}

#[tokio::test]
async fn ambiguous_manifests_are_refused() {
    let both = serde_json::json!({
        "schemaVersion": 2, "config": descriptor(OCI_CONFIG, b"{}"), "layers": [],
        "manifests": [descriptor(OCI_MANIFEST, b"x")],
    })
    .to_string();
    for (kind, bytes) in [
        (OCI_MANIFEST, both.as_bytes()),
        (OCI_INDEX, both.as_bytes()),
        (OCI_INDEX, &manifest_bytes(b"{}")),
        (OCI_MANIFEST, b"{\"schemaVersion\":2,"),
        (OCI_MANIFEST, b"<html>"),
        (OCI_MANIFEST, b""),
    ] {
        let registry = FakeRegistry::start().await;
        registry.put_manifest(REPOSITORY, Some("1"), kind, bytes);
        let error = resolve(&registry).await.unwrap_err();
        assert!(corrupt(&error), "{error}");
    }
}

#[tokio::test]
async fn documents_have_a_size_limit() {
    let registry = FakeRegistry::start().await;
    let huge = vec![b' '; 5 * 1024 * 1024];
    registry.put_manifest(REPOSITORY, Some("1"), OCI_MANIFEST, &huge);
    assert!(corrupt(&resolve(&registry).await.unwrap_err()));
    registry.always("/manifests/", Fault::Long(0));
    assert!(corrupt(&resolve(&registry).await.unwrap_err()));
}

#[tokio::test]
async fn a_held_configuration_is_not_fetched_unless_it_is_another() {
    let (registry, pushed) = with_image().await;
    let session = session(&registry, Credentials::Anonymous);
    let image = session.resolve_with(|_| Some(config("a"))).await.unwrap();
    assert_eq!(image.config_bytes, config("a"));
    assert!(registry.requests_for(&pushed.config).is_empty());
    let image = session
        .resolve_with(|_| Some(config("other")))
        .await
        .unwrap();
    assert_eq!(image.config_bytes, config("a"));
    assert_eq!(registry.requests_for(&pushed.config).len(), 1);
}

#[tokio::test]
async fn statuses_become_the_errors_that_callers_know() {
    type Is = fn(&Error) -> bool;
    let cases: [(u16, Is); 5] = [
        (401, denied),
        (403, denied),
        (404, |error| matches!(error, Error::NotFound(_))),
        (500, unavailable),
        (418, unavailable),
    ];
    for (code, is) in cases {
        let (registry, _) = with_image().await;
        registry.always("/manifests/", Fault::Status(code, Vec::new()));
        let error = resolve(&registry).await.unwrap_err();
        assert!(is(&error), "{code}: {error}");
        let tries = registry.requests_for("/manifests/").len();
        assert_eq!(tries, if code == 500 { 4 } else { 1 }, "{code}");
    }
}

#[tokio::test]
async fn nobody_listening_is_unavailable() {
    let (registry, _) = with_image().await;
    let host = registry.host();
    drop(registry);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let gone = session_of(quick(), &format!("{host}/x"), Credentials::Anonymous);
    assert!(unavailable(&gone.resolve().await.unwrap_err()));
}

#[tokio::test]
async fn retry_after_is_obeyed_up_to_a_point() {
    let (registry, _) = with_image().await;
    let busy = |s: &str| Fault::Status(429, vec![("retry-after", s.to_owned())]);
    registry.fault("/manifests/", busy("1"), 1);
    let start = Instant::now();
    resolve(&registry).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    registry.fault("/manifests/", busy("3600"), 1);
    let error = resolve(&registry).await.unwrap_err();
    assert!(
        unavailable(&error) && error.to_string().contains("429"),
        "{error}"
    );
}

#[test]
fn a_configuration_that_cannot_be_is_refused_at_once() {
    let mut config = quick();
    let mirrors = vec![Mirror::new("no url")];
    config.hosts.insert(
        "docker.io".into(),
        HostConfig {
            mirrors,
            ..HostConfig::default()
        },
    );
    assert!(matches!(Registry::new(config), Err(Error::Invalid { .. })));
}
