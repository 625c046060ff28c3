//! Registries that want more than to be asked.

use std::net::TcpListener;

use carpel_conformance::image::{Content, ImageBuilder, Layer, digest_of};
use carpel_conformance::registry::{Auth, Fault, Registry, Target};
use carpel_conformance::spec::BUSYBOX;
use carpel_conformance::{Node, Settings};
use k8s_cri::v1 as cri;
use serde_json::{Value, json};
use tonic::Code;

use crate::site::{Growth, Outcome, assert_refused, daemon, end};

/// The registry that credentials are for, one that is after them, and the address
/// where clouds keep their secrets.
const ASKED: &str = "10.99.0.1:5000";
const THIEF: &str = "10.99.0.2:5000";
const CLOUD: &str = "169.254.169.254:80";

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

struct World {
    node: Node,
    asked: Registry,
    thief: Registry,
    cloud: Registry,
}

impl World {
    async fn new() -> anyhow::Result<Self> {
        let more = format!("\n[registries.{ASKED:?}]\ninsecure = true\n");
        let node = Node::start(Settings::default().images(&[BUSYBOX]).more(&more)).await?;
        let serve = |place: &str| -> anyhow::Result<Registry> {
            let address = place.rsplit_once(':').map_or(place, |(address, _)| address);
            node.run(
                "ip",
                &["address", "add", &format!("{address}/32"), "dev", "lo"],
            )?;
            let listener = node.inside(|| TcpListener::bind(place))??;
            Registry::start(listener, content())
        };
        let (asked, thief, cloud) = (serve(ASKED)?, serve(THIEF)?, serve(CLOUD)?);
        Ok(Self {
            node,
            asked,
            thief,
            cloud,
        })
    }

    async fn pull(&self) -> Result<String, tonic::Status> {
        let auth = cri::AuthConfig {
            username: "someone".to_owned(),
            password: "secret".to_owned(),
            ..Default::default()
        };
        let image = format!("{ASKED}/evil/image:1");
        self.node.cri().pull_as(&image, Some(auth)).await
    }

    /// Nobody has got what was not meant for him.
    fn nothing_stolen(&self) {
        let stolen: Vec<_> = self
            .thief
            .take_seen()
            .into_iter()
            .filter(|seen| seen.authorization.is_some())
            .collect();
        assert!(stolen.is_empty(), "{stolen:?}");
        let asked = self.cloud.take_seen();
        assert!(asked.is_empty(), "{asked:?}");
    }

    async fn end(self) -> Outcome {
        end(self.node).await
    }
}

