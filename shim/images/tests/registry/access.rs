//! Credentials, tokens, certificates and redirects.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use carpel_images::engine::{Credentials, Error, NoProgress};
use carpel_images::reference::Reference;
use carpel_images::registry::{HostConfig, Registry};
use http::header::AUTHORIZATION;
use rustls::pki_types::PrivateKeyDer;

use crate::fake::{FakeRegistry, Fault, Guard, OCI_LAYER, TokenService, config, redirect};
use crate::{
    REPOSITORY, corrupt, denied, fake, first_layer, layer_bytes, pull, put, quick, read, resolve,
    session, session_of, unavailable, user, with_image,
};

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
