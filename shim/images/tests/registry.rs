//! The registry client against a registry that misbehaves.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[allow(unreachable_pub, reason = "shared with other test binaries")]
#[path = "support/registry.rs"]
mod fake;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use carpel_images::engine::{Credentials, Error, LayerState, NoProgress, Progress};
use carpel_images::reference::Reference;
use carpel_images::registry::{
    Descriptor, HostConfig, LayerStream, Mirror, Registry, RegistryConfig, ResolvedImage,
    RetryPolicy, Session, Timeouts, Verifier, error_from_io,
};
use fake::{
    FakeRegistry, Fault, Guard, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Pushed,
    TokenService, config, descriptor, redirect,
};
use http::header::{AUTHORIZATION, RANGE};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::AsyncReadExt;

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

fn manifest_bytes(configuration: &[u8]) -> Vec<u8> {
    serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, configuration), "layers": [],
    })
    .to_string()
    .into_bytes()
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
async fn server_errors_pass_with_patience() {
    let (registry, _) = with_image().await;
    registry.fault("/manifests/", Fault::Status(503, Vec::new()), 2);
    registry.fault("/blobs/", Fault::Status(500, Vec::new()), 2);
    assert_eq!(
        pull(&registry, Credentials::Anonymous).await.unwrap(),
        layer_bytes()
    );
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

#[tokio::test]
async fn basic_credentials_are_shown_when_asked_for() {
    let (registry, _) = with_image().await;
    registry.guard(Guard::Basic {
        user: "jo".into(),
        password: "hunter2".into(),
    });
    assert_eq!(pull(&registry, user()).await.unwrap(), layer_bytes());
    assert_eq!(registry.requests()[0].header(AUTHORIZATION), None);
    for credentials in [
        Credentials::Anonymous,
        Credentials::Basic {
            username: "jo".into(),
            password: "wrong".into(),
        },
        Credentials::IdentityToken("x".into()),
    ] {
        let error = pull(&registry, credentials).await.unwrap_err();
        assert!(denied(&error), "{error}");
        assert!(!error.to_string().contains("wrong"));
    }
}

#[tokio::test]
async fn a_token_is_fetched_once_with_the_pulls_credentials() {
    let (registry, _) = with_image().await;
    let service = TokenService {
        user: Some(("jo".into(), "hunter2".into())),
        ..TokenService::default()
    };
    registry.guard(Guard::Bearer(service));
    assert_eq!(pull(&registry, user()).await.unwrap(), layer_bytes());
    let asked = registry.requests_for("/token");
    assert_eq!(asked.len(), 1);
    assert!(asked[0].query.contains("service=fake"));
    assert!(
        asked[0]
            .query
            .contains("scope=repository%3Asome%2Fapp%3Apull"),
        "{}",
        asked[0].query
    );
    assert!(denied(
        &pull(&registry, Credentials::Anonymous).await.unwrap_err()
    ));
}

#[tokio::test]
async fn anonymous_identity_and_registry_tokens_work() {
    let (registry, _) = with_image().await;
    registry.guard(Guard::Bearer(TokenService::default()));
    assert_eq!(
        pull(&registry, Credentials::Anonymous).await.unwrap(),
        layer_bytes()
    );

    let refresh_token = Some("refresh".to_owned());
    registry.guard(Guard::Bearer(TokenService {
        refresh_token,
        ..TokenService::default()
    }));
    let identity = Credentials::IdentityToken("refresh".into());
    assert_eq!(pull(&registry, identity).await.unwrap(), layer_bytes());

    registry.guard(Guard::Fixed {
        token: "direct".into(),
    });
    let token = Credentials::RegistryToken("direct".into());
    assert_eq!(pull(&registry, token).await.unwrap(), layer_bytes());
    let wrong = Credentials::RegistryToken("wrong".into());
    assert!(denied(&pull(&registry, wrong).await.unwrap_err()));
}

#[tokio::test]
async fn sessions_share_no_tokens() {
    let (registry, _) = with_image().await;
    let service = TokenService {
        user: Some(("jo".into(), "hunter2".into())),
        ..TokenService::default()
    };
    registry.guard(Guard::Bearer(service));
    let client = Registry::new(quick()).unwrap();
    let name = Reference::parse(&format!("{}/{REPOSITORY}:1", registry.host())).unwrap();
    let open = |credentials| {
        client
            .session(&name, credentials, Arc::new(NoProgress))
            .unwrap()
    };
    let (rich, poor) = (open(user()), open(Credentials::Anonymous));
    rich.resolve().await.unwrap();
    assert!(denied(&poor.resolve().await.unwrap_err()));
}

#[tokio::test]
async fn a_token_that_dies_in_mid_pull_is_renewed() {
    let (registry, _) = with_image().await;
    registry.guard(Guard::Bearer(TokenService::default()));
    let session = session(&registry, Credentials::Anonymous);
    let image = session.resolve().await.unwrap();
    registry.fault("/blobs/", Fault::Cut(200_000), 1);
    let mut stream = session.open_layer(&image.manifest.layers[0]).await.unwrap();
    let mut bytes = stream.next_chunk().await.unwrap().unwrap().to_vec();
    registry.revoke_tokens();
    bytes.extend(read(stream).await.unwrap());
    assert_eq!(bytes, layer_bytes());
    assert_eq!(registry.requests_for("/token").len(), 2);
}

#[tokio::test]
async fn parallel_layers_renew_a_token_once() {
    let registry = FakeRegistry::start().await;
    let layers: Vec<Vec<u8>> = (0..4_u8).map(|n| vec![n; 1000]).collect();
    let named: Vec<(&str, &[u8])> = layers.iter().map(|l| (OCI_LAYER, l.as_slice())).collect();
    registry.put_image(REPOSITORY, Some("1"), &config("a"), &named);
    registry.guard(Guard::Bearer(TokenService::default()));
    let session = session(&registry, Credentials::Anonymous);
    let image = session.resolve().await.unwrap();
    registry.revoke_tokens();
    let session = &session;
    let fetch = |layer| async move { read(session.open_layer(layer).await?).await };
    let got = futures_util::future::try_join_all(image.manifest.layers.iter().map(fetch)).await;
    assert_eq!(got.unwrap(), layers);
    assert_eq!(registry.requests_for("/token").len(), 2);
}

#[tokio::test]
async fn a_token_that_is_refused_is_no_endless_loop() {
    let (registry, _) = with_image().await;
    registry.guard(Guard::Bearer(TokenService::default()));
    let session = session(&registry, Credentials::Anonymous);
    registry.always("/manifests/", Fault::Status(401, challenge(&registry)));
    assert!(denied(&session.resolve().await.unwrap_err()));
    assert!(registry.requests_for("/manifests/").len() <= 3);
}

fn challenge(registry: &FakeRegistry) -> Vec<(&'static str, String)> {
    vec![(
        "www-authenticate",
        format!("Bearer realm=\"{}/token\"", registry.url()),
    )]
}

#[tokio::test]
async fn token_services_not_to_be_trusted_get_nothing() {
    for realm in [
        "http://169.254.169.254/token",
        "http://token.invalid/token",
        "ftp://x/",
        "nonsense",
    ] {
        let (registry, _) = with_image().await;
        let realm = Some(realm.to_owned());
        registry.guard(Guard::Bearer(TokenService {
            realm,
            ..TokenService::default()
        }));
        let error = pull(&registry, user()).await.unwrap_err();
        assert!(denied(&error) || corrupt(&error), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn garbage_from_a_token_service_is_told_as_such() {
    for body in [
        "",
        "<html>",
        "{}",
        r#"{"token":""}"#,
        r#"{"token":"a\r\nb"}"#,
    ] {
        let (registry, _) = with_image().await;
        let other = FakeRegistry::start().await;
        other.put_blob("t", b"");
        let realm = Some(format!("{}/v2/t/blobs/{}", other.url(), fake::sha256(b"")));
        other.always("/v2/t/", Fault::Content(body.as_bytes().to_vec()));
        registry.guard(Guard::Bearer(TokenService {
            realm,
            ..TokenService::default()
        }));
        let error = resolve(&registry).await.unwrap_err();
        assert!(corrupt(&error) || denied(&error), "{body}: {error}");
    }
}

#[tokio::test]
async fn where_a_redirect_leads_no_credentials_follow() {
    let (registry, pushed) = with_image().await;
    let elsewhere = FakeRegistry::start().await;
    put(&elsewhere);
    registry.guard(Guard::Basic {
        user: "jo".into(),
        password: "hunter2".into(),
    });
    let path = format!("/v2/{REPOSITORY}/blobs/{}", pushed.layers[0]);
    registry.always(
        &pushed.layers[0],
        redirect(&format!("{}{path}", elsewhere.url())),
    );
    assert_eq!(pull(&registry, user()).await.unwrap(), layer_bytes());
    let seen = elsewhere.requests();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header(AUTHORIZATION), None);

    // Nor when the other host asks for them.
    elsewhere.guard(Guard::Basic {
        user: "jo".into(),
        password: "hunter2".into(),
    });
    assert!(denied(&pull(&registry, user()).await.unwrap_err()));
    assert!(
        elsewhere
            .requests()
            .iter()
            .all(|r| r.header(AUTHORIZATION).is_none())
    );
}

#[tokio::test]
async fn a_redirect_on_the_same_host_keeps_them() {
    let (registry, pushed) = with_image().await;
    registry.guard(Guard::Basic {
        user: "jo".into(),
        password: "hunter2".into(),
    });
    registry.put_blob("moved/app", &layer_bytes());
    let path = format!("/v2/moved/app/blobs/{}", pushed.layers[0]);
    registry.always(
        &format!("{REPOSITORY}/blobs/{}", pushed.layers[0]),
        redirect(&path),
    );
    assert_eq!(pull(&registry, user()).await.unwrap(), layer_bytes());
}

#[tokio::test]
async fn redirects_in_a_circle_or_to_metadata_end() {
    for target in [
        "/v2/some/app/manifests/1",
        "http://169.254.169.254/latest/meta-data",
        "",
    ] {
        let (registry, _) = with_image().await;
        registry.always("/manifests/", redirect(target));
        let error = resolve(&registry).await.unwrap_err();
        assert!(unavailable(&error), "{target}: {error}");
        assert!(registry.requests().len() <= 6);
    }
}

#[tokio::test]
async fn foreign_layer_urls_are_never_asked() {
    let registry = FakeRegistry::start().await;
    let elsewhere = FakeRegistry::start().await;
    let mut layer = descriptor(
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        b"x",
    );
    layer["urls"] = serde_json::json!([format!("{}/layer", elsewhere.url())]);
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, &config("a")), "layers": [layer],
    })
    .to_string();
    registry.put_blob(REPOSITORY, &config("a"));
    registry.put_manifest(REPOSITORY, Some("1"), OCI_MANIFEST, manifest.as_bytes());
    let error = pull(&registry, Credentials::Anonymous).await.unwrap_err();
    let named = fake::sha256(b"x");
    assert!(
        matches!(&error, Error::NotFound(what) if what.contains(&named)),
        "{error}"
    );
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn a_cut_layer_goes_on_where_it_was_cut() {
    let (registry, pushed) = with_image().await;
    registry.fault(&pushed.layers[0], Fault::Cut(500_000), 2);
    assert_eq!(
        pull(&registry, Credentials::Anonymous).await.unwrap(),
        layer_bytes()
    );
    let asked = registry.requests_for(&pushed.layers[0]);
    let ranges: Vec<_> = asked
        .iter()
        .map(|r| r.header(RANGE).map(str::to_owned))
        .collect();
    assert_eq!(
        ranges,
        [
            None,
            Some("bytes=500000-".into()),
            Some("bytes=1000000-".into())
        ]
    );
}

#[tokio::test]
async fn a_range_ignored_is_skipped_over() {
    let (registry, pushed) = with_image().await;
    registry.fault(&pushed.layers[0], Fault::Cut(500_000), 1);
    registry.always(&pushed.layers[0], Fault::IgnoreRange);
    assert_eq!(
        pull(&registry, Credentials::Anonymous).await.unwrap(),
        layer_bytes()
    );
    assert_eq!(registry.requests_for(&pushed.layers[0]).len(), 2);
}

#[tokio::test]
async fn a_layer_cut_for_ever_is_given_up() {
    let (registry, pushed) = with_image().await;
    registry.always(&pushed.layers[0], Fault::Cut(1000));
    let error = pull(&registry, Credentials::Anonymous).await.unwrap_err();
    assert!(unavailable(&error), "{error}");
    assert_eq!(registry.requests_for(&pushed.layers[0]).len(), 4);
}

#[tokio::test]
async fn an_early_end_that_looks_regular_is_a_cut_too() {
    let (registry, pushed) = with_image().await;
    registry.fault(&pushed.layers[0], Fault::Short(1000), 1);
    assert_eq!(
        pull(&registry, Credentials::Anonymous).await.unwrap(),
        layer_bytes()
    );
}

#[tokio::test]
async fn wrong_lengths_and_digests_are_corrupt() {
    let mut flipped = layer_bytes();
    flipped[77] ^= 1;
    let faults = [
        Fault::Content(flipped),
        Fault::Content(b"short".to_vec()),
        Fault::Long(5),
        Fault::Header("content-length", "12".into()),
    ];
    for fault in faults {
        let (registry, pushed) = with_image().await;
        registry.always(&pushed.layers[0], fault.clone());
        let error = pull(&registry, Credentials::Anonymous).await.unwrap_err();
        assert!(corrupt(&error), "{error}");
    }
}

#[tokio::test]
async fn a_reader_gives_the_same_error() {
    let (registry, pushed) = with_image().await;
    let mut flipped = layer_bytes();
    flipped[77] ^= 1;
    registry.always(&pushed.layers[0], Fault::Content(flipped));
    let session = session(&registry, Credentials::Anonymous);
    let image = session.resolve().await.unwrap();
    let stream = session.open_layer(&image.manifest.layers[0]).await.unwrap();
    let mut bytes = Vec::new();
    let error = stream
        .into_reader()
        .read_to_end(&mut bytes)
        .await
        .unwrap_err();
    assert!(corrupt(&error_from_io("read", error)));
}

#[tokio::test]
async fn a_stalled_or_dripping_body_counts_as_cut() {
    let (registry, pushed) = with_image().await;
    registry.fault(&pushed.layers[0], Fault::Drip(Duration::from_millis(50)), 1);
    registry.fault("/manifests/", Fault::Hang, 1);
    let start = Instant::now();
    assert_eq!(
        pull(&registry, Credentials::Anonymous).await.unwrap(),
        layer_bytes()
    );
    assert!(start.elapsed() >= Duration::from_millis(700));
    assert!(
        registry.requests_for(&pushed.layers[0])[1]
            .header(RANGE)
            .is_some()
    );

    registry.always(&pushed.layers[0], Fault::Drip(Duration::from_secs(60)));
    let error = pull(&registry, Credentials::Anonymous).await.unwrap_err();
    assert!(
        unavailable(&error) && error.to_string().contains("stalled"),
        "{error}"
    );
}

#[tokio::test]
async fn a_slow_reader_is_not_a_stalled_registry() {
    let (registry, pushed) = with_image().await;
    let session = session(&registry, Credentials::Anonymous);
    let image = session.resolve().await.unwrap();
    let mut stream = session.open_layer(&image.manifest.layers[0]).await.unwrap();
    stream.next_chunk().await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    while stream.next_chunk().await.unwrap().is_some() {}
    assert_eq!(registry.requests_for(&pushed.layers[0]).len(), 1);
}

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

#[tokio::test]
async fn a_layer_is_resumed_behind_what_is_there_already() {
    let (registry, _) = with_image().await;
    let session = session(&registry, Credentials::Anonymous);
    let layer = session.resolve().await.unwrap().manifest.layers[0].clone();
    let whole = layer_bytes();
    for have in [0, 1, 700_000, whole.len()] {
        let mut seen = Verifier::new(&layer.digest);
        seen.update(&whole[..have]);
        let rest = read(session.resume_layer(&layer, seen).await.unwrap())
            .await
            .unwrap();
        assert!(rest == whole[have..], "from {have}");
    }
    let mut wrong = Verifier::new(&layer.digest);
    wrong.update(b"not the beginning");
    let stream = session.resume_layer(&layer, wrong).await.unwrap();
    assert!(corrupt(&read(stream).await.unwrap_err()));
    let mut long = Verifier::new(&layer.digest);
    long.update(&vec![0; whole.len() + 1]);
    assert!(session.resume_layer(&layer, long).await.is_err());
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let (registry, _) = with_image().await;
    let session = session(&registry, Credentials::Anonymous);
    let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let of = |digest: &str| Descriptor {
        media_type: OCI_LAYER.to_owned(),
        digest: digest.parse().unwrap(),
        size: 0,
    };
    let stream = session.open_layer(&of(empty)).await.unwrap();
    assert_eq!(read(stream).await.unwrap(), b"");
    let stream = session.open_layer(&of(&fake::sha256(b"x"))).await.unwrap();
    assert!(corrupt(&read(stream).await.unwrap_err()));
}

#[derive(Debug, Default)]
struct Seen(Mutex<Vec<u64>>);

impl Progress for Seen {
    fn layer(&self, _digest: &str, state: LayerState) {
        if let LayerState::Fetching { current, total } = state {
            assert_eq!(total, 1_200_000);
            self.0.lock().unwrap().push(current);
        }
    }
}

#[tokio::test]
async fn bytes_are_counted_as_they_come() {
    let (registry, pushed) = with_image().await;
    registry.fault(&pushed.layers[0], Fault::Cut(500_000), 1);
    let name = Reference::parse(&format!("{}/{REPOSITORY}:1", registry.host())).unwrap();
    let seen = Arc::new(Seen::default());
    let progress: Arc<dyn Progress> = Arc::<Seen>::clone(&seen);
    let client = Registry::new(quick()).unwrap();
    first_layer(
        &client
            .session(&name, Credentials::Anonymous, progress)
            .unwrap(),
    )
    .await
    .unwrap();
    let seen = seen.0.lock().unwrap();
    assert!(seen.len() > 2 && seen.is_sorted());
    assert_eq!(seen.last(), Some(&1_200_000));
}

#[tokio::test]
async fn no_more_layers_than_allowed_are_open_at_once() {
    let (registry, _) = with_image().await;
    let name = format!("{}/{REPOSITORY}:1", registry.host());
    let two = RegistryConfig {
        max_concurrent_layers: 2,
        ..quick()
    };
    let session = session_of(two, &name, Credentials::Anonymous);
    let layer = session.resolve().await.unwrap().manifest.layers[0].clone();
    let first = session.open_layer(&layer).await.unwrap();
    let _second = session.open_layer(&layer).await.unwrap();
    let soon = Duration::from_millis(200);
    assert!(
        tokio::time::timeout(soon, session.open_layer(&layer))
            .await
            .is_err()
    );
    drop(first);
    assert!(
        tokio::time::timeout(soon, session.open_layer(&layer))
            .await
            .unwrap()
            .is_ok()
    );
}

/// A registry that only speaks TLS, and the PEM file of who vouches for it as
/// `localhost`.
async fn encrypted(dir: &Path) -> (FakeRegistry, PathBuf) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let ca_file = dir.join("ca.pem");
    std::fs::write(&ca_file, made.cert.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let registry = FakeRegistry::serve(move |stream| acceptor.accept(stream)).await;
    put(&registry);
    (registry, ca_file)
}

async fn over_tls(
    registry: &FakeRegistry,
    host: &str,
    ca_file: Option<PathBuf>,
) -> Result<Vec<u8>, Error> {
    let host = format!("{host}:{}", registry.port());
    let mut config = quick();
    let server = Some(format!("https://{host}"));
    config.hosts.insert(
        host.clone(),
        HostConfig {
            server,
            ca_file,
            ..HostConfig::default()
        },
    );
    let name = format!("{host}/{REPOSITORY}:1");
    first_layer(&session_of(config, &name, Credentials::Anonymous)).await
}

#[tokio::test]
async fn a_registry_is_believed_only_with_a_certificate_from_one_we_trust() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, ca_file) = encrypted(dir.path()).await;
    let trusted = Some(ca_file);
    assert_eq!(
        over_tls(&registry, "localhost", trusted.clone())
            .await
            .unwrap(),
        layer_bytes()
    );
    for (host, ca_file) in [("localhost", None), ("127.0.0.1", trusted)] {
        let error = over_tls(&registry, host, ca_file).await.unwrap_err();
        assert!(
            unavailable(&error) && error.to_string().contains("certificate"),
            "{error}"
        );
    }
    let absent = Some(dir.path().join("absent.pem"));
    let error = over_tls(&registry, "localhost", absent).await.unwrap_err();
    assert!(
        unavailable(&error) && error.to_string().contains("absent.pem"),
        "{error}"
    );
}

#[tokio::test]
async fn plain_http_is_not_fallen_back_to() {
    let (registry, _) = with_image().await;
    let error = over_tls(&registry, "127.0.0.1", None).await.unwrap_err();
    assert!(unavailable(&error), "{error}");
    assert!(registry.requests().is_empty());
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
