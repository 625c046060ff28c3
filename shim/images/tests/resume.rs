//! Pulls that were cut, and sources that give wrong bytes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(unreachable_pub, reason = "shared with other test binaries")]
#[path = "support/registry.rs"]
mod registry;
#[path = "support/store.rs"]
mod support;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use carpel_images::engine::{Error, ImageEngine};
use carpel_images::registry::{HostConfig, Mirror, RegistryConfig};
use carpel_images::testing::{Compression, LayerBuilder, TestImage};
use carpel_images::{Store, StoreConfig};
use http::header::RANGE;
use registry::{FakeRegistry, Fault, Guard, TokenService};
use serde_json::json;
use support::{StoreWorld, config, inside, pull};

const SIZE: usize = 600_000;

/// One layer that does not compress, so that its bytes can be counted on.
fn image() -> TestImage {
    let mut seed = 7_u32;
    let mut noise = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    };
    let content: Vec<u8> = (0..SIZE).map(|_| noise()).collect();
    let layer = LayerBuilder::new().file("big", &content).finish();
    TestImage::new(&json!({}), vec![layer], Compression::Plain)
}

fn layer_part(image: &TestImage) -> String {
    format!("blobs/{}", image.blobs().last().unwrap().0)
}

fn ranges(registry: &FakeRegistry, part: &str) -> Vec<Option<String>> {
    let requests = registry.requests_for(part);
    let ranges = requests.iter().map(|r| r.header(RANGE).map(str::to_owned));
    ranges.collect()
}

/// A world with the image served, its name, and the part of a path that is its layer.
async fn world() -> (StoreWorld, TestImage, String, String) {
    let world = StoreWorld::new().await;
    // It does not ask twice, so that a cut is the end of a pull.
    let mut registries = config(world.dir.path()).registries;
    registries.retry.attempts = 1;
    world.store.set_registries(registries).unwrap();
    let image = image();
    let name = world.at("r/big:1");
    world.put(&name, &image);
    let part = layer_part(&image);
    (world, image, name, part)
}

/// Pulls until the registry gives up after `cut` bytes of the layer.
async fn cut_at(world: &StoreWorld, name: &str, part: &str, cut: usize) {
    let registry = &world.registries[0];
    registry.fault(part, Fault::Cut(cut), 1);
    let error = world.pull(name).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert_eq!(world.count("ingest"), 1);
}

