//! The store against registries: the contract, sharing, crashes, garbage.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(unreachable_pub, reason = "shared with other test binaries")]
#[path = "support/registry.rs"]
mod registry;
#[path = "support/store.rs"]
mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use carpel_images::engine::{Error, ImageEngine};
use carpel_images::testing::contract::{self, World};
use carpel_images::testing::{Compression, LayerBuilder, TestImage};
use carpel_images::{Store, StoreConfig};
use registry::Fault;
use serde_json::json;
use support::{StoreWorld, config, inside, open_when_free, pull};

#[tokio::test(flavor = "multi_thread")]
async fn the_store_keeps_the_contract() {
    contract::run(StoreWorld::new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_wanted_by_many_is_fetched_once() {
    let world = StoreWorld::new().await;
    let images = [TestImage::small("one"), TestImage::small("two")];
    let names = [world.at("r/one:1"), world.at("r/two:1")];
    for (name, image) in names.iter().zip(&images) {
        world.put(name, image);
    }
    let (base, _) = images[0].blobs().nth(1).unwrap();
    world.registries[0].fault(&base.to_string(), Fault::Drip(Duration::from_millis(1)), 1);
    let pulls = (0..6).map(|n| world.pull(&names[n % 2]));
    for pulled in futures_util::future::join_all(pulls).await {
        pulled.unwrap();
    }
    assert_eq!(world.registries[0].requests_for(&base.to_string()).len(), 1);
    assert_eq!(world.count("layers"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_fails_does_not_fail_those_behind_it() {
    let world = StoreWorld::new().await;
    let image = TestImage::small("shared");
    let [bad, good] = world.hosts().map(|host| format!("{host}/r/shared:1"));
    world.put(&bad, &image);
    world.put(&good, &image);
    let (base, _) = image.blobs().nth(1).unwrap();
    let slow = Fault::Drip(Duration::from_millis(20));
    world.registries[0].fault(&base.to_string(), slow, 1);
    world.registries[0].always(
        &base.to_string(),
        Fault::Content(b"something else".to_vec()),
    );
    let leader = tokio::spawn({
        let (store, bad) = (world.store.clone(), bad.clone());
        async move { pull(&store, &bad).await }
    });
    let asked = |w: &StoreWorld| !w.registries[0].requests_for(&base.to_string()).is_empty();
    world.until("the leader fetches", asked).await;
    world.pull(&good).await.unwrap();
    leader.await.unwrap().unwrap_err();
    let image = world.store.status(&good).await.unwrap().unwrap();
    assert_eq!(image.repo_tags, [good]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_died_leaves_nothing_and_is_done_again() {
    let world = StoreWorld::new().await;
    let (image, name) = (TestImage::small("killed"), world.at("r/killed:1"));
    world.put(&name, &image);
    let (top, _) = image.blobs().last().unwrap();
    world.registries[0].fault(&top.to_string(), Fault::Drip(Duration::from_millis(50)), 1);
    let cut = tokio::time::timeout(Duration::from_millis(300), world.pull(&name)).await;
    assert!(cut.is_err(), "{cut:?}");
    let world = world.reopen().await;
    assert!(world.store.list().await.unwrap().is_empty());
    world.until("tmp is empty", |w| w.count("tmp") == 0).await;
    world.pull(&name).await.unwrap();
    let (base, _) = image.blobs().nth(1).unwrap();
    let fetches = world.registries[0].requests_for(&base.to_string()).len();
    assert_eq!(fetches, 1, "the layer that was whole is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_after_a_restart() {
    let world = StoreWorld::new().await;
    let names = [world.at("r/kept:1"), world.at("r/kept:2")];
    for name in &names {
        world.put(name, &TestImage::small("kept"));
        world.pull(name).await.unwrap();
    }
    let moved = world.at("r/moved:1");
    for image in ["old", "new"] {
        world.put(&moved, &TestImage::small(image));
        world.pull(&moved).await.unwrap();
    }
    let before = world.store.list().await.unwrap();
    let id = world.store.status(&names[0]).await.unwrap().unwrap().id;
    let rootfs = world.store.prepare(&id, "c1").await.unwrap();
    std::fs::write(inside(&rootfs, "written"), "x").unwrap();
    drop(rootfs);
    world.store.remove(&id.0).await.unwrap();
    let world = world.reopen().await;
    let mut after = before;
    after.retain(|image| image.id != id);
    assert_eq!(world.store.list().await.unwrap(), after);
    assert_eq!(world.store.prepared().await.unwrap(), ["c1"]);
    let rootfs = world.store.prepare(&id, "c1").await.unwrap();
    assert_eq!(std::fs::read(inside(&rootfs, "written")).unwrap(), b"x");
    assert_eq!(std::fs::read(inside(&rootfs, "kept")).unwrap(), b"kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_make_no_sense_are_set_aside() {
    let world = StoreWorld::new().await;
    let names: Vec<String> = (0..4).map(|n| world.at(&format!("r/{n}{n}:1"))).collect();
    let mut ids = Vec::new();
    for (n, name) in names.iter().enumerate() {
        world.put(name, &TestImage::small(&format!("f{n}")));
        ids.push(world.pull(name).await.unwrap().0.replace("sha256:", ""));
    }
    drop(
        world
            .store
            .prepare(
                &carpel_images::engine::ImageId(format!("sha256:{}", ids[3])),
                "c",
            )
            .await,
    );
    let record = |n: usize| world.root().join(format!("images/{}.json", ids[n]));
    let whole = std::fs::read(record(0)).unwrap();
    std::fs::write(record(0), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(record(1), "{}").unwrap();
    std::fs::write(world.root().join(format!("blobs/sha256/{}", ids[2])), "{}").unwrap();
    std::fs::write(world.root().join("rootfs/c/record"), "").unwrap();
    std::fs::write(world.root().join("images/stray"), "").unwrap();
    let world = world.reopen().await;
    let list = world.store.list().await.unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].repo_tags, [names[3].clone()]);
    assert!(world.store.prepared().await.unwrap().is_empty());
    let aside = std::fs::read_dir(world.root().join("images")).unwrap();
    let bad = aside.filter(|e| {
        e.as_ref()
            .unwrap()
            .path()
            .extension()
            .is_some_and(|e| e == "bad")
    });
    assert_eq!(bad.count(), 3);
    for name in &names {
        world.pull(name).await.unwrap();
    }
    assert_eq!(world.store.list().await.unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_frees_what_nobody_else_uses() {
    let world = StoreWorld::new().await;
    let (one, two) = (world.at("r/one:1"), world.at("r/two:1"));
    world.put(&one, &TestImage::small("one"));
    world.put(&two, &TestImage::small("two"));
    let first = world.pull(&one).await.unwrap();
    world.pull(&two).await.unwrap();
    assert_eq!((world.count("layers"), world.count("blobs/sha256")), (3, 7));
    let rootfs = world.store.prepare(&first, "c").await.unwrap();
    world.store.remove(&one).await.unwrap();
    assert_eq!(world.count("layers"), 3);
    drop(rootfs);
    world.store.release("c").await.unwrap();
    assert_eq!((world.count("layers"), world.count("blobs/sha256")), (2, 4));
    world.store.remove(&two).await.unwrap();
    assert_eq!((world.count("layers"), world.count("blobs/sha256")), (0, 0));
    let usage = world.store.usage().await.unwrap();
    assert_eq!(usage.images[0].used, Default::default());
    world.until("tmp is empty", |w| w.count("tmp") == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_cannot_share_a_store() {
    let world = StoreWorld::new().await;
    let second = Store::open(config(world.dir.path())).await;
    assert!(matches!(second, Err(Error::Io { .. })), "{second:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_root_gets_in() {
    let world = StoreWorld::new().await;
    let mode = |part: &str| {
        world
            .root()
            .join(part)
            .metadata()
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(
        (mode(""), mode("blobs/sha256"), mode("images")),
        (0o700, 0o700, 0o700)
    );
    assert_eq!((mode("layers"), mode("rootfs")), (0o711, 0o711));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_layers_and_none_make_a_root_filesystem() {
    let world = StoreWorld::new().await;
    let layer = |n: usize| LayerBuilder::new().file(&format!("f{n}"), b"x").finish();
    let many = TestImage::new(&json!({}), (0..127).map(layer).collect(), Compression::Zstd);
    let none = TestImage::new(&json!({ "Cmd": ["x"] }), Vec::new(), Compression::Plain);
    for (name, image, files) in [("many", many, 127), ("none", none, 0)] {
        let name = world.at(&format!("r/{name}:1"));
        world.put(&name, &image);
        let id = world.pull(&name).await.unwrap();
        let rootfs = world.store.prepare(&id, "c").await.unwrap();
        assert_eq!(
            std::fs::read_dir(inside(&rootfs, "")).unwrap().count(),
            files
        );
        std::fs::write(inside(&rootfs, "new"), "x").unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !mounts.contains(world.dir.path().to_str().unwrap()),
            "{mounts}"
        );
        drop(rootfs);
        world.store.release("c").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_without_an_entry_look_like_those_below() {
    let world = StoreWorld::new().await;
    let base = LayerBuilder::new()
        .dir("./", 0o750)
        .dir("tmp", 0o1777)
        .dir("opt", 0o700)
        .finish();
    let top = LayerBuilder::new()
        .file("tmp/a", b"")
        .file("opt/b/c", b"")
        .finish();
    let image = TestImage::new(&json!({}), vec![base, top], Compression::Gzip);
    let name = world.at("r/implied:1");
    world.put(&name, &image);
    let id = world.pull(&name).await.unwrap();
    let rootfs = world.store.prepare(&id, "c").await.unwrap();
    let look = |name: &str| {
        let found = inside(&rootfs, name).metadata().unwrap();
        (found.permissions().mode() & 0o7777, found.uid())
    };
    assert_eq!(
        (look("."), look("tmp"), look("opt")),
        ((0o750, 7), (0o1777, 7), (0o700, 7))
    );
    assert_eq!(look("opt/b"), (0o755, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn written_bytes_are_measured() {
    let world = StoreWorld::new().await;
    let name = world.at("r/w:1");
    world.put(&name, &TestImage::small("w"));
    let id = world.pull(&name).await.unwrap();
    let rootfs = world.store.prepare(&id, "c").await.unwrap();
    std::fs::write(inside(&rootfs, "big"), vec![1; 1 << 20]).unwrap();
    let usage = world.store.writable_usage("c").await.unwrap();
    assert!(usage.bytes >= 1 << 20 && usage.inodes == 2, "{usage:?}");
    std::fs::write(inside(&rootfs, "more"), "x").unwrap();
    assert_eq!(
        world.store.writable_usage("c").await.unwrap(),
        usage,
        "remembered for a while"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn content_of_failed_pulls_goes_when_its_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let world = StoreWorld::new().await;
    let config = StoreConfig {
        orphan_grace: Duration::ZERO,
        ..config(dir.path())
    };
    let store = Store::open(config).await.unwrap();
    let (image, bad) = (TestImage::small("bad"), world.at("r/bad:1"));
    world.put(&bad, &image);
    let (top, _) = image.blobs().last().unwrap();
    world.registries[0].always(&top.to_string(), Fault::Content(b"other".to_vec()));
    let error = pull(&store, &bad).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    let good = world.at("r/good:1");
    world.put(
        &good,
        &TestImage::new(&json!({}), Vec::new(), Compression::Plain),
    );
    pull(&store, &good).await.unwrap();
    let layers = std::fs::read_dir(dir.path().join("store/layers")).unwrap();
    assert_eq!(layers.count(), 0);
    drop(store);
    drop(open_when_free(dir.path()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_blob_is_fetched_again() {
    let world = StoreWorld::new().await;
    let layer = |name: &str| LayerBuilder::new().file(name, b"x").finish();
    let of = |names: [&str; 2]| {
        let layers = names.iter().map(|name| layer(name)).collect();
        TestImage::new(&json!({}), layers, Compression::Gzip)
    };
    let (one, two) = (of(["a", "b"]), of(["b", "a"]));
    let names = [world.at("r/one:1"), world.at("r/two:1")];
    world.put(&names[0], &one);
    world.put(&names[1], &two);
    world.pull(&names[0]).await.unwrap();
    for (digest, _) in one.blobs().skip(1) {
        std::fs::write(
            world.root().join(format!("blobs/sha256/{}", digest.hex())),
            "rot",
        )
        .unwrap();
    }
    let id = world.pull(&names[1]).await.unwrap();
    let rootfs = world.store.prepare(&id, "c").await.unwrap();
    assert!(inside(&rootfs, "a").exists() && inside(&rootfs, "b").exists());
    for (digest, bytes) in two.blobs().skip(1) {
        let blob = world.root().join(format!("blobs/sha256/{}", digest.hex()));
        assert_eq!(std::fs::read(blob).unwrap(), bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pinned_images_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let pinned = vec!["busybox".to_owned()];
    let store = Store::open(StoreConfig {
        pinned,
        ..config(dir.path())
    })
    .await
    .unwrap();
    for (name, is) in [("busybox:latest", true), ("other:latest", false)] {
        let archive = TestImage::small(&name[..5]).oci_archive(&[name]);
        store
            .load(std::io::Cursor::new(archive), None)
            .await
            .unwrap();
        assert_eq!(
            store.status(name).await.unwrap().unwrap().pinned,
            is,
            "{name}"
        );
    }
    let bad = vec!["BAD NAME".to_owned()];
    let dir = tempfile::tempdir().unwrap();
    let refused = Store::open(StoreConfig {
        pinned: bad,
        ..config(dir.path())
    })
    .await;
    assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
}
