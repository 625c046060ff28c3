//! Layers that mean harm, or are just broken: refused by name, and nothing changed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(unreachable_pub, reason = "shared with other test binaries")]
#[path = "support/registry.rs"]
mod registry;
#[path = "support/store.rs"]
mod support;

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use carpel_images::engine::{Error, ImageEngine, Rootfs};
use carpel_images::testing::{Compression, LayerBuilder, TestImage};
use carpel_images::{Limits, Store, StoreConfig};
use carpel_sys::mount;
use serde_json::json;
use support::{StoreWorld, config, inside};
use tar::EntryType;

fn image_of(layers: Vec<Vec<u8>>) -> TestImage {
    TestImage::new(&json!({}), layers, Compression::Gzip)
}

async fn load(world: &StoreWorld, layers: Vec<Vec<u8>>) -> Result<Rootfs, Error> {
    let loaded = world.load(image_of(layers).oci_archive(&[])).await?;
    world.store.release("c").await?;
    world.store.prepare(&loaded[0].id, "c").await
}

/// Loads a layer that must be refused; returns the reason.
async fn refused(layer: LayerBuilder) -> String {
    let world = StoreWorld::new().await;
    let error = load(&world, vec![layer.finish()]).await.unwrap_err();
    let Error::Corrupt { why, .. } = error else {
        panic!("{error:?}")
    };
    assert!(world.store.list().await.unwrap().is_empty());
    assert_eq!(world.count("layers"), 0);
    world.until("tmp is empty", |w| w.count("tmp") == 0).await;
    why
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_climb_are_refused() {
    for name in ["../escape", "a/../../escape", "a/..", "..", "/../escape"] {
        let why = refused(LayerBuilder::new().file(name, b"x")).await;
        assert!(why.contains(name) && why.contains("'..'"), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn absolute_names_are_refused() {
    let name = "/carpel-test-absolute/file";
    let why = refused(LayerBuilder::new().file(name, b"x")).await;
    assert!(why.contains(name) && why.contains("absolute"), "{why}");
    assert!(!Path::new(name).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn links_never_lead_out() {
    let world = StoreWorld::new().await;
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "safe").unwrap();
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).unwrap();
    let target = outside.path().to_str().unwrap();
    let up = format!("../../../../../../..{target}");
    for link in [target, up.as_str()] {
        // The link's target is made inside the layer, as if its root were `/`.
        let layer = LayerBuilder::new()
            .symlink("out", link)
            .dir(target.trim_start_matches('/'), 0o755)
            .entry(EntryType::Regular, "out/victim", "", 0o4777, b"hit")
            .entry(EntryType::Directory, "out/sub", "", 0o777, b"")
            .hardlink("linked", "out/victim");
        let rootfs = load(&world, vec![layer.finish()]).await.unwrap();
        let landed = inside(
            &rootfs,
            &format!("{}/victim", target.trim_start_matches('/')),
        );
        assert_eq!(fs::read(landed).unwrap(), b"hit");
        assert_eq!(fs::read(inside(&rootfs, "linked")).unwrap(), b"hit");
        drop(rootfs);
        world.store.release("c").await.unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"safe");
        assert_eq!(
            victim.metadata().unwrap().permissions().mode() & 0o7777,
            0o600
        );
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }
    // Without it there is nothing to follow to.
    let why = refused(
        LayerBuilder::new()
            .symlink("out", target)
            .file("out/new", b""),
    )
    .await;
    assert!(why.contains("out"), "{why}");
    assert!(!outside.path().join("new").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_the_place_of_an_entry_is_replaced_not_followed() {
    let world = StoreWorld::new().await;
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "safe").unwrap();
    let target = victim.to_str().unwrap();
    let layer = LayerBuilder::new()
        .symlink("file", target)
        .file("file", b"new")
        .symlink("dir", outside.path().to_str().unwrap())
        .dir("dir", 0o777)
        .symlink("pipe", target)
        .entry(EntryType::Fifo, "pipe", "", 0o666, b"");
    let rootfs = load(&world, vec![layer.finish()]).await.unwrap();
    assert_eq!(fs::read(inside(&rootfs, "file")).unwrap(), b"new");
    assert!(
        fs::symlink_metadata(inside(&rootfs, "dir"))
            .unwrap()
            .is_dir()
    );
    assert!(
        fs::symlink_metadata(inside(&rootfs, "pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    assert_eq!(fs::read(&victim).unwrap(), b"safe");
}

#[tokio::test(flavor = "multi_thread")]
async fn hard_links_stay_in_the_layer() {
    for target in [
        "/etc/passwd",
        "../../etc/passwd",
        "nothing",
        "dir",
        "/",
        "gone",
    ] {
        let layer = LayerBuilder::new().dir("dir", 0o755).file(".wh.gone", b"");
        let why = refused(layer.hardlink("stolen", target)).await;
        assert!(why.contains("stolen"), "{why}");
    }
    // Through a link to the host's directory as well.
    let layer = LayerBuilder::new()
        .symlink("etc", "/etc")
        .hardlink("stolen", "etc/passwd");
    assert!(refused(layer).await.contains("stolen"));
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_and_strange_kinds_are_refused() {
    for kind in [
        EntryType::Char,
        EntryType::Block,
        EntryType::GNUSparse,
        EntryType::new(b'V'),
    ] {
        let why = refused(LayerBuilder::new().entry(kind, "dev/sda", "", 0o666, b"")).await;
        assert!(why.contains("dev/sda"), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_entries_are_refused_by_name() {
    let long = "x".repeat(256);
    let deep = "d/".repeat(2100);
    let target = "t".repeat(4096);
    let cases = [
        LayerBuilder::new().file("a", b"").file("a/b", b""),
        LayerBuilder::new()
            .symlink("loop", "loop")
            .file("loop/a", b""),
        LayerBuilder::new().file(&long, b""),
        LayerBuilder::new().dir(&deep, 0o755),
        LayerBuilder::new().symlink("s", &target),
        LayerBuilder::new().file(".wh.", b""),
        LayerBuilder::new().file("a/.wh...", b""),
        LayerBuilder::new().file("./", b""),
        LayerBuilder::new()
            .pax(&[("path", b"nul\0name")])
            .file("x", b""),
        LayerBuilder::new()
            .pax(&[("SCHILY.xattr.user.overlay.redirect", b"/etc")])
            .file("x", b""),
        LayerBuilder::new()
            .pax(&[("uid", b"4294967296")])
            .file("x", b""),
        LayerBuilder::new()
            .pax(&[("uid", b"4294967295")])
            .file("x", b""),
        LayerBuilder::new()
            .pax(&[("GNU.sparse.major", b"1")])
            .file("x", b""),
    ];
    for (n, case) in cases.into_iter().enumerate() {
        let why = refused(case).await;
        assert!(!why.is_empty(), "case {n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_blobs_are_refused() {
    let world = StoreWorld::new().await;
    let layer = LayerBuilder::new().file("a", &[1; 10_000]).finish();
    let good = image_of(vec![layer.clone()]);
    let diff_id = registry::sha256(&layer);
    let blob = &good.layers[0];
    let mut flipped = blob.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    let cases = [
        (
            "truncated",
            diff_id.clone(),
            blob[..blob.len() / 2].to_vec(),
        ),
        ("flipped", diff_id.clone(), flipped),
        (
            "no archive",
            diff_id.clone(),
            b"no archive at all".repeat(100),
        ),
        (
            "other content",
            format!("sha256:{}", "0".repeat(64)),
            blob.clone(),
        ),
        (
            "cut archive",
            registry::sha256(&layer[..1000]),
            layer[..1000].to_vec(),
        ),
        (
            "trailing garbage",
            diff_id,
            [&blob[..], b"garbage"].concat(),
        ),
    ];
    for (what, diff_id, blob) in cases {
        let image = TestImage::raw(&json!({}), &[diff_id], vec![blob], registry::OCI_LAYER);
        let error = world.load(image.oci_archive(&[])).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{what}: {error:?}");
        let name = world.at("r/bad:1");
        world.put(&name, &image);
        let error = world.pull(&name).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{what}: {error:?}");
    }
    let count = TestImage::raw(&json!({}), &[], good.layers.clone(), registry::OCI_LAYER);
    let error = world.load(count.oci_archive(&[])).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    assert!(world.store.list().await.unwrap().is_empty());
    assert_eq!(world.count("layers"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_and_crowds_are_stopped_early() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        bytes: 8 << 20,
        entries: 200,
        ratio: 50,
        ratio_from: 1 << 20,
        ..Limits::default()
    };
    let store = Store::open(StoreConfig {
        limits,
        ..config(dir.path())
    })
    .await
    .unwrap();
    let ratio = LayerBuilder::new()
        .file("zeros", &vec![0; 4 << 20])
        .finish();
    let noise: Vec<u8> = (0..3_000_000u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let size = LayerBuilder::new().file("noise", &noise).finish();
    let mut crowd = LayerBuilder::new();
    for n in 0..201 {
        crowd = crowd.file(&n.to_string(), b"");
    }
    for (what, layer, corrupt) in [
        ("ratio", ratio, true),
        ("size", size, false),
        ("entries", crowd.finish(), false),
    ] {
        let archive = image_of(vec![layer]).oci_archive(&[]);
        let error = store
            .load(std::io::Cursor::new(archive), None)
            .await
            .unwrap_err();
        let right = match corrupt {
            true => matches!(error, Error::Corrupt { .. }),
            false => matches!(error, Error::Exhausted(_)),
        };
        assert!(right, "{what}: {error:?}");
    }
    assert!(store.list().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_exhaustion_and_leaves_no_half_image() {
    let tmpfs = mount::tmpfs(Some(2 << 20), 0o755, mount::Flags::NONE).unwrap();
    let dir = format!("/proc/self/fd/{}/store", tmpfs.as_raw_fd());
    let store = Store::open(StoreConfig::new(dir)).await.unwrap();
    let big = image_of(vec![
        LayerBuilder::new().file("big", &vec![0; 4 << 20]).finish(),
    ]);
    let error = store
        .load(std::io::Cursor::new(big.oci_archive(&[])), None)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Exhausted(_)), "{error:?}");
    assert!(store.list().await.unwrap().is_empty());
    let small = TestImage::small("fits").oci_archive(&[]);
    let mut last = None;
    for _ in 0..100 {
        // What did not fit is deleted in the background.
        match store.load(std::io::Cursor::new(small.clone()), None).await {
            Ok(_) => return,
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn later_entries_win() {
    let world = StoreWorld::new().await;
    let layer = LayerBuilder::new()
        .file("a", b"first")
        .file("a", b"second")
        .dir("d", 0o700)
        .file("d/x", b"x")
        .file("d", b"now a file")
        .file("f", b"f")
        .dir("f", 0o711)
        .file("f/y", b"y")
        .dir("kept", 0o700)
        .file("kept/z", b"z")
        .dir("kept", 0o750)
        .file("self", b"self")
        .hardlink("self", "self");
    let rootfs = load(&world, vec![layer.finish()]).await.unwrap();
    let read = |name: &str| fs::read(inside(&rootfs, name)).unwrap();
    assert_eq!(
        (read("a"), read("d")),
        (b"second".to_vec(), b"now a file".to_vec())
    );
    assert_eq!(
        (read("f/y"), read("kept/z")),
        (b"y".to_vec(), b"z".to_vec())
    );
    assert_eq!(read("self"), b"self");
    let mode = inside(&rootfs, "kept")
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o750);
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_come_through_and_only_those_allowed() {
    let world = StoreWorld::new().await;
    let capability: &[u8] = &[
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let layer = LayerBuilder::new()
        .entry(EntryType::Regular, "su", "", 0o4755, b"#!")
        .pax(&[
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.user.note", b"line\nline"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.security.selinux", b"system_u"),
            ("mtime", b"12.5"),
        ])
        .file("ping", b"")
        .dir("dir", 0o2775)
        .file("dir/inner", b"")
        .symlink("link", "ping")
        .hardlink("su2", "su");
    let rootfs = load(&world, vec![layer.finish()]).await.unwrap();
    let su = inside(&rootfs, "su").metadata().unwrap();
    assert_eq!(
        (su.mode() & 0o7777, su.uid(), su.gid(), su.mtime()),
        (0o4755, 7, 8, 1)
    );
    assert_eq!(su.ino(), inside(&rootfs, "su2").metadata().unwrap().ino());
    let ping = inside(&rootfs, "ping");
    assert_eq!(
        (
            ping.metadata().unwrap().mtime(),
            ping.metadata().unwrap().mtime_nsec()
        ),
        (12, 500_000_000)
    );
    let get = |name: &str| {
        let mut value = vec![0; 64];
        let length = rustix::fs::getxattr(&ping, name, &mut value).ok()?;
        value.truncate(length);
        Some(value)
    };
    assert_eq!(get("security.capability").as_deref(), Some(capability));
    assert_eq!(get("user.note").as_deref(), Some(&b"line\nline"[..]));
    assert_eq!(
        (get("trusted.overlay.redirect"), get("security.selinux")),
        (None, None)
    );
    let dir = inside(&rootfs, "dir").metadata().unwrap();
    assert_eq!((dir.mode() & 0o7777, dir.mtime()), (0o2775, 1));
    let link = fs::symlink_metadata(inside(&rootfs, "link")).unwrap();
    assert_eq!((link.uid(), link.mtime()), (7, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_hide_what_is_below_and_nothing_else() {
    let world = StoreWorld::new().await;
    let base = LayerBuilder::new()
        .file("gone", b"")
        .file("stays", b"base")
        .file("dir/a", b"")
        .file("dir/b", b"")
        .file("opaque/old", b"")
        .file("again/old", b"")
        .file("later/old", b"");
    let top = LayerBuilder::new()
        .file(".wh.gone", b"")
        .file("dir/.wh.a", b"")
        .dir("opaque", 0o755)
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"")
        .file(".wh.again", b"")
        .file("again/new", b"")
        .file("later/new", b"")
        .file(".wh.later", b"")
        .file("both", b"top")
        .file(".wh.both", b"")
        .file(".wh..wh.plnk", b"");
    let rootfs = load(&world, vec![base.finish(), top.finish()])
        .await
        .unwrap();
    let names = |dir: &str| {
        let entries = fs::read_dir(inside(&rootfs, dir)).unwrap();
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        names("."),
        ["again", "both", "dir", "later", "opaque", "stays"]
    );
    assert_eq!(
        (names("dir"), names("opaque")),
        (vec!["b".to_owned()], vec!["new".to_owned()])
    );
    assert_eq!(
        (names("again"), names("later")),
        (vec!["new".to_owned()], vec!["new".to_owned()])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opaque_root_hides_all_below() {
    let world = StoreWorld::new().await;
    let base = LayerBuilder::new().file("old", b"").finish();
    let middle = LayerBuilder::new()
        .file(".wh..wh..opq", b"")
        .file("middle", b"")
        .finish();
    let top = LayerBuilder::new().file("top", b"").finish();
    let rootfs = load(&world, vec![base, middle, top]).await.unwrap();
    assert!(!inside(&rootfs, "old").exists());
    assert!(inside(&rootfs, "middle").exists() && inside(&rootfs, "top").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_trees_come_and_go() {
    let world = StoreWorld::new().await;
    let deep = "d/".repeat(400);
    let layer = LayerBuilder::new().dir(&deep, 0o755).finish();
    let image = image_of(vec![layer]);
    let loaded = world.load(image.oci_archive(&[])).await.unwrap();
    assert_eq!(world.count("layers"), 1);
    world.store.remove(&loaded[0].id.0).await.unwrap();
    assert_eq!(world.count("layers"), 0);
    world.until("tmp is empty", |w| w.count("tmp") == 0).await;
}
