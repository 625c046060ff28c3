//! Volumes that images ask for.

use std::path::Path;
use std::time::Duration;

use carpel_conformance::image::{Compression, Content, ImageBuilder, Layer, busybox_layer};
use carpel_conformance::{Node, spec};
use k8s_cri::v1 as cri;
use serde_json::{Map, Value, json};
use tonic::Code;

use crate::checks::{Outcome, Pod, assert_refused};

/// A node with a busybox image that has `layer` on top and these volumes.
async fn node(layer: Layer, volumes: &[&str]) -> anyhow::Result<(Node, String)> {
    let node = Node::with(&[]).await?;
    let image = push(&node, "volumes:1", layer, volumes).await?;
    Ok((node, image))
}

async fn push(node: &Node, name: &str, layer: Layer, volumes: &[&str]) -> anyhow::Result<String> {
    let volumes: Map<_, _> = volumes
        .iter()
        .map(|&path| (path.to_owned(), json!({})))
        .collect();
    let mut content = Content::default();
    ImageBuilder::new()
        .tar(busybox_layer()?, Compression::Gzip)
        .layer(layer)
        .with("Volumes", Value::Object(volumes))
        .push(&mut content, &[name]);
    node.registry().push(content);
    let image = format!("carpel.test/{name}");
    node.cri().pull(&image).await?;
    node.rebase()?;
    Ok(image)
}

fn sleeper(name: &str, image: &str) -> cri::ContainerConfig {
    cri::ContainerConfig {
        image: Some(spec::image(image)),
        ..spec::sleeper(name)
    }
}

