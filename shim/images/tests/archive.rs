//! Archives in and out.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(unreachable_pub, reason = "shared with other test binaries")]
#[path = "support/registry.rs"]
mod registry;
#[path = "support/store.rs"]
mod support;

use std::io::{Cursor, Read, Write};
use std::time::Duration;

use carpel_images::engine::{Error, ImageEngine};
use carpel_images::testing::{Compression, LayerBuilder, TestImage};
use serde_json::{Value, json};
use support::{StoreWorld, inside};
use tokio::io::AsyncReadExt;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn save(world: &StoreWorld, images: &[&str]) -> Result<Vec<u8>, Error> {
    let images: Vec<String> = images.iter().map(|i| (*i).to_owned()).collect();
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let mut bytes = Vec::new();
    let reading = async {
        tokio::io::BufReader::new(ours)
            .read_to_end(&mut bytes)
            .await
            .unwrap()
    };
    let (saved, _) = tokio::join!(world.store.save(&images, theirs), reading);
    saved.map(|()| bytes)
}

fn members(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut body = Vec::new();
        entry.read_to_end(&mut body).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), body)
    });
    entries.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_loads_to_the_same_image() {
    let image = TestImage::small("form");
    let names = ["h.io/a:1", "busybox:latest"];
    let want = ["docker.io/library/busybox:latest", "h.io/a:1"];
    let (oci, docker) = (image.oci_archive(&names), image.docker_archive(&names));
    let squeezed = zstd::encode_all(&docker[..], 1).unwrap();
    for archive in [oci.clone(), docker, gzip(&oci), squeezed] {
        let world = StoreWorld::new().await;
        let loaded = world.load(archive).await.unwrap();
        assert_eq!(loaded.len(), 1);
        assert_eq!(
            (loaded[0].id.0.clone(), &loaded[0].names[..]),
            (image.id().to_string(), &want.map(str::to_owned)[..])
        );
        let status = world.store.status("busybox").await.unwrap().unwrap();
        assert_eq!(
            (&status.repo_tags[..], status.repo_digests.len()),
            (&want.map(str::to_owned)[..], 0)
        );
        let rootfs = world.store.prepare(&loaded[0].id, "c").await.unwrap();
        assert_eq!(std::fs::read(inside(&rootfs, "form")).unwrap(), b"form");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_name_takes_the_place_of_those_inside() {
    let world = StoreWorld::new().await;
    let archive = TestImage::small("n").oci_archive(&["h.io/inside:1"]);
    let loaded = world
        .store
        .load(Cursor::new(archive.clone()), Some("given"))
        .await
        .unwrap();
    assert_eq!(loaded[0].names, ["docker.io/library/given:latest"]);
    assert!(world.store.status("h.io/inside:1").await.unwrap().is_none());
    for bad in [
        "BAD NAME",
        "x@sha256:9700a4ffc9ddaa5ab8e15ca5ba7b6c4ba1d0a6e5a1ba1ab1e5a2a8eb1a1a66bf",
    ] {
        let refused = world
            .store
            .load(Cursor::new(archive.clone()), Some(bad))
            .await;
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_images_go_out_and_come_back() {
    let world = StoreWorld::new().await;
    let (one, two) = (TestImage::small("one"), TestImage::small("two"));
    world
        .load(one.oci_archive(&["h.io/one:1", "h.io/one:2"]))
        .await
        .unwrap();
    world
        .load(two.docker_archive(&["h.io/two:1"]))
        .await
        .unwrap();
    let archive = save(&world, &["h.io/one:1", "h.io/two:1", "h.io/one:2"])
        .await
        .unwrap();
    let parts = members(&archive);
    let body = |name: &str| {
        parts
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, b)| b)
            .unwrap()
    };
    let docker: Value = serde_json::from_slice(body("manifest.json")).unwrap();
    assert_eq!(docker.as_array().unwrap().len(), 2);
    assert_eq!(docker[0]["RepoTags"], json!(["h.io/one:1", "h.io/one:2"]));
    let other = StoreWorld::new().await;
    let loaded = other.load(archive.clone()).await.unwrap();
    assert_eq!(loaded.len(), 2);
    assert_eq!(
        other.store.list().await.unwrap(),
        world.store.list().await.unwrap()
    );
    let missing = save(&world, &["h.io/none:1"]).await;
    assert!(matches!(missing, Err(Error::NotFound(_))), "{missing:?}");
    let named = other
        .store
        .load(Cursor::new(archive), Some("one-name"))
        .await;
    assert!(matches!(named, Err(Error::Invalid { .. })), "{named:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pulled_can_be_saved_byte_for_byte() {
    let world = StoreWorld::new().await;
    let (image, name) = (TestImage::small("pulled"), world.at("r/pulled:1"));
    world.put(&name, &image);
    world.pull(&name).await.unwrap();
    let parts = members(&save(&world, &[&name]).await.unwrap());
    for (digest, bytes) in image.blobs() {
        let blob = format!("blobs/sha256/{}", digest.hex());
        assert!(
            parts.iter().any(|(n, body)| *n == blob && body == bytes),
            "{blob}"
        );
    }
    let manifest = format!("blobs/sha256/{}", image.manifest_digest().hex());
    assert!(
        parts
            .iter()
            .any(|(n, body)| *n == manifest && *body == image.manifest)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_platform_is_taken_from_an_index() {
    let world = StoreWorld::new().await;
    let (ours, theirs) = (TestImage::small("ours"), TestImage::small("theirs"));
    let arch = if cfg!(target_arch = "x86_64") {
        "amd64"
    } else {
        "arm64"
    };
    let link = |image: &TestImage, arch: &str| {
        json!({
            "mediaType": registry::OCI_MANIFEST, "digest": image.manifest_digest().to_string(),
            "size": image.manifest.len(), "platform": { "os": "linux", "architecture": arch },
        })
    };
    let inner =
        json!({ "schemaVersion": 2, "manifests": [link(&theirs, "s390x"), link(&ours, arch)] });
    let inner = inner.to_string().into_bytes();
    let outer = json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": registry::OCI_INDEX, "digest": registry::sha256(&inner), "size": inner.len(),
        "annotations": { "io.containerd.image.name": "h.io/multi:1" },
    }]});
    let mut archive = LayerBuilder::new().file("index.json", outer.to_string().as_bytes());
    let documents = [&inner, &ours.manifest, &theirs.manifest];
    for bytes in documents
        .into_iter()
        .chain(ours.blobs().map(|_| &ours.config).take(1))
        .chain(&ours.layers)
    {
        let name = format!("blobs/{}", registry::sha256(bytes).replace(':', "/"));
        archive = archive.file(&name, bytes);
    }
    let loaded = world.load(archive.finish()).await.unwrap();
    assert_eq!(loaded[0].id.0, ours.id().to_string());
    assert_eq!(loaded[0].names, ["h.io/multi:1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_archives_are_refused_and_leave_nothing() {
    let world = StoreWorld::new().await;
    let image = TestImage::small("bad");
    let good = image.oci_archive(&["h.io/bad:1"]);
    let (layer, _) = image.blobs().last().unwrap();
    let blob = format!("blobs/sha256/{}", layer.hex());
    let index = members(&good)
        .into_iter()
        .find(|(n, _)| n == "index.json")
        .unwrap()
        .1;
    let rebuilt = |skip: &str| {
        let kept = members(&good).into_iter().filter(|(name, _)| name != skip);
        kept.fold(LayerBuilder::new(), |archive, (name, body)| {
            archive.file(&name, &body)
        })
    };
    let wrong = index.clone();
    let wrong = String::from_utf8(wrong)
        .unwrap()
        .replace(image.manifest_digest().hex(), "../../../etc");
    let entry = json!([{ "Config": "../x.json", "RepoTags": null, "Layers": [] }]).to_string();
    let linked =
        json!([{ "Config": "c.json", "RepoTags": ["x"], "Layers": ["l.tar"] }]).to_string();
    let config = TestImage::new(&json!({}), vec![Vec::new()], Compression::Plain).config;
    let cases = [
        ("empty", Vec::new()),
        ("no archive", b"nothing of the kind".repeat(50)),
        ("no index", rebuilt("index.json").finish()),
        ("missing blob", rebuilt(&blob).finish()),
        (
            "linked blob",
            rebuilt(&blob).symlink(&blob, "/etc/passwd").finish(),
        ),
        (
            "hard-linked blob",
            rebuilt(&blob).hardlink(&blob, "index.json").finish(),
        ),
        ("other blob", rebuilt(&blob).file(&blob, b"other").finish()),
        (
            "bad digest",
            rebuilt("index.json")
                .file("index.json", wrong.as_bytes())
                .finish(),
        ),
        (
            "bad index",
            rebuilt("index.json").file("index.json", b"{").finish(),
        ),
        ("climbing name", rebuilt("").file("../x", b"").finish()),
        (
            "climbing config",
            LayerBuilder::new()
                .file("manifest.json", entry.as_bytes())
                .finish(),
        ),
        (
            "linked layer",
            LayerBuilder::new()
                .file("manifest.json", linked.as_bytes())
                .file("c.json", &config)
                .symlink("l.tar", "/etc/passwd")
                .finish(),
        ),
        ("truncated", good[..good.len() / 2].to_vec()),
        ("truncated gzip", {
            let g = gzip(&good);
            g[..g.len() / 2].to_vec()
        }),
    ];
    for (what, archive) in cases {
        let error = world.load(archive).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{what}: {error:?}");
    }
    assert!(world.store.list().await.unwrap().is_empty());
    assert_eq!((world.count("layers"), world.count("images")), (0, 0));
    world.until("tmp is empty", |w| w.count("tmp") == 0).await;
    world.load(good).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_load_ends() {
    let world = StoreWorld::new().await;
    let archive = TestImage::small("slow").oci_archive(&["h.io/slow:1"]);
    let (ours, mut theirs) = tokio::io::duplex(64);
    let half = archive[..archive.len() / 2].to_vec();
    let writing = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        theirs.write_all(&half).await.ok();
        // Held open: the archive never ends by itself.
        tokio::time::sleep(Duration::from_millis(300)).await;
        theirs.write_all(&[0]).await.ok();
        theirs
    });
    let loading = world.store.load(ours, None);
    assert!(
        tokio::time::timeout(Duration::from_millis(100), loading)
            .await
            .is_err()
    );
    drop(writing.await.unwrap());
    world.until("tmp is empty", |w| w.count("tmp") == 0).await;
    assert!(world.store.list().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_saved_whose_layer_another_brought_otherwise_compressed() {
    let world = StoreWorld::new().await;
    let base = LayerBuilder::new().file("base", b"base").finish();
    let own = |mark: &str| LayerBuilder::new().file(mark, mark.as_bytes()).finish();
    let packed = [Compression::Gzip, Compression::Zstd, Compression::Plain];
    for (first, second) in [(0, 1), (1, 0), (2, 0), (0, 2)] {
        let mark = format!("{first}{second}");
        let with = |mark: &str, how: usize| {
            TestImage::new(
                &json!({ "Cmd": [mark] }),
                vec![base.clone(), own(mark)],
                packed[how],
            )
        };
        let (a, b) = (
            with(&format!("a{mark}"), first),
            with(&format!("b{mark}"), second),
        );
        let (name_a, name_b) = (world.at("r/a:1"), world.at("r/b:1"));
        world.put(&name_a, &a);
        world.put(&name_b, &b);
        world.pull(&name_a).await.unwrap();
        let id = world.pull(&name_b).await.unwrap();
        // The blob stays though the image that brought it goes.
        world.store.remove(&name_a).await.unwrap();
        let world_archive = save(&world, &[&name_b]).await.unwrap();
        world.store.remove(&name_b).await.unwrap();
        let loaded = world.load(world_archive).await.unwrap();
        assert_eq!(
            (&loaded[0].id, &loaded[0].names),
            (&id, &vec![name_b.clone()])
        );
        let rootfs = world.store.prepare(&id, "c").await.unwrap();
        for file in ["base".to_owned(), format!("b{mark}")] {
            let text = std::fs::read_to_string(inside(&rootfs, &file)).unwrap();
            assert_eq!(text, file);
        }
        drop(rootfs);
        world.store.release("c").await.unwrap();
        world.store.remove(&name_b).await.unwrap();
    }
}
