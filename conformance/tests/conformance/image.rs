//! Images: pulling in every form, names and identity, removal, archives.

use std::time::Duration;

use carpel_conformance::image::{
    Compression, Content, Format, ImageBuilder, Layer, busybox_layer, docker_archive, oci_archive,
};
use carpel_conformance::{Node, spec};
use k8s_cri::v1 as cri;

use crate::checks::{Outcome, Pod, assert_refused, node};

const TEST_TAG: &str = "gcr.io/k8s-staging-cri-tools/test-image-tag:test";

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_by_tag_by_digest_and_by_bare_name() -> Outcome {
    let node = Node::with(&[]).await?;
    let by_tag = node.cri().pull(TEST_TAG).await?;
    let image = node.cri().image(TEST_TAG).await?.expect("the image");
    assert_eq!(
        (&image.id, image.repo_tags.as_slice()),
        (&by_tag, &[TEST_TAG.to_owned()][..])
    );
    assert!(image.size > 0);
    node.cri().remove_image(&by_tag).await?;
    assert_eq!(node.cri().image(TEST_TAG).await?, None);

    let content = node.registry().content();
    let digest = content
        .digest("k8s-staging-cri-tools/test-image-tag:test")
        .expect("digest");
    let by_digest = format!("gcr.io/k8s-staging-cri-tools/test-image-tag@{digest}");
    assert_eq!(node.cri().pull(&by_digest).await?, by_tag);
    let image = node.cri().image(&by_digest).await?.expect("the image");
    assert!(image.repo_tags.is_empty(), "{image:?}");
    assert_eq!(image.repo_digests, [by_digest]);
    node.cri().remove_image(&by_tag).await?;

    let bare = "gcr.io/k8s-staging-cri-tools/test-image-latest";
    node.cri().pull(bare).await?;
    let image = node.cri().image(bare).await?.expect("the image");
    assert_eq!(image.repo_tags, [format!("{bare}:latest")]);
    let short = node.cri().pull("busybox").await?;
    let image = node
        .cri()
        .image("docker.io/library/busybox:latest")
        .await?
        .expect("the image");
    assert_eq!(image.id, short);
    node.rebase()?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_name_of_an_image_leads_to_the_same_image() -> Outcome {
    let node = Node::with(&[]).await?;
    let mut ids = Vec::new();
    let names =
        ["1", "2", "3"].map(|tag| format!("gcr.io/k8s-staging-cri-tools/test-image-tags:{tag}"));
    for name in &names {
        ids.push(node.cri().pull(name).await?);
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let image = node.cri().image(&ids[0]).await?.expect("the image");
    let mut tags = image.repo_tags.clone();
    tags.sort();
    assert_eq!(tags, names);
    let short = ids[0].trim_start_matches("sha256:");
    for name in image
        .repo_tags
        .iter()
        .chain(&image.repo_digests)
        .map(String::as_str)
        .chain([short])
    {
        assert_eq!(
            node.cri().image(name).await?.as_ref(),
            Some(&image),
            "{name}"
        );
    }
    node.cri().remove_image(&ids[0]).await?;
    for name in names.iter().chain(&ids) {
        assert_eq!(node.cri().image(name).await?, None, "{name}");
    }

    let first = node.cri().pull("registry.k8s.io/pause:3.9").await?;
    assert_eq!(node.cri().pull("k8s.gcr.io/pause:3.9").await?, first);
    assert_eq!(
        node.cri()
            .image(&first)
            .await?
            .expect("the image")
            .repo_tags
            .len(),
        2
    );
    node.cri().remove_image(&first).await?;
    assert!(node.cri().list_images().await?.is_empty());
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_of_an_image_is_a_number_or_a_name() -> Outcome {
    let node = Node::with(&[]).await?;
    for (name, uid, user) in [
        ("uid", Some(1002), ""),
        ("username", None, "www-data"),
        ("uid-group", Some(1003), ""),
        ("username-group", None, "www-data"),
    ] {
        let reference = format!("gcr.io/k8s-staging-cri-tools/test-image-user-{name}");
        node.cri().pull(&reference).await?;
        let image = node.cri().image(&reference).await?.expect("the image");
        assert_eq!(
            (image.uid.map(|uid| uid.value), image.username.as_str()),
            (uid, user)
        );
    }
    node.rebase()?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn simultaneous_pulls_and_removals_of_one_image_all_succeed() -> Outcome {
    let node = Node::with(&[]).await?;
    for _ in 0..3 {
        let pull = || node.cri().pull(TEST_TAG);
        let (a, b, c, d) = tokio::join!(pull(), pull(), pull(), pull());
        let id = a?;
        assert_eq!([b?, c?, d?], [id.clone(), id.clone(), id.clone()]);
        let remove = async || -> anyhow::Result<()> {
            node.cri().remove_image(&id).await?;
            anyhow::ensure!(
                node.cri().image(&id).await?.is_none(),
                "there after its removal"
            );
            Ok(())
        };
        let (a, b, c, d, e) = tokio::join!(remove(), remove(), remove(), remove(), remove());
        for result in [a, b, c, d, e] {
            result?;
        }
    }
    node.rebase()?;
    node.finish().await
}

/// An image with one file that must be there when it runs.
fn marked(base: &[u8], mark: &str, compression: Compression) -> ImageBuilder {
    let layer = Layer::new().file("mark", mark.as_bytes(), 0o644);
    ImageBuilder::new()
        .tar(base.to_vec(), compression)
        .tar(layer.finish(), compression)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_and_packing_of_an_image_runs() -> Outcome {
    let node = Node::with(&[]).await?;
    let base = busybox_layer()?;
    let mut content = Content::default();
    for (name, format, compression) in [
        ("oci-gzip", Format::Oci, Compression::Gzip),
        ("oci-zstd", Format::Oci, Compression::Zstd),
        ("oci-plain", Format::Oci, Compression::None),
        ("docker-gzip", Format::Docker, Compression::Gzip),
        ("docker-plain", Format::Docker, Compression::None),
    ] {
        let image = marked(&base, name, compression).format(format);
        image
            .clone()
            .push(&mut content, &[&format!("forms/{name}:1")]);
        image.push_index(&mut content, &[&format!("forms/{name}:index")]);
    }
    node.registry().push(content);
    for name in [
        "oci-gzip",
        "oci-zstd",
        "oci-plain",
        "docker-gzip",
        "docker-plain",
    ] {
        for tag in ["1", "index"] {
            node.cri()
                .pull(&format!("carpel.test/forms/{name}:{tag}"))
                .await?;
        }
    }
    node.rebase()?;
    let pod = Pod::run(&node, spec::pod("forms")).await?;
    for name in [
        "oci-gzip",
        "oci-zstd",
        "oci-plain",
        "docker-gzip",
        "docker-plain",
    ] {
        for tag in ["1", "index"] {
            let image = format!("carpel.test/forms/{name}:{tag}");
            let command = ["/bin/busybox", "grep", "-q", name, "/mark"];
            let config = spec::container(&format!("{name}-{tag}"), &image, &command);
            let id = pod.start(&node, &config).await?;
            assert_eq!(node.cri().wait_exit(&id).await?.exit_code, 0, "{image}");
        }
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn upper_layers_hide_and_replace_what_lower_ones_have() -> Outcome {
    let node = Node::with(&[]).await?;
    let lower = Layer::new()
        .file("folder/old", b"old", 0o644)
        .file("folder/kept", b"kept", 0o644)
        .file("opaque/old", b"old", 0o644)
        .file("gone", b"gone", 0o644);
    let upper = Layer::new()
        .file("folder/.wh.old", b"", 0o644)
        .file("folder/new", b"new", 0o644)
        .file("opaque/.wh..wh..opq", b"", 0o644)
        .file("opaque/new", b"new", 0o644)
        .raw_file(".wh.gone", b"");
    let mut content = Content::default();
    ImageBuilder::new()
        .tar(busybox_layer()?, Compression::Gzip)
        .layer(lower)
        .layer(upper)
        .push(&mut content, &["layers:1"]);
    node.registry().push(content);
    node.cri().pull("carpel.test/layers:1").await?;
    node.rebase()?;
    let pod = Pod::run(&node, spec::pod("layers")).await?;
    let mut config = spec::sleeper("c");
    config.image = Some(spec::image("carpel.test/layers:1"));
    let id = pod.start(&node, &config).await?;
    let list = async |path: &str| node.cri().output(&id, &["ls", path]).await;
    assert_eq!(list("/folder").await?, "kept\nnew\n");
    assert_eq!(list("/opaque").await?, "new\n");
    assert!(!list("/").await?.contains("gone"));
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_in_use_can_be_removed_and_its_container_goes_on() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("in-use")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    let image = node.cri().container(&id).await?.image_id;
    node.cri().remove_image(&image).await?;
    node.cri().output(&id, &["ls", "/bin/sh"]).await?;
    let result = node
        .cri()
        .create(&pod.id, &spec::sleeper("second"), &pod.config)
        .await;
    assert_refused(result, tonic::Code::NotFound, &[spec::BUSYBOX]);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_there_after_a_restart_and_a_cut_pull_is_begun_anew() -> Outcome {
    let node = node().await?;
    let before = node.cri().list_images().await?;
    for number in 0..4_u64 {
        let cri = node.cri().clone();
        let pull = tokio::spawn(async move { cri.pull(spec::NGINX).await });
        tokio::time::sleep(Duration::from_millis(20 + number * 40)).await;
        node.kill()?;
        pull.await?.ok();
        node.restart().await?;
        let names: Vec<_> = node.cri().list_images().await?;
        assert!(
            before
                .iter()
                .all(|image| names.iter().any(|found| found.id == image.id))
        );
    }
    node.cri().pull(spec::NGINX).await?;
    let id = node.cri().image(spec::NGINX).await?.expect("the image").id;
    node.cri().remove_image(&id).await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_takes_longer_than_its_caller_waits_is_told() -> Outcome {
    let node = Node::with(&[]).await?;
    let image = Some(spec::image(TEST_TAG));
    let mut request = tonic::Request::new(cri::PullImageRequest {
        image,
        ..Default::default()
    });
    request.set_timeout(Duration::from_millis(1));
    let result = node.cri().images().pull_image(request).await;
    let code = result.map(|_| ()).unwrap_err().code();
    assert!(
        matches!(code, tonic::Code::DeadlineExceeded | tonic::Code::Cancelled),
        "{code}"
    );
    node.cri().pull(TEST_TAG).await?;
    node.rebase()?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_of_both_kinds_are_loaded_and_run() -> Outcome {
    let node = Node::with(&[]).await?;
    for (name, format) in [("oci", Format::Oci), ("docker", Format::Docker)] {
        let mut content = Content::default();
        let manifest = marked(&busybox_layer()?, name, Compression::None)
            .format(format)
            .push(&mut content, &[]);
        let tag = format!("carpel.test/loaded/{name}:1");
        let archive = match format {
            Format::Oci => oci_archive(&content, &manifest, &tag),
            Format::Docker => docker_archive(&content, &manifest, &tag),
        };
        let names = crate::admin::load(&node, archive).await?;
        assert_eq!(names.as_slice(), std::slice::from_ref(&tag));
        assert_eq!(
            node.cri().image(&tag).await?.expect("the image").repo_tags,
            [tag]
        );
    }
    node.rebase()?;
    let pod = Pod::run(&node, spec::pod("loaded")).await?;
    for name in ["oci", "docker"] {
        let image = format!("carpel.test/loaded/{name}:1");
        let command = ["/bin/busybox", "grep", "-q", name, "/mark"];
        let id = pod
            .start(&node, &spec::container(name, &image, &command))
            .await?;
        assert_eq!(node.cri().wait_exit(&id).await?.exit_code, 0);
    }
    node.finish().await
}
