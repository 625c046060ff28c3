//! Credentials that stand on the node, and certificates that say who it is.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use carpel_images::engine::{Credentials, Error};
use carpel_images::registry::{HostConfig, KeychainConfig, Mirror, RegistryConfig};
use rustls::pki_types::PrivateKeyDer;

use crate::fake::{FakeRegistry, Guard, TokenService};
use crate::{
    REPOSITORY, denied, first_layer, layer_bytes, put, quick, session_of, unavailable, user,
    with_image,
};

fn guarded(registry: &FakeRegistry) {
    registry.guard(Guard::Basic {
        user: "jo".into(),
        password: "hunter2".into(),
    });
}

/// A node with a directory for files and helpers.
struct Node {
    dir: tempfile::TempDir,
    config: RegistryConfig,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keychain = KeychainConfig {
            files: vec![dir.path().join("config.json")],
            helper_dirs: vec![dir.path().into(), "/usr/bin".into(), "/bin".into()],
            helper_timeout: Duration::from_secs(2),
        };
        let config = RegistryConfig {
            keychain,
            ..quick()
        };
        Self { dir, config }
    }

    fn file(&self, name: &str, json: serde_json::Value) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, json.to_string()).unwrap();
        path
    }

    fn helper(&self, name: &str, script: &str) {
        let path = self.dir.path().join(format!("docker-credential-{name}"));
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    async fn pull(&self, registry: &FakeRegistry) -> Result<Vec<u8>, Error> {
        self.pull_as(registry, Credentials::Anonymous).await
    }

    async fn pull_as(&self, registry: &FakeRegistry, who: Credentials) -> Result<Vec<u8>, Error> {
        let name = format!("{}/{REPOSITORY}:1", registry.host());
        first_layer(&session_of(self.config.clone(), &name, who)).await
    }
}

const ANSWER: &str = r#"echo '{"ServerURL":"x","Username":"jo","Secret":"hunter2"}'"#;

#[tokio::test]
async fn a_docker_configuration_opens_a_guarded_registry() {
    let (registry, _) = with_image().await;
    guarded(&registry);
    let node = Node::new();
    assert!(denied(&node.pull(&registry).await.unwrap_err()));
    let host = registry.host();
    for key in [
        host.clone(),
        format!("http://{host}"),
        format!("https://{host}/v2/"),
        format!("{host}/some"),
    ] {
        node.file(
            "config.json",
            serde_json::json!({"auths": {key: {"auth": "am86aHVudGVyMg=="}}}),
        );
        assert_eq!(node.pull(&registry).await.unwrap(), layer_bytes());
    }
    let other =
        serde_json::json!({"auths": {format!("{host}/else"): {"auth": "am86aHVudGVyMg=="}}});
    node.file("config.json", other);
    assert!(denied(&node.pull(&registry).await.unwrap_err()));
}

