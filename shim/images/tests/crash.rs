//! A process that uses a store is killed at any time: what is left always works.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(unreachable_pub, reason = "shared with other test binaries")]
#[path = "support/registry.rs"]
mod registry;
#[path = "support/store.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use carpel_images::engine::ImageEngine;
use carpel_images::testing::{Compression, LayerBuilder, TestImage};
use carpel_images::{Store, StoreConfig};
use serde_json::json;
use support::{StoreWorld, config, inside, open_when_free, pull};

const VICTIM: &str = "CARPEL_TEST_STORE";
const REGISTRY: &str = "CARPEL_TEST_REGISTRY";
const IMAGES: usize = 6;
const ROUNDS: u64 = 16;

/// Files that are all there or not at all.
fn image(n: usize) -> TestImage {
    let base = LayerBuilder::new()
        .dir("base", 0o755)
        .file("base/file", b"base")
        .finish();
    let mut own = LayerBuilder::new();
    for file in 0..40 {
        own = own.file(&format!("own/{file}"), format!("{n}").as_bytes());
    }
    let empty = LayerBuilder::new().finish();
    let layers = vec![base, empty, own.finish()];
    TestImage::new(
        &json!({ "Cmd": [n.to_string()] }),
        layers,
        Compression::Gzip,
    )
}

/// Not a test by itself: what the killed process does, without end.
#[tokio::test(flavor = "multi_thread")]
async fn victim() {
    let (Ok(dir), Ok(host)) = (std::env::var(VICTIM), std::env::var(REGISTRY)) else {
        return;
    };
    let store = Store::open(config(Path::new(&dir))).await.unwrap();
    for n in (0..IMAGES).cycle() {
        // One tag for all, and one for each.
        let names = [
            format!("{host}/r/all:{}", n % 2),
            format!("{host}/r/i{n}:1"),
        ];
        let (one, two) = tokio::join!(pull(&store, &names[0]), pull(&store, &names[1]));
        let (id, key) = (one.and(two).unwrap(), format!("k{n}"));
        drop(store.prepare(&id, &key).await.unwrap());
        store
            .release(&format!("k{}", (n + 3) % IMAGES))
            .await
            .unwrap();
        store
            .remove(&format!("{host}/r/i{}:1", (n + 4) % IMAGES))
            .await
            .unwrap();
    }
}

async fn check(dir: PathBuf) {
    let store = open_when_free(&dir).await;
    let mut tags = Vec::new();
    for key in store.prepared().await.unwrap() {
        store.release(&key).await.unwrap();
    }
    for image in store.list().await.unwrap() {
        let rootfs = store.prepare(&image.id, "check").await.unwrap();
        assert_eq!(
            std::fs::read(inside(&rootfs, "base/file")).unwrap(),
            b"base"
        );
        for file in 0..40 {
            let text = std::fs::read_to_string(inside(&rootfs, &format!("own/{file}"))).unwrap();
            assert_eq!(text, image.config.cmd[0]);
        }
        drop(rootfs);
        store.release("check").await.unwrap();
        for tag in image.repo_tags {
            let found = store.status(&tag).await.unwrap().unwrap();
            assert_eq!(found.id, image.id);
            tags.push(tag);
        }
    }
    let all = tags.len();
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), all, "a name of two images");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_time_the_store_is_whole() {
    let world = StoreWorld::new().await;
    let host = world.registries[0].host();
    for n in 0..IMAGES {
        world.put(&world.at(&format!("r/i{n}:1")), &image(n));
    }
    for tag in 0..2 {
        world.put(&world.at(&format!("r/all:{tag}")), &image(tag * 3));
    }
    let dir = tempfile::tempdir().unwrap();
    for round in 0..ROUNDS {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim"])
            .env(VICTIM, dir.path())
            .env(REGISTRY, &host)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(30 + 23 * round)).await;
        assert!(victim.try_wait().unwrap().is_none(), "ended by itself");
        victim.kill().unwrap();
        victim.wait().unwrap();
        check(dir.path().to_owned()).await;
    }
    drop(open_when_free(dir.path()).await);
    let no_grace = StoreConfig {
        orphan_grace: Duration::ZERO,
        ..config(dir.path())
    };
    let store = Store::open(no_grace).await.unwrap();
    let images = store.list().await.unwrap();
    assert!(!images.is_empty(), "nothing was pulled in all rounds");
    for image in images {
        store.remove(&image.id.0).await.unwrap();
    }
    drop(store);
    for part in ["layers", "images", "rootfs"] {
        let left = std::fs::read_dir(dir.path().join("store").join(part))
            .unwrap()
            .count();
        assert_eq!(left, 0, "{part}");
    }
}