/// Volumes that the daemon holds, by container.
fn held(node: &Node) -> anyhow::Result<Vec<String>> {
    let entries = std::fs::read_dir(node.root().join("volumes"))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_begins_as_what_the_image_has_there() -> Outcome {
    let layer = Layer::new()
        .owned_by(1000, 2000)
        .directory("data", 0o2750)
        .file("data/file", b"of the image\n", 0o640)
        .hard_link("data/again", "data/file")
        .symlink("data/link", "/etc/passwd")
        .directory("data/sub", 0o700);
    let (node, image) = node(layer, &["/data", "/none/yet"]).await?;
    let pod = Pod::run(&node, spec::pod("volumes")).await?;
    let mut config = sleeper("c", &image);
    let security = spec::security(&mut config);
    security.readonly_rootfs = true;
    security.run_as_user = Some(cri::Int64Value { value: 1000 });
    security.run_as_group = Some(cri::Int64Value { value: 2000 });
    let id = pod.start(&node, &config).await?;
    let run = async |script: &str| node.cri().output(&id, &["/bin/sh", "-c", script]).await;

    let stat = "busybox stat -c '%a %u %g %h' /data /data/file /data/sub; cat /data/again";
    assert_eq!(
        run(stat).await?,
        "2750 1000 2000 3\n640 1000 2000 2\n700 1000 2000 2\nof the image\n"
    );
    assert_eq!(run("busybox readlink /data/link").await?, "/etc/passwd\n");
    assert_eq!(
        run("ls -A /none/yet; busybox stat -c %u /none/yet").await?,
        "0\n"
    );
    run("echo mine > /data/file && echo more > /data/sub/new").await?;
    let denied = ["/bin/sh", "-c", "echo x > /out"];
    assert_ne!(node.cri().exec(&id, &denied, 30).await?.exit_code, 0);
    // Nobody asked for them, so they are not told.
    assert!(node.cri().container(&id).await?.mounts.is_empty());

    let other = pod.start(&node, &sleeper("other", &image)).await?;
    let read = ["cat", "/data/file"];
    assert_eq!(node.cri().output(&other, &read).await?, "of the image\n");
    assert_eq!(held(&node)?.len(), 2);
    node.cri().remove(&id).await?;
    assert_eq!(held(&node)?, [&*other]);
    assert_eq!(node.cri().output(&other, &read).await?, "of the image\n");
    node.cri().remove_pod(&pod.id).await?;
    assert!(held(&node)?.is_empty());
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_was_asked_for_goes_before_the_images_volume() -> Outcome {
    let layer = Layer::new()
        .file("data/file", b"image", 0o644)
        .file("data/sub/file", b"image", 0o644)
        .directory("run", 0o755)
        .symlink("link", "run");
    let volumes = [
        "/data",
        "/data/sub",
        "/link/deep",
        "/etc/hosts",
        "/dev/shm",
        "/proc",
    ];
    let (node, image) = node(layer, &volumes).await?;
    let host = node.folder("host")?;
    std::fs::write(host.join("file"), "host")?;
    std::fs::create_dir(host.join("sub"))?;
    let pod = Pod::run(&node, spec::pod("covered")).await?;
    let mut config = sleeper("c", &image);
    // Above two of the volumes, and, through a link, at the place of the third.
    config.mounts = ["/data", "/run/deep"]
        .map(|inside| cri::Mount {
            container_path: inside.to_owned(),
            host_path: host.display().to_string(),
            ..Default::default()
        })
        .to_vec();
    let id = pod.start(&node, &config).await?;
    for path in ["/data/file", "/run/deep/file", "/link/deep/file"] {
        assert_eq!(
            node.cri().output(&id, &["cat", path]).await?,
            "host",
            "{path}"
        );
    }
    let script = [
        "/bin/sh",
        "-c",
        "ls /data/sub; cat /etc/hosts; echo x > /dev/shm/x",
    ];
    let said = node.cri().output(&id, &script).await?;
    assert!(
        said.contains("localhost") && !said.contains("file"),
        "{said}"
    );
    assert_eq!(node.cri().container(&id).await?.mounts.len(), 2);
    node.finish().await
}

/// CVE-2022-23648.
#[tokio::test(flavor = "multi_thread")]
async fn no_volume_of_a_hostile_image_shows_the_host() -> Outcome {
    let outside = tempfile::tempdir()?;
    std::fs::write(outside.path().join("secret"), "of the host")?;
    let target = outside.path().display().to_string();
    let deep = format!("/../../../..{target}");
    let layer = Layer::new()
        .file("etc/own", b"image", 0o644)
        .symlink("absolute", &target)
        .symlink("climbing", &format!("../../../../../..{target}"))
        .symlink("above", "..");
    let volumes = [
        &*deep,
        "/absolute",
        "/climbing",
        "/climbing/sub",
        "/above/etc",
        "/../../etc",
    ];
    let (node, image) = node(layer, &volumes).await?;
    let pod = Pod::run(&node, spec::pod("hostile")).await?;
    let created = node
        .cri()
        .run(&pod.id, &sleeper("c", &image), &pod.config)
        .await;
    if let Ok(id) = &created {
        let find = [
            "/bin/sh",
            "-c",
            "busybox find / -xdev -name secret; ls /etc/own",
        ];
        let said = node.cri().exec(id, &find, 30).await?;
        assert_eq!(String::from_utf8_lossy(&said.stdout), "/etc/own\n");
    }
    for entry in walk(&node.root().join("volumes")) {
        assert!(!entry.ends_with("secret"), "{}", entry.display());
    }
    let names: Vec<_> = std::fs::read_dir(outside.path())?.collect();
    assert_eq!(names.len(), 1, "{names:?}");
    created?;
    for link in ["/magic", "/circle"] {
        let name = format!("{}:1", &link[1..]);
        let layer = Layer::new()
            .symlink("magic", "/proc/self/root/etc")
            .symlink("circle", "circle");
        let image = push(&node, &name, layer, &[link]).await?;
        let config = sleeper(&link[1..], &image);
        let result = node.cri().create(&pod.id, &config, &pod.config).await;
        // An executor may also take such a link as one inside the root; it finds nothing.
        match result {
            Ok(id) => {
                let below = walk(&node.root().join("volumes").join(id));
                // Mount points of the pod's own files may have been made in it.
                let empty = |path: &std::path::PathBuf| {
                    path.metadata()
                        .is_ok_and(|meta| meta.is_dir() || meta.len() == 0)
                };
                assert!(below.iter().all(empty), "{below:?}");
            }
            Err(status) => {
                let codes = [Code::InvalidArgument, Code::FailedPrecondition];
                assert!(codes.contains(&status.code()), "{status}");
                assert!(status.message().contains("bad link"), "{status}");
            }
        }
    }
    node.finish().await
}

fn walk(path: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| {
            let path = entry.path();
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let below = if is_dir { walk(&path) } else { Vec::new() };
            std::iter::once(path).chain(below)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_cannot_be_is_refused_and_leaves_nothing() -> Outcome {
    let layer = Layer::new().file("file", b"x", 0o644);
    let (node, image) = node(layer, &["/fine", "/file"]).await?;
    let root = push(&node, "root:1", Layer::new(), &["/"]).await?;
    let pod = Pod::run(&node, spec::pod("refused")).await?;
    for (name, image, code, part) in [
        ("file", &image, Code::FailedPrecondition, "\"/file\""),
        ("root", &root, Code::InvalidArgument, "image volume"),
    ] {
        let config = sleeper(name, image);
        let result = node.cri().create(&pod.id, &config, &pod.config).await;
        assert_refused(result, code, &[part]);
    }
    assert!(held(&node)?.is_empty());
    node.cri().remove_pod(&pod.id).await?;
    node.assert_clean().await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_at_any_instant_leaves_no_volume() -> Outcome {
    let mut layer = Layer::new();
    for number in 0..60 {
        layer = layer.file(&format!("data/{number}/file"), &[7; 20_000], 0o644);
    }
    let (node, image) = node(layer, &["/data", "/data/1", "/other"]).await?;
    let pod = Pod::run(&node, spec::pod("killed")).await?;
    for round in 0..6 {
        let config = sleeper(&format!("c{round}"), &image);
        let create = node.cri().create(&pod.id, &config, &pod.config);
        let kill = async {
            tokio::time::sleep(Duration::from_millis(15 * round)).await;
            node.kill()
        };
        let (_, killed) = tokio::join!(create, kill);
        killed?;
        let orphan = node.root().join("volumes/of-nobody/0/sub");
        std::fs::create_dir_all(&orphan)?;
        node.restart().await?;
        let listed = node.cri().list_containers(None).await?;
        let mut listed: Vec<_> = listed.into_iter().map(|container| container.id).collect();
        let mut held = held(&node)?;
        (listed.sort(), held.sort());
        assert_eq!(held, listed, "round {round}");
    }
    node.cri().remove_pod(&pod.id).await?;
    assert!(held(&node)?.is_empty());
    node.finish().await
}
