//! Images made to harm: refused, and nothing of them is anywhere.

use carpel_conformance::Node;
use carpel_conformance::image::{Compression, Content, ImageBuilder, Layer, digest_of};
use serde_json::{Value, json};
use tonic::Code;

use crate::checks::Outcome;

/// Pulls an image of one layer that must be refused, with a message that has `part`.
async fn refuse_layer(node: &Node, name: &str, layer: Layer, part: &str) -> Outcome {
    let mut content = Content::default();
    let repository = format!("evil/{name}:1");
    ImageBuilder::new()
        .layer(layer)
        .push(&mut content, &[&repository]);
    node.registry().push(content);
    refuse(node, &repository, part).await
}

async fn refuse(node: &Node, repository: &str, part: &str) -> Outcome {
    let image = format!("{}/{repository}", node.registry().host());
    let status = node
        .cri()
        .pull(&image)
        .await
        .expect_err("an image made to harm");
    let codes = [
        Code::InvalidArgument,
        Code::FailedPrecondition,
        Code::DataLoss,
        Code::Internal,
    ];
    assert!(codes.contains(&status.code()), "{image}: {status}");
    assert!(
        status.message().contains(part),
        "{image}: {part:?} is not in {status}"
    );
    assert_eq!(node.cri().image(&image).await?, None);
    node.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_would_leave_its_folder_is_refused() -> Outcome {
    let node = Node::with(&[]).await?;
    let outside = node.folder("outside")?;
    let target = outside.display().to_string();

    let dots = Layer::new().raw_file("../../../../escaped", b"x");
    refuse_layer(&node, "dots", dots, "..").await?;
    let inner_dots = Layer::new().raw_file("a/../../b", b"x");
    refuse_layer(&node, "inner-dots", inner_dots, "..").await?;
    let link = Layer::new().hard_link("stolen", "../../../../../../etc/passwd");
    refuse_layer(&node, "hard-link", link, "etc/passwd").await?;

    assert_eq!(std::fs::read_dir(&outside)?.count(), 0, "{target}");
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absolute_name_is_refused() -> Outcome {
    let node = Node::with(&[]).await?;
    let outside = node.folder("outside")?;
    let name = format!("{}/absolute", outside.display());
    let layer = Layer::new().raw_file(&name, b"x");
    refuse_layer(&node, "absolute", layer, &name).await?;
    assert_eq!(std::fs::read_dir(&outside)?.count(), 0);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn links_stay_inside_whatever_becomes_of_them() -> Outcome {
    let node = Node::with(&[]).await?;
    let outside = node.folder("outside")?;
    let target = outside.display().to_string();
    let layers = [
        (
            "through-link",
            Layer::new()
                .symlink("way", &target)
                .raw_file("way/through", b"x"),
        ),
        (
            "up-link",
            Layer::new()
                .symlink("way", "../../../../../../..")
                .raw_file("way/up", b"x"),
        ),
    ];
    for (name, layer) in layers {
        let mut content = Content::default();
        ImageBuilder::new()
            .layer(layer)
            .push(&mut content, &[&format!("evil/{name}:1")]);
        node.registry().push(content);
        // Refused or unpacked below the layer's own root: both are safe.
        if let Ok(id) = node.cri().pull(&format!("carpel.test/evil/{name}:1")).await {
            node.cri().remove_image(&id).await?;
        }
        assert_eq!(std::fs::read_dir(&outside)?.count(), 0, "{name}");
        assert!(!std::path::Path::new("/up").exists());
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_with_a_device_is_refused() -> Outcome {
    let node = Node::with(&[]).await?;
    refuse_layer(&node, "device", Layer::new().device("disk", 254, 0), "disk").await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_not_a_tar_or_is_cut_is_refused() -> Outcome {
    let node = Node::with(&[]).await?;
    let whole = Layer::new().file("file", &[7; 4000], 0o644).finish();
    for (name, tar) in [
        ("text", b"no tar at all".repeat(100)),
        ("cut", whole[..2048].to_vec()),
    ] {
        let mut content = Content::default();
        let repository = format!("evil/{name}:1");
        ImageBuilder::new()
            .tar(tar, Compression::Gzip)
            .push(&mut content, &[&repository]);
        node.registry().push(content);
        refuse(&node, &repository, "sha256:").await?;
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_manifest_is_refused() -> Outcome {
    let node = Node::with(&[]).await?;
    let oci = "application/vnd.oci.image.manifest.v1+json";
    let no_digest = "sha256:0123";
    let missing = digest_of(b"nowhere");
    let reference = |digest: &str| json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": 2});
    let manifest = |config: Value, layers: Value| {
        json!({"schemaVersion": 2, "mediaType": oci, "config": config, "layers": layers})
            .to_string()
    };
    for (name, text) in [
        ("not-json", "{".to_owned()),
        ("empty-object", "{}".to_owned()),
        (
            "schema-1",
            json!({"schemaVersion": 1, "fsLayers": []}).to_string(),
        ),
        ("bad-digest", manifest(reference(no_digest), json!([]))),
        (
            "path-digest",
            manifest(reference("sha256:../../../../etc/passwd"), json!([])),
        ),
        (
            "negative-size",
            manifest(json!({"digest": missing, "size": -1}), json!([])),
        ),
        (
            "layers-are-text",
            manifest(reference(&missing), json!("none")),
        ),
        (
            "other-platform",
            json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{"mediaType": oci, "digest": missing, "size": 2,
                "platform": {"os": "plan9", "architecture": "mips"}}]})
            .to_string(),
        ),
    ] {
        let mut content = Content::default();
        let media = if name == "other-platform" {
            "application/vnd.oci.image.index.v1+json"
        } else {
            oci
        };
        content.manifest(&[&format!("evil/{name}:1")], media, text);
        node.registry().push(content);
        let image = format!("{}/evil/{name}:1", node.registry().host());
        let status = node.cri().pull(&image).await.expect_err(name);
        assert_ne!(status.code(), Code::Unknown, "{name}: {status}");
        assert!(status.message().contains(name), "{name}: {status}");
        assert_eq!(node.cri().image(&image).await?, None, "{name}");
    }
    node.assert_clean().await?;
    node.finish().await
}
