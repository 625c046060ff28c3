//! Mirrors, and what comes after them.

use carpel_images::engine::Error;
use carpel_images::registry::{HostConfig, Mirror, RegistryConfig, Session};
use http::header::{AUTHORIZATION, RANGE};

use crate::fake::{FakeRegistry, Fault, Guard};
use crate::{
    REPOSITORY, corrupt, first_layer, layer_bytes, manifest_bytes, put, quick, read, session_of,
    user, with_image,
};

fn mirrored(registry: &FakeRegistry, mirrors: Vec<Mirror>) -> RegistryConfig {
    let mut config = quick();
    let host = HostConfig {
        mirrors,
        ..HostConfig::default()
    };
    config.hosts.insert(registry.host(), host);
    config
}

fn mirrored_session(registry: &FakeRegistry, mirrors: Vec<Mirror>) -> Session {
    let name = format!("{}/{REPOSITORY}:1", registry.host());
    session_of(mirrored(registry, mirrors), &name, user())
}

#[tokio::test]
async fn mirrors_are_asked_first_and_told_for_whom() {
    let (registry, _) = with_image().await;
    let mirror = FakeRegistry::start().await;
    put(&mirror);
    let url = format!("{}/cache", mirror.url());
    let session = mirrored_session(&registry, vec![Mirror::new(url.clone())]);
    assert_eq!(first_layer(&session).await.unwrap(), layer_bytes());
    assert_eq!(session.resolve().await.unwrap().source, url);
    assert!(registry.requests().is_empty());
    let seen = &mirror.requests()[0];
    assert_eq!(seen.path, "/cache/v2/some/app/manifests/1");
    assert_eq!(
        seen.query,
        format!("ns={}", registry.host().replace(':', "%3A"))
    );
}

#[tokio::test]
async fn whatever_a_mirror_does_the_registry_is_asked_next() {
    let flipped = manifest_bytes(b"none");
    let faults = [
        Fault::Status(401, vec![("www-authenticate", "Basic".into())]),
        Fault::Status(403, Vec::new()),
        Fault::Status(404, Vec::new()),
        Fault::Status(500, Vec::new()),
        Fault::Content(b"<html>".to_vec()),
        Fault::Content(flipped),
        Fault::Hang,
    ];
    for fault in faults {
        let (registry, pushed) = with_image().await;
        let mirror = FakeRegistry::start().await;
        put(&mirror);
        mirror.always("/manifests/", fault.clone());
        let session = mirrored_session(&registry, vec![Mirror::new(mirror.url())]);
        let image = session.resolve().await.unwrap();
        assert_eq!(image.digest.to_string(), pushed.manifest, "{fault:?}");
        assert_eq!(image.source, registry.url());
        assert!(
            mirror
                .requests()
                .iter()
                .all(|r| r.header(AUTHORIZATION).is_none())
        );
    }
}

#[tokio::test]
async fn all_failures_are_told() {
    let registry = FakeRegistry::start().await;
    let (one, two) = (FakeRegistry::start().await, FakeRegistry::start().await);
    one.always("/", Fault::Status(403, Vec::new()));
    two.always("/", Fault::Status(500, Vec::new()));
    let mirrors = vec![Mirror::new(one.url()), Mirror::new(two.url())];
    let error = mirrored_session(&registry, mirrors)
        .resolve()
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error}");
    let text = error.to_string();
    for part in [
        one.url(),
        two.url(),
        registry.url(),
        "403".into(),
        "500".into(),
        "404".into(),
    ] {
        assert!(text.contains(&part), "{text}");
    }
}

#[tokio::test]
async fn a_mirror_sees_credentials_only_if_told_so() {
    let (registry, _) = with_image().await;
    let mirror = FakeRegistry::start().await;
    put(&mirror);
    mirror.guard(Guard::Basic {
        user: "jo".into(),
        password: "hunter2".into(),
    });
    let session = mirrored_session(&registry, vec![Mirror::new(mirror.url())]);
    assert_eq!(session.resolve().await.unwrap().source, registry.url());
    assert!(
        mirror
            .requests()
            .iter()
            .all(|r| r.header(AUTHORIZATION).is_none())
    );
    let trusted = Mirror {
        send_credentials: true,
        ..Mirror::new(mirror.url())
    };
    let session = mirrored_session(&registry, vec![trusted]);
    assert_eq!(session.resolve().await.unwrap().source, mirror.url());
}

#[tokio::test]
async fn a_layer_that_a_mirror_cuts_goes_on_at_the_registry() {
    let (registry, pushed) = with_image().await;
    let mirror = FakeRegistry::start().await;
    put(&mirror);
    mirror.always(&pushed.layers[0], Fault::Cut(300_000));
    let session = mirrored_session(&registry, vec![Mirror::new(mirror.url())]);
    assert_eq!(first_layer(&session).await.unwrap(), layer_bytes());
    let seen = registry.requests_for(&pushed.layers[0]);
    assert_eq!(seen[0].header(RANGE), Some("bytes=300000-"));
}

#[tokio::test]
async fn a_mirror_with_wrong_content_is_not_asked_again() {
    let (registry, pushed) = with_image().await;
    let mirror = FakeRegistry::start().await;
    put(&mirror);
    let mut flipped = layer_bytes();
    flipped[77] ^= 1;
    mirror.always(&pushed.layers[0], Fault::Content(flipped));
    let session = mirrored_session(&registry, vec![Mirror::new(mirror.url())]);
    let image = session.resolve().await.unwrap();
    let layer = &image.manifest.layers[0];
    let error = read(session.open_layer(layer).await.unwrap())
        .await
        .unwrap_err();
    assert!(
        corrupt(&error) && error.to_string().contains(&mirror.url()),
        "{error}"
    );
    assert_eq!(
        read(session.open_layer(layer).await.unwrap())
            .await
            .unwrap(),
        layer_bytes()
    );
}