fn content() -> Content {
    let mut content = Content::default();
    let layer = Layer::new().file("a", b"text", 0o644);
    ImageBuilder::new()
        .layer(layer)
        .push(&mut content, &["evil/image:1"]);
    content
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2020_15157_a_redirect_takes_no_credentials_along() -> Outcome {
    let world = World::new().await?;
    world.asked.set_auth(Auth::basic("someone", "secret"));
    // A pull that all goes well, from two places.
    let layers = content();
    let blob = format!("http://{THIEF}/v2/evil/image/blobs/");
    for target in [Target::Blob, Target::Manifest] {
        let digests =
            ["evil/image:1"].map(|name| layers.digest(name).unwrap_or_default().to_owned());
        let to = match target {
            Target::Manifest => format!("http://{THIEF}/v2/evil/image/manifests/{}", digests[0]),
            _ => blob.clone(),
        };
        world.asked.fail(target, Fault::Redirect(to), u32::MAX);
        let done = world.pull().await;
        if target == Target::Manifest {
            world.node.cri().remove_image(&done?).await?;
        }
        assert!(
            !world.thief.take_seen().is_empty(),
            "{target:?}: nobody went there"
        );
        world.nothing_stolen();
        world.asked.heal();
    }
    // To where no registry has any business.
    for to in [
        format!("http://{CLOUD}/latest/meta-data"),
        format!("http://[::ffff:169.254.169.254]/{CLOUD}"),
        "http://127.0.0.1:1/".to_owned(),
        "http://0.0.0.0:1/".to_owned(),
        "file:///etc/shadow".to_owned(),
        "//".to_owned(),
        format!("http://{ASKED}/v2/evil/image/manifests/1"),
    ] {
        world
            .asked
            .fail(Target::Manifest, Fault::Redirect(to.clone()), u32::MAX);
        let status = world.pull().await.expect_err(&to);
        assert!(!status.message().contains("secret"), "{status}");
        world.nothing_stolen();
        world.asked.heal();
    }
    world.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2020_15157_urls_of_foreign_layers_are_not_asked() -> Outcome {
    let world = World::new().await?;
    world.asked.set_auth(Auth::basic("someone", "secret"));
    let mut elsewhere = Content::default();
    let layer = elsewhere.blob(Layer::new().file("foreign", b"x", 0o644).finish());
    let size = elsewhere_size();
    world.thief.push(elsewhere);
    for kind in [
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        LAYER,
    ] {
        let mut content = Content::default();
        let urls = json!([
            format!("http://{THIEF}/v2/x/blobs/{layer}"),
            "file:///etc/shadow"
        ]);
        let entry = json!({"mediaType": kind, "digest": layer, "size": size, "urls": urls});
        manifest(&mut content, "evil/image:1", &[layer.clone()], vec![entry]);
        world.asked.push(content);
        world.pull().await.expect_err("the layer is not there");
        assert!(
            world.thief.take_seen().is_empty(),
            "{kind}: the thief was asked"
        );
    }
    world.end().await
}

fn elsewhere_size() -> usize {
    Layer::new().file("foreign", b"x", 0o644).finish().len()
}

/// A manifest with these layers, as they are.
fn manifest(content: &mut Content, name: &str, diff_ids: &[String], layers: Vec<Value>) {
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
    .to_string();
    let size = config.len();
    let digest = content.blob(config);
    let document = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest, "size": size},
        "layers": layers,
    });
    content.manifest(&[name], MANIFEST, document.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_65388_a_realm_elsewhere_gets_no_credentials() -> Outcome {
    let world = World::new().await?;
    for realm in [
        format!("http://{THIEF}/token"),
        format!("http://{CLOUD}/token"),
        "http://169.254.169.254/latest/meta-data/iam".to_owned(),
        "http://[::ffff:a9fe:a9fe]/token".to_owned(),
        "http://127.0.0.1:1/token".to_owned(),
        "http://localhost:1/token".to_owned(),
        format!("http://{ASKED}@{THIEF}/token"),
        format!("http://{THIEF}#@{ASKED}/token"),
        "file:///etc/shadow".to_owned(),
        "/token".to_owned(),
    ] {
        let challenge = format!(r#"Bearer realm="{realm}",service="x",scope="repository:x:pull""#);
        world
            .asked
            .fail(Target::Manifest, Fault::Challenge(challenge), u32::MAX);
        let status = world.pull().await.expect_err(&realm);
        assert!(!status.message().contains("secret"), "{status}");
        let asked = world.thief.take_seen();
        assert!(asked.is_empty(), "{realm}: {asked:?}");
        world.nothing_stolen();
        world.asked.heal();
    }
    // The registry's own token service may send nobody elsewhere either.
    world.asked.set_auth(Auth::bearer("someone", "secret"));
    let to = format!("http://{THIEF}/token");
    world
        .asked
        .fail(Target::Token, Fault::Redirect(to), u32::MAX);
    world.pull().await.ok();
    world.nothing_stolen();
    world.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2021_41190_a_document_that_is_two_things_is_none() -> Outcome {
    let world = World::new().await?;
    let mut base = content();
    let digest = base.digest("evil/image:1").unwrap_or_default().to_owned();
    let one = json!({"mediaType": MANIFEST, "digest": digest, "size": 400,
        "platform": {"os": "linux", "architecture": "amd64"}});
    let config = base.blob("{}");
    let config = json!({"mediaType": CONFIG, "digest": config, "size": 2});
    let both = json!({"schemaVersion": 2, "config": config, "layers": [], "manifests": [one]});
    let typed = |kind: &str| {
        let mut document = both.clone();
        document["mediaType"] = json!(kind);
        document
    };
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [one]});
    let plain = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []});
    for (number, (served, document)) in [
        (MANIFEST, both.clone()),
        (INDEX, both.clone()),
        ("application/json", both.clone()),
        (MANIFEST, typed(MANIFEST)),
        (INDEX, typed(INDEX)),
        (MANIFEST, index),
        (INDEX, plain.clone()),
        ("text/html", plain),
    ]
    .into_iter()
    .enumerate()
    {
        let mut content = base.clone();
        content.manifest(&["evil/image:1"], served, document.to_string());
        world.asked.push(content);
        let codes = [
            Code::FailedPrecondition,
            Code::Unimplemented,
            Code::InvalidArgument,
        ];
        assert_refused(world.pull().await, &codes, &["evil/image"]);
        assert!(
            world.node.cri().list_images().await?.len() == 1,
            "case {number}"
        );
    }
    world.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2024_3727_digests_are_never_paths() -> Outcome {
    let world = World::new().await?;
    let root = world.node.root().to_owned();
    let before = crate::site::tree(&root)?.len();
    let long = format!("sha256:{}", "a".repeat(4096));
    for digest in [
        "sha256:../../../../etc/passwd",
        "sha256:",
        "sha256:..",
        "../../etc/passwd",
        "sha256:AAAA",
        "sha512:00",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        &format!("sha256:{}/", "a".repeat(63)),
        &format!("sha256:{}\n", "a".repeat(64)),
        &format!("sha256:{}", "A".repeat(64)),
        &long,
    ] {
        let layer = json!({"mediaType": LAYER, "digest": digest, "size": 10});
        let mut content = Content::default();
        manifest(
            &mut content,
            "evil/image:1",
            &[digest_of(b"x")],
            vec![layer],
        );
        world.asked.push(content);
        let status = world.pull().await.expect_err(digest);
        assert!(status.message().len() < 2000, "{}", status.message().len());
        let mut content = Content::default();
        manifest(&mut content, "evil/image:1", &[digest.to_owned()], vec![]);
        world.asked.push(content);
        world.pull().await.expect_err(digest);
    }
    assert_eq!(
        crate::site::tree(&root)?.len(),
        before,
        "something was kept"
    );
    // Ids that are paths find nothing and remove nothing.
    let cri = world.node.cri();
    let image = cri.list_images().await?;
    for id in [
        "../../../etc",
        "/etc/passwd",
        "..",
        ".",
        &"x".repeat(4096),
        "a/b\0c",
    ] {
        assert!(
            cri.container(id).await.is_err() && cri.pod(id).await.is_err(),
            "{id:.20}"
        );
        cri.remove(id).await.ok();
        cri.remove_pod(id).await.ok();
        cri.remove_image(id).await.ok();
        cri.remove_image(&format!("sha256:{id}")).await.ok();
    }
    assert_eq!(cri.list_images().await?, image);
    assert_eq!(
        crate::site::tree(&root)?.len(),
        before,
        "something was removed"
    );
    world.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_any_size_fill_no_memory() -> Outcome {
    let world = World::new().await?;
    let growth = Growth::of(daemon(&world.node)?)?;
    let entry = json!({"mediaType": MANIFEST, "digest": digest_of(b"x"), "size": 1});
    let crowd = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": vec![entry; 300_000]});
    for (kind, text) in [
        (INDEX, crowd.to_string()),
        (MANIFEST, "[".repeat(30 << 20)),
        (MANIFEST, " ".repeat(60 << 20)),
    ] {
        let mut content = Content::default();
        content.manifest(&["evil/image:1"], kind, text);
        world.asked.push(content);
        assert!(world.pull().await.is_err());
    }
    // A configuration that says it is small, and one that says it is not.
    for size in [2_u64, 1 << 40] {
        let mut content = Content::default();
        let config = content.blob(vec![b' '; 40 << 20]);
        let config = json!({"mediaType": CONFIG, "digest": config, "size": size});
        let document = json!({"schemaVersion": 2, "config": config, "layers": []});
        content.manifest(&["evil/image:1"], MANIFEST, document.to_string());
        world.asked.push(content);
        assert!(world.pull().await.is_err());
    }
    let grown = growth.kib()?;
    assert!(grown < 48 << 10, "{grown} KiB");
    world.end().await
}
