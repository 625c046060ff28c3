//! Pulls that are cut, guarded, bounded, and shared.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use carpel_conformance::image::{Compression, Content, ImageBuilder, Layer, busybox_layer};
use carpel_conformance::registry::{Auth, Fault, Target};
use carpel_conformance::{Node, spec};
use k8s_cri::v1 as cri;
use tonic::Code;

use crate::checks::{Outcome, Pod, assert_refused};

const SIZE: usize = 900_000;
const SECRET: &str = "a-secret-of-the-test";

/// Bytes that no compression makes smaller.
fn noise() -> Vec<u8> {
    let mut seed = 99_u32;
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    };
    (0..SIZE).map(|_| next()).collect()
}

/// Serves an image with one large layer, and gives its name at the registry itself.
fn large(node: &Node) -> String {
    let mut content = Content::default();
    let layer = Layer::new().file("large", &noise(), 0o644).finish();
    ImageBuilder::new()
        .tar(layer, Compression::None)
        .push(&mut content, &["pulls/large:1"]);
    node.registry().push(content);
    format!("{}/pulls/large:1", node.registry().host())
}

/// Adds to the configuration, and starts the daemon anew.
async fn configure(node: &Node, toml: &str) -> Outcome {
    let base = node.socket().parent().expect("a folder");
    let drop_ins = base.join("config.d");
    std::fs::create_dir_all(&drop_ins)?;
    std::fs::write(drop_ins.join("10-test.toml"), toml)?;
    node.stop()?;
    node.restart().await
}

fn ingest(node: &Node) -> PathBuf {
    node.root().join("images/ingest")
}