async fn check(world: &StoreWorld, name: &str) {
    let id = world.store.status(name).await.unwrap().unwrap().id;
    let rootfs = world.store.prepare(&id, "check").await.unwrap();
    assert_eq!(std::fs::read(inside(&rootfs, "big")).unwrap().len(), SIZE);
    drop(rootfs);
    world.store.release("check").await.unwrap();
    assert_eq!(world.count("ingest"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_goes_on_where_the_last_one_was_cut() {
    for cut in [1, SIZE / 2, SIZE * 99 / 100] {
        let (world, _, name, part) = world().await;
        cut_at(&world, &name, &part, cut).await;
        let kept = std::fs::read_dir(world.root().join("ingest"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        assert_eq!(kept.metadata().unwrap().len(), cut as u64);
        let before = world.registries[0].requests_for(&part).len();
        let world = world.reopen().await;
        world.pull(&name).await.unwrap();
        let asked = ranges(&world.registries[0], &part);
        assert_eq!(asked[before..], [Some(format!("bytes={cut}-"))]);
        check(&world, &name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_a_pull_over_goes_on_where_the_other_was_cancelled() {
    let (world, _, name, part) = world().await;
    let registry = &world.registries[0];
    registry.fault(&part, Fault::Drip(Duration::from_millis(2)), 1);
    let begun = world.until("some of it is here", |world| {
        let kept = std::fs::read_dir(world.root().join("ingest")).unwrap();
        kept.flatten()
            .any(|file| file.metadata().is_ok_and(|file| file.len() > 0))
    });
    tokio::select! {
        pulled = world.pull(&name) => panic!("not slow: {pulled:?}"),
        () = begun => {}
    }
    world.pull(&name).await.unwrap();
    let asked = ranges(registry, &part);
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[1].is_some(), "begun anew: {asked:?}");
    check(&world, &name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_cannot_count_is_asked_for_the_whole() {
    let wrong_range = Fault::Header("content-range", "bytes 0-9/600".to_owned());
    for fault in [
        Fault::IgnoreRange,
        wrong_range,
        Fault::Status(416, Vec::new()),
    ] {
        let (world, _, name, part) = world().await;
        cut_at(&world, &name, &part, SIZE / 2).await;
        world.registries[0].fault(&part, fault.clone(), 1);
        world
            .pull(&name)
            .await
            .unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        check(&world, &name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beginning_that_rotted_is_thrown_away() {
    let (world, image, name, part) = world().await;
    cut_at(&world, &name, &part, SIZE / 2).await;
    let hex = image.blobs().last().unwrap().0.hex().to_owned();
    let path = world.root().join(format!("ingest/sha256-{hex}"));
    let mut bytes = std::fs::read(&path).unwrap();
    // In a file's content, where only the digest shows it; then in a header.
    for at in [2000, 10] {
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        world.pull(&name).await.unwrap();
        check(&world, &name).await;
        world.store.remove(&name).await.unwrap();
    }
    std::fs::write(&path, vec![0; SIZE * 2]).unwrap();
    world.pull(&name).await.unwrap();
    check(&world, &name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_in_mid_layer_is_renewed() {
    let (world, _, name, part) = world().await;
    let patient = config(world.dir.path()).registries;
    world.store.set_registries(patient).unwrap();
    let registry = &world.registries[0];
    registry.guard(Guard::Bearer(TokenService::default()));
    registry.fault(&part, Fault::Cut(SIZE / 2), 1);
    let revoking = async {
        while registry.requests_for(&part).is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        registry.revoke_tokens();
    };
    let (pulled, ()) = tokio::join!(world.pull(&name), revoking);
    pulled.unwrap();
    assert_eq!(registry.requests_for("/token").len(), 2);
    let half = Some(format!("bytes={}-", SIZE / 2));
    assert_eq!(ranges(registry, &part), [None, half.clone(), half]);
    check(&world, &name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beginnings_go_when_their_time_is_over() {
    let (world, _, name, part) = world().await;
    cut_at(&world, &name, &part, SIZE / 2).await;
    let used = world.store.usage().await.unwrap().images[0].used.bytes;
    assert!(used >= (SIZE / 2) as u64, "{used}");
    let path: PathBuf = std::fs::read_dir(world.root().join("ingest"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let world = world.reopen().await;
    assert_eq!(world.count("ingest"), 1, "younger than a day");
    let old = SystemTime::now() - Duration::from_secs(25 * 3600);
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(old).unwrap();
    let world = world.reopen().await;
    assert_eq!(world.count("ingest"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn time_passes_without_any_call() {
    let (world, _, name, part) = world().await;
    let dir = tempfile::tempdir().unwrap();
    let quick = StoreConfig {
        partial_keep: Duration::from_millis(100),
        ..config(dir.path())
    };
    let store = Store::open(quick).await.unwrap();
    let registry = &world.registries[0];
    registry.always(&part, Fault::Cut(1000));
    pull(&store, &name).await.unwrap_err();
    let ingest = dir.path().join("store/ingest");
    for _ in 0..250 {
        if std::fs::read_dir(&ingest).unwrap().count() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("kept for ever");
}

/// A store whose name for the first registry has the second as its mirror.
async fn mirrored(world: &StoreWorld) -> (Store, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut own = config(dir.path());
    let host = HostConfig {
        mirrors: vec![Mirror::new(world.registries[1].url())],
        ..HostConfig::default()
    };
    own.registries = RegistryConfig {
        hosts: [(world.registries[0].host(), host)].into(),
        ..own.registries
    };
    (Store::open(own).await.unwrap(), dir)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_serves_a_corrupt_layer_is_passed_over_in_the_same_pull() {
    let image = image();
    let original = image.layers[0].clone();
    let mut flipped = original.clone();
    flipped[SIZE / 2] ^= 1;
    // Wrong where only the digest tells, wrong where the unpacker stumbles, too long.
    let mut stumbles = original.clone();
    stumbles[0..600].fill(0xff);
    for wrong in [flipped, stumbles] {
        let world = StoreWorld::new().await;
        world.put(&world.at("r/big:1"), &image);
        let mirror = format!("{}/r/big:1", world.registries[1].host());
        world.put(&mirror, &image);
        let part = layer_part(&image);
        world.registries[1].always(&part, Fault::Content(wrong));
        let (store, dir) = mirrored(&world).await;
        pull(&store, &world.at("r/big:1")).await.unwrap();
        assert_eq!(world.registries[1].requests_for(&part).len(), 1);
        assert_eq!(world.registries[0].requests_for(&part).len(), 1);
        let left = std::fs::read_dir(dir.path().join("store/ingest")).unwrap();
        assert_eq!(left.count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_whose_part_is_wrong_does_not_spoil_the_registrys() {
    let image = image();
    let world = StoreWorld::new().await;
    world.put(&world.at("r/big:1"), &image);
    world.put(&format!("{}/r/big:1", world.registries[1].host()), &image);
    let part = layer_part(&image);
    let mut wrong = image.layers[0].clone();
    wrong[5000] ^= 1;
    world.registries[1].always(&part, Fault::Content(wrong));
    world.registries[1].always(&part, Fault::Cut(SIZE / 2));
    let (store, _dir) = mirrored(&world).await;
    pull(&store, &world.at("r/big:1")).await.unwrap();
    let asked = ranges(&world.registries[0], &part);
    assert_eq!(asked.len(), 2, "the rest, and then all: {asked:?}");
    assert!(asked[0].is_some() && asked[1].is_none(), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_everywhere_is_corrupt_and_leaves_nothing() {
    let (world, image, name, part) = world().await;
    let mut wrong = image.layers[0].clone();
    wrong[SIZE / 2] ^= 1;
    cut_at(&world, &name, &part, SIZE / 4).await;
    world.registries[0].always(&part, Fault::Content(wrong));
    let before = world.registries[0].requests_for(&part).len();
    let error = world.pull(&name).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    let asked = world.registries[0].requests_for(&part).len() - before;
    assert_eq!(asked, 2, "with what was kept, and without");
    assert_eq!((world.count("ingest"), world.count("layers")), (0, 0));
}
