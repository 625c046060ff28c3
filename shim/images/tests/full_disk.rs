//! Disks of all sizes that are too small: whatever does not fit leaves nothing.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(unreachable_pub, reason = "shared with other test binaries")]
#[path = "support/registry.rs"]
mod registry;
#[path = "support/store.rs"]
mod support;

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use carpel_images::engine::{Error, ImageEngine};
use carpel_images::testing::{Compression, LayerBuilder, TestImage};
use carpel_images::{Store, StoreConfig};
use carpel_sys::mount;
use serde_json::json;
use support::{StoreWorld, config, pull};

fn noise(seed: u32, size: usize) -> Vec<u8> {
    let mut seed = seed;
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    };
    (0..size).map(|_| next()).collect()
}

fn image() -> TestImage {
    let layer = |n: u32| {
        let content = noise(n, 120_000);
        LayerBuilder::new()
            .file(&format!("f{n}"), &content)
            .finish()
    };
    let mark = "m".repeat(30_000);
    let layers = vec![layer(1), layer(2), layer(3)];
    TestImage::new(
        &json!({ "Labels": { "mark": mark } }),
        layers,
        Compression::Gzip,
    )
}

fn count(path: &Path) -> usize {
    std::fs::read_dir(path).unwrap().count()
}

/// What is left but the empty store, once what is deleted is gone.
async fn left(root: &Path) -> Vec<String> {
    let mut left = Vec::new();
    let parts = ["tmp", "ingest", "layers", "images", "blobs/sha256"];
    for _ in 0..250 {
        let names = |part: &&str| {
            let entries = std::fs::read_dir(root.join(part)).unwrap().flatten();
            let part = (*part).to_owned();
            entries.map(move |entry| format!("{part}/{}", entry.file_name().display()))
        };
        left = parts.iter().flat_map(names).collect();
        if left.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    left
}

/// What a message says could not be done, without names and numbers.
fn phase(why: &str) -> &'static str {
    [
        "write blob",
        "entry",
        "make directory",
        "write /proc",
        "make /proc",
        "sync",
    ]
    .into_iter()
    .find(|phase| why.contains(phase))
    .unwrap_or("else")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_leaves_nothing_wherever_it_stops() {
    let world = StoreWorld::new().await;
    let (name, image) = (world.at("r/full:1"), image());
    world.put(&name, &image);
    let mut phases = BTreeSet::new();
    let mut fits = 0;
    for kib in (16..=1024).step_by(24) {
        let disk = mount::tmpfs(Some(kib << 10), 0o755, mount::Flags::NONE).unwrap();
        let root = PathBuf::from(format!("/proc/self/fd/{}/store", disk.as_raw_fd()));
        let own = StoreConfig {
            parallel_layers: 1,
            root: root.clone(),
            ..config(world.dir.path())
        };
        let store = Store::open(own).await.unwrap();
        match pull(&store, &name).await {
            Ok(_) => {
                fits += 1;
                assert_eq!(store.list().await.unwrap().len(), 1);
                assert_eq!(count(&root.join("ingest")), 0);
            }
            Err(Error::Exhausted(why)) => {
                phases.insert(phase(&why));
                assert!(store.list().await.unwrap().is_empty());
                assert_eq!(left(&root).await, [""; 0], "{kib} KiB: {why}");
            }
            Err(other) => panic!("{kib} KiB: {other:?}"),
        }
    }
    assert!(fits > 0 && phases.len() > 1, "{fits} {phases:?}");
}