/// Waits until so much of a layer is on disk.
async fn arrived(node: &Node, bytes: u64) -> Outcome {
    for _ in 0..500 {
        let sizes = std::fs::read_dir(ingest(node))?
            .flatten()
            .filter_map(|entry| Some(entry.metadata().ok()?.len()));
        if sizes.sum::<u64>() >= bytes {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    anyhow::bail!("{bytes} bytes never came")
}

/// The ranges that blobs were asked for with since the last call; not configurations.
fn ranges(node: &Node) -> Vec<String> {
    let seen = node.registry().take_seen().into_iter();
    seen.filter_map(|seen| seen.range).collect()
}

fn user(password: &str) -> Option<cri::AuthConfig> {
    Some(cri::AuthConfig {
        username: "someone".to_owned(),
        password: password.to_owned(),
        ..Default::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_goes_on_by_range_after_the_daemon_was_killed() -> Outcome {
    let node = Node::with(&[]).await?;
    let image = large(&node);
    node.registry()
        .fail(Target::LargeBlob, Fault::StallAfter(SIZE / 2), 1);
    let (cri, name) = (node.cri().clone(), image.clone());
    let pull = tokio::spawn(async move { cri.pull(&name).await });
    arrived(&node, (SIZE / 2) as u64).await?;
    node.kill()?;
    pull.await?.unwrap_err();
    node.restart().await?;
    node.registry().take_seen();
    node.cri().pull(&image).await?;
    assert_eq!(ranges(&node), [format!("bytes={}-", SIZE / 2)]);
    assert_eq!(std::fs::read_dir(ingest(&node))?.count(), 0);
    node.rebase()?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_pull_stops_and_the_next_goes_on_with_it() -> Outcome {
    let node = Node::with(&[]).await?;
    let image = large(&node);
    node.registry()
        .fail(Target::LargeBlob, Fault::StallAfter(SIZE / 3), 1);
    let (cri, name) = (node.cri().clone(), image.clone());
    let pull = tokio::spawn(async move { cri.pull(&name).await });
    arrived(&node, (SIZE / 3) as u64).await?;
    pull.abort();
    node.registry().take_seen();
    // Well before the stalled connection would count as hung.
    tokio::time::timeout(Duration::from_secs(15), node.cri().pull(&image)).await??;
    assert_eq!(ranges(&node), [format!("bytes={}-", SIZE / 3)]);
    node.rebase()?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shares_the_work_of_a_pull_must_be_let_in_himself() -> Outcome {
    let node = Node::with(&[]).await?;
    let image = large(&node);
    node.registry().set_auth(Auth::basic("someone", SECRET));
    node.registry()
        .fail(Target::LargeBlob, Fault::StallAfter(SIZE / 2), 1);
    let (cri, name) = (node.cri().clone(), image.clone());
    let first = tokio::spawn(async move { cri.pull_as(&name, user(SECRET)).await });
    arrived(&node, (SIZE / 2) as u64).await?;
    let denied = async |wrong: Option<cri::AuthConfig>| {
        let status = node.cri().pull_as(&image, wrong).await.unwrap_err();
        let codes = [Code::PermissionDenied, Code::Unauthenticated];
        assert!(codes.contains(&status.code()), "{status}");
    };
    // While it is on its way, and when it is here.
    denied(user("wrong")).await;
    denied(None).await;
    first.abort();
    node.cri().pull_as(&image, user(SECRET)).await?;
    denied(user("wrong")).await;
    denied(None).await;
    let elsewhere = cri::AuthConfig {
        server_address: "https://registry.example".to_owned(),
        ..user(SECRET).expect("a user")
    };
    denied(Some(elsewhere)).await;
    node.rebase()?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_the_node_open_a_registry_and_stand_in_no_log() -> Outcome {
    let node = Node::with(&[]).await?;
    let image = large(&node);
    node.registry().set_auth(Auth::bearer("someone", SECRET));
    let folder = node.folder("credentials")?;
    let helper = folder.join("docker-credential-test");
    let answer =
        format!("#!/bin/sh\necho '{{\"Username\":\"someone\",\"Secret\":\"{SECRET}\"}}'\n");
    std::fs::write(&helper, answer)?;
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755))?;
    let config = folder.join("config.json");
    std::fs::write(&config, "{\"credsStore\": \"test\"}")?;
    let toml = format!(
        "[log]\nlevel = \"trace\"\n[images]\nauth_files = [{config:?}]\nhelper_dirs = [{folder:?}, \"/bin\"]\n"
    );
    configure(&node, &toml).await?;
    let id = node.cri().pull(&image).await?;
    node.cri().remove_image(&id).await?;
    // What comes with a pull goes before that.
    let status = node.cri().pull_as(&image, user("wrong-secret")).await;
    let status = status.expect_err("a wrong password");
    assert!(!status.message().contains("wrong-secret"), "{status}");
    std::fs::write(&helper, "#!/bin/sh\necho locked >&2\nexit 1\n")?;
    let status = node.cri().pull(&image).await.expect_err("no credentials");
    assert!(status.message().contains("locked"), "{status}");
    let log = std::fs::read_to_string(node.socket().with_file_name("daemon.log"))?;
    assert!(log.contains("TRACE"), "no trace");
    for secret in [
        SECRET,
        "wrong-secret",
        "c29tZW9uZTph",
        "a-token-that-the-test",
    ] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn images_beyond_what_is_allowed_are_refused_and_leave_nothing() -> Outcome {
    let node = Node::with(&[]).await?;
    let image = large(&node);
    let mut content = Content::default();
    let small = |n: usize| Layer::new().file(&format!("f{n}"), b"x", 0o644);
    let many = (0..4).fold(ImageBuilder::new(), |image, n| image.layer(small(n)));
    many.push(&mut content, &["pulls/many:1"]);
    node.registry().push(content);
    let many = format!("{}/pulls/many:1", node.registry().host());
    for (key, value, image, says) in [
        ("max_layers", 3, &many, "4 layers"),
        ("max_image_compressed_bytes", 1000, &image, "bytes to fetch"),
        ("max_image_bytes", 800_000, &image, "larger than 800000"),
        ("max_layer_bytes", 1000, &image, "larger than 1000"),
        ("max_manifest_bytes", 100, &image, "longer than 100"),
    ] {
        configure(&node, &format!("[images]\n{key} = {value}\n")).await?;
        let status = node.cri().pull(image).await.expect_err(key);
        assert!(status.message().contains(says), "{key}: {status}");
        assert!(node.cri().list_images().await?.is_empty());
        assert_eq!(std::fs::read_dir(ingest(&node))?.count(), 0, "{key}");
    }
    configure(&node, "").await?;
    for image in [&image, &many] {
        let id = node.cri().pull(image).await?;
        node.cri().remove_image(&id).await?;
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn pinned_images_are_told_and_can_be_removed_all_the_same() -> Outcome {
    let node = Node::with(&[]).await?;
    let image = large(&node);
    configure(&node, "[images]\npinned = [\"*/pulls/large:*\"]\n").await?;
    node.cri().pull(&image).await?;
    node.cri().pull(spec::BUSYBOX).await?;
    assert!(node.cri().image(&image).await?.expect("the image").pinned);
    let pinned = |image: &cri::Image| image.pinned;
    let listed = node.cri().list_images().await?;
    assert_eq!(listed.iter().filter(|i| pinned(i)).count(), 1);
    node.cri().remove_image(&image).await?;
    assert_eq!(node.cri().image(&image).await?, None);
    node.rebase()?;
    node.finish().await
}

async fn used(node: &Node) -> anyhow::Result<(u64, u64)> {
    let request = cri::ImageFsInfoRequest {};
    let info = node
        .cri()
        .images()
        .image_fs_info(request)
        .await?
        .into_inner();
    for fs in info
        .image_filesystems
        .iter()
        .chain(&info.container_filesystems)
    {
        let path = fs.fs_id.as_ref().expect("an id").mountpoint.clone();
        assert!(PathBuf::from(&path).is_dir(), "{path}");
        assert!(fs.inodes_used.is_some() && fs.timestamp > 0);
    }
    let bytes = |all: &[cri::FilesystemUsage]| {
        let used = all.iter().filter_map(|fs| fs.used_bytes);
        used.map(|bytes| bytes.value).sum::<u64>()
    };
    Ok((
        bytes(&info.image_filesystems),
        bytes(&info.container_filesystems),
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn content_of_a_removed_image_stays_with_its_container_and_goes_with_it() -> Outcome {
    let node = Node::with(&[]).await?;
    let (before, _) = used(&node).await?;
    let mut content = Content::default();
    ImageBuilder::new()
        .tar(busybox_layer()?, Compression::Gzip)
        .layer(Layer::new().file("large", &noise(), 0o644))
        .push(&mut content, &["pulls/used:1"]);
    node.registry().push(content);
    node.cri().pull("carpel.test/pulls/used:1").await?;
    let pod = Pod::run(&node, spec::pod("used")).await?;
    let mut config = spec::sleeper("c");
    config.image = Some(spec::image("carpel.test/pulls/used:1"));
    let id = pod.start(&node, &config).await?;
    let full = used(&node).await?.0;
    assert!(full >= before + SIZE as u64, "{before} {full}");
    node.cri().remove_image("carpel.test/pulls/used:1").await?;
    assert!(node.cri().list_images().await?.is_empty());
    for _ in 0..2 {
        let count = node
            .cri()
            .output(&id, &["/bin/busybox", "wc", "-c", "/large"])
            .await?;
        assert!(count.starts_with(&SIZE.to_string()), "{count}");
        assert!(used(&node).await?.0 >= before + SIZE as u64);
        node.kill()?;
        node.restart().await?;
    }
    node.cri().stop(&id, 0).await?;
    node.cri().remove(&id).await?;
    let after = used(&node).await?.0;
    assert!(after < before + 10_000, "{before} {after}");
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_containers_write_may_lie_on_another_disk() -> Outcome {
    let node = Node::with(&[spec::BUSYBOX]).await?;
    let memory = tempfile::tempdir_in("/dev/shm")?;
    let containers = memory.path().join("containers");
    configure(&node, &format!("[paths]\ncontainers = {containers:?}\n")).await?;
    node.rebase()?;
    let pod = Pod::run(&node, spec::pod("split")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    let script = "head -c 500000 /dev/urandom > /root/written";
    node.cri().output(&id, &["sh", "-c", script]).await?;
    let request = cri::ImageFsInfoRequest {};
    let info = node
        .cri()
        .images()
        .image_fs_info(request)
        .await?
        .into_inner();
    let place = |all: &[cri::FilesystemUsage]| {
        let path = all[0].fs_id.clone().expect("an id").mountpoint;
        std::fs::metadata(path).map(|m| std::os::unix::fs::MetadataExt::dev(&m))
    };
    let (images, written) = (&info.image_filesystems, &info.container_filesystems);
    assert_ne!(place(images)?, place(written)?);
    assert!(used(&node).await?.1 >= 500_000);
    node.kill()?;
    node.restart().await?;
    node.cri()
        .output(&id, &["test", "-s", "/root/written"])
        .await?;
    node.cri().stop(&id, 0).await?;
    node.cri().remove(&id).await?;
    assert_eq!(std::fs::read_dir(containers.join("rootfs"))?.count(), 0);
    node.finish().await
}

/// Legal, and as odd as images get.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_many_layers_holes_and_long_names_runs() -> Outcome {
    let node = Node::with(&[]).await?;
    let deep = format!("{}/{}", "d".repeat(45), "f".repeat(45));
    let first = Layer::new()
        .file("gone", b"gone", 0o644)
        .file("hard/one", b"one", 0o644)
        .hard_link("hard/two", "hard/one")
        .file("opaque/old", b"old", 0o644)
        .file(&deep, b"long", 0o644);
    let last = Layer::new()
        .raw_file(".wh.gone", b"")
        .file("hard/.wh.one", b"", 0o644)
        .file("opaque/.wh..wh..opq", b"", 0o644);
    let mut image = ImageBuilder::new()
        .tar(busybox_layer()?, Compression::Gzip)
        .layer(first);
    for n in 0..124 {
        image = image.layer(Layer::new().file(&format!("many/{n}"), b"x", 0o644));
    }
    let mut content = Content::default();
    image.layer(last).push(&mut content, &["pulls/odd:1"]);
    ImageBuilder::new().push(&mut content, &["pulls/empty:1"]);
    node.registry().push(content);
    node.cri().pull("carpel.test/pulls/odd:1").await?;
    node.cri().pull("carpel.test/pulls/empty:1").await?;
    node.rebase()?;
    let pod = Pod::run(&node, spec::pod("odd")).await?;
    let mut config = spec::sleeper("c");
    config.image = Some(spec::image("carpel.test/pulls/odd:1"));
    let id = pod.start(&node, &config).await?;
    let script = format!(
        "test ! -e /gone && test ! -e /hard/one && cat /hard/two && ls -A /opaque | /bin/busybox wc -l && \
         ls /many | /bin/busybox wc -l && cat /{deep}"
    );
    let out = node.cri().output(&id, &["sh", "-c", &script]).await?;
    assert_eq!(out, "one0\n124\nlong");
    // Without layers there is nothing to run, which is told and leaves nothing.
    let empty = spec::container("empty", "carpel.test/pulls/empty:1", &["/bin/sh"]);
    // runc looks for the program when it creates, native when it starts.
    if let Ok(id) = node.cri().create(&pod.id, &empty, &pod.config).await {
        node.cri().start(&id).await.expect_err("no such program");
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn names_too_long_or_malformed_are_refused_by_what_is_wrong() -> Outcome {
    let node = Node::with(&[]).await?;
    let long = format!("carpel.test/{}", "a/".repeat(150).trim_end_matches('/'));
    for name in [long.as_str(), "UPPER", "a//b", "x:tag:tag", "x@sha256:12"] {
        let result = node.cri().pull(name).await;
        assert_refused(result, Code::InvalidArgument, &[]);
    }
    node.finish().await
}