#[tokio::test]
async fn what_comes_with_the_pull_goes_before_all_else() {
    let (registry, _) = with_image().await;
    guarded(&registry);
    let mut node = Node::new();
    let host = registry.host();
    let auth = |password: &str| serde_json::json!({"auths": {&host: {"username": "jo", "password": password}}});
    node.file("config.json", auth("wrong"));
    assert!(node.pull_as(&registry, user()).await.is_ok());
    assert!(denied(&node.pull(&registry).await.unwrap_err()));
    // The registry's own settings go before the files of all.
    let own = HostConfig {
        auth_file: Some(node.file("own.json", auth("hunter2"))),
        ..HostConfig::default()
    };
    node.config.hosts.insert(host.clone(), own.clone());
    assert!(node.pull(&registry).await.is_ok());
    node.helper("wrong", r#"echo '{"Username":"jo","Secret":"no"}'"#);
    let helped = HostConfig {
        credential_helper: Some("wrong".into()),
        ..own
    };
    node.config.hosts.insert(host, helped);
    assert!(denied(&node.pull(&registry).await.unwrap_err()));
}

#[tokio::test]
async fn helpers_are_asked_by_name_and_know_only_what_they_are_told() {
    let (registry, _) = with_image().await;
    guarded(&registry);
    let node = Node::new();
    let host = registry.host();
    let dir = node.dir.path().display().to_string();
    node.helper(
        "test",
        &format!("cat > {dir}/asked; echo \"$@\" > {dir}/args; env > {dir}/env; {ANSWER}"),
    );
    for config in [
        serde_json::json!({"credHelpers": {&host: "test"}}),
        serde_json::json!({"credsStore": "test", "auths": {&host: {}}}),
    ] {
        node.file("config.json", config);
        assert_eq!(node.pull(&registry).await.unwrap(), layer_bytes());
        let read = |name: &str| std::fs::read_to_string(node.dir.path().join(name)).unwrap();
        assert_eq!(
            (read("asked").trim(), read("args").trim()),
            (host.as_str(), "get")
        );
        assert!(!read("env").contains("CARGO"), "{}", read("env"));
    }
    node.helper(
        "none",
        "echo credentials not found in native keychain; exit 1",
    );
    let stored = serde_json::json!({
        "credsStore": "none", "auths": {&host: {"auth": "am86aHVudGVyMg=="}},
    });
    node.file("config.json", stored);
    assert_eq!(node.pull(&registry).await.unwrap(), layer_bytes());
}

#[tokio::test]
async fn a_token_of_a_helper_is_exchanged() {
    let (registry, _) = with_image().await;
    registry.guard(Guard::Bearer(TokenService {
        refresh_token: Some("refresh".into()),
        ..TokenService::default()
    }));
    let node = Node::new();
    node.helper(
        "test",
        r#"echo '{"Username":"<token>","Secret":"refresh"}'"#,
    );
    node.file("config.json", serde_json::json!({"credsStore": "test"}));
    assert_eq!(node.pull(&registry).await.unwrap(), layer_bytes());
}

#[tokio::test]
async fn no_helper_is_asked_for_what_is_open() {
    let (registry, _) = with_image().await;
    let node = Node::new();
    let asked = node.dir.path().join("asked");
    node.helper("test", &format!("touch {}; {ANSWER}", asked.display()));
    node.file("config.json", serde_json::json!({"credsStore": "test"}));
    assert!(node.pull(&registry).await.is_ok());
    assert!(!asked.exists());
}

#[tokio::test]
async fn helpers_that_fail_are_told_without_what_they_know() {
    let (registry, _) = with_image().await;
    guarded(&registry);
    let node = Node::new();
    let flood = r#"i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789; i=$((i+1)); done"#;
    let cases = [
        ("broken", "echo it is locked >&2; exit 3", "it is locked"),
        (
            "leaky",
            r#"echo '{"Secret":"hunter2"}'; exit 1"#,
            "exit status: 1",
        ),
        ("silly", "echo hunter2", "no JSON"),
        ("flood", flood, "more than 65536"),
        ("absent", "", "images.helper_dirs"),
        ("../x", "", "no name of a helper"),
    ];
    for (name, script, says) in cases {
        if !script.is_empty() {
            node.helper(name, script);
        }
        node.file("config.json", serde_json::json!({"credsStore": name}));
        let error = node.pull(&registry).await.unwrap_err();
        let text = error.to_string();
        assert!(denied(&error) && text.contains(says), "{name}: {text}");
        assert!(!text.contains("hunter2"), "{name}: {text}");
    }
    std::fs::write(node.dir.path().join("config.json"), "{\"auths\": hunter2").unwrap();
    let text = node.pull(&registry).await.unwrap_err().to_string();
    assert!(
        text.contains("config.json") && !text.contains("hunter2"),
        "{text}"
    );
}

#[tokio::test]
async fn a_helper_that_hangs_ends_with_all_its_children() {
    let (registry, _) = with_image().await;
    guarded(&registry);
    let mut node = Node::new();
    node.config.keychain.helper_timeout = Duration::from_millis(300);
    let pid = node.dir.path().join("pid");
    node.helper(
        "slow",
        &format!("sleep 100 & echo $! > {}; wait", pid.display()),
    );
    node.file("config.json", serde_json::json!({"credsStore": "slow"}));
    let text = node.pull(&registry).await.unwrap_err().to_string();
    assert!(text.contains("no answer within"), "{text}");
    let pid = std::fs::read_to_string(&pid).unwrap();
    let stat = PathBuf::from(format!("/proc/{}/stat", pid.trim()));
    let end = Instant::now() + Duration::from_secs(5);
    let alive = |text: String| !text.contains(") Z ");
    while std::fs::read_to_string(&stat).is_ok_and(alive) {
        assert!(Instant::now() < end, "{} lives on", pid.trim());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_mirror_gets_what_stands_under_its_own_name_only() {
    let (registry, _) = with_image().await;
    let (mirror, _) = with_image().await;
    guarded(&mirror);
    let mut node = Node::new();
    let host = HostConfig {
        mirrors: vec![Mirror::new(mirror.url())],
        ..HostConfig::default()
    };
    node.config.hosts.insert(registry.host(), host);
    let auth = |host: String| serde_json::json!({"auths": {host: {"auth": "am86aHVudGVyMg=="}}});
    node.file("config.json", auth(registry.host()));
    node.pull(&registry).await.unwrap();
    let shown = |registry: &FakeRegistry| {
        let requests = registry.requests();
        let with = requests
            .iter()
            .filter(|r| r.header(http::header::AUTHORIZATION).is_some());
        with.count()
    };
    assert_eq!(shown(&mirror), 0);
    node.file("config.json", auth(mirror.host()));
    node.pull(&registry).await.unwrap();
    assert!(shown(&mirror) > 0);
    assert_eq!(shown(&registry), 0);
}

/// Who the server lets in, and who it is itself; files in `dir`.
fn both_sides(dir: &Path) -> (rustls::ServerConfig, HostConfig) {
    let server = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let client = rcgen::generate_simple_self_signed(["node".to_owned()]).unwrap();
    let file = |name: &str, text: String| {
        std::fs::write(dir.join(name), text).unwrap();
        dir.join(name)
    };
    let host = HostConfig {
        ca_file: Some(file("ca.pem", server.cert.pem())),
        client_identity: Some((
            file("client.pem", client.cert.pem()),
            file("client.key", client.signing_key.serialize_pem()),
        )),
        ..HostConfig::default()
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(client.cert.der().clone()).unwrap();
    let known = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::clone(&provider),
    );
    let key = PrivateKeyDer::Pkcs8(server.signing_key.serialize_der().into());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(known.build().unwrap())
        .with_single_cert(vec![server.cert.der().clone()], key)
        .unwrap();
    (config, host)
}

#[tokio::test]
async fn a_registry_that_wants_a_certificate_gets_ours() {
    let dir = tempfile::tempdir().unwrap();
    let (server, host) = both_sides(dir.path());
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let registry = FakeRegistry::serve(move |stream| acceptor.accept(stream)).await;
    put(&registry);
    let name = format!("localhost:{}", registry.port());
    let pull = async |host: HostConfig| {
        let mut config = quick();
        let server = Some(format!("https://{name}"));
        config
            .hosts
            .insert(name.clone(), HostConfig { server, ..host });
        let image = format!("{name}/{REPOSITORY}:1");
        first_layer(&session_of(config, &image, Credentials::Anonymous)).await
    };
    assert_eq!(pull(host.clone()).await.unwrap(), layer_bytes());
    let nobody = HostConfig {
        client_identity: None,
        ..host.clone()
    };
    assert!(unavailable(&pull(nobody).await.unwrap_err()));
    let absent = dir.path().join("absent.key");
    let broken = HostConfig {
        client_identity: Some((dir.path().join("client.pem"), absent)),
        ..host
    };
    let error = pull(broken).await.unwrap_err().to_string();
    assert!(error.contains("absent.key"), "{error}");
}
