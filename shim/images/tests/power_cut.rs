//! The power fails at every moment at which the store believes something to be on the
//! disk, and whatever was not synced by then is lost, or kept, or some of each.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(unreachable_pub, reason = "shared with other test binaries")]
#[path = "support/registry.rs"]
mod registry;
#[path = "support/store.rs"]
mod support;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use carpel_images::engine::ImageEngine;
use carpel_images::testing::{Compression, LayerBuilder, TestImage};
use carpel_images::{Durability, Kernel, Store, StoreConfig};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use support::{StoreWorld, config, inside, pull};

/// A disk that knows what would be left of it after a power cut.
#[derive(Debug)]
struct Disk {
    root: PathBuf,
    /// What is certain to be there: a copy of its own.
    certain: PathBuf,
    /// Where to put what a power cut leaves.
    cuts: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Content of files as they were synced, by inode.
    synced: HashMap<u64, Vec<u8>>,
    cuts: usize,
    seed: u32,
}

fn copy(from: &Path, to: &Path) {
    // What is deleted in the background meanwhile may be missing, and is complained of.
    let mut command = Command::new("cp");
    command
        .args(["-a", "--"])
        .args([from, to])
        .output()
        .unwrap();
    assert!(to.is_dir());
}

/// All regular files below a directory.
fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files(&entry.path(), found);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
}

impl Disk {
    fn new(base: &Path) -> Arc<Self> {
        let disk = Self {
            root: base.join("store"),
            certain: base.join("certain"),
            cuts: base.join("cuts"),
            state: Mutex::default(),
        };
        for dir in [&disk.root, &disk.certain, &disk.cuts] {
            fs::create_dir(dir).unwrap();
        }
        Arc::new(disk)
    }

    /// Ways in which a cut at this moment may end. What is certain changes only `after`
    /// something was synced, and most is uncertain before.
    fn cut(&self, after: bool) {
        let mut state = self.state.lock().unwrap();
        let n = state.cuts;
        state.cuts += 1;
        if after {
            copy(&self.certain, &self.cuts.join(format!("{n}-least")));
        }
        let lossy = if after { ("some", 50) } else { ("all", 100) };
        for (name, losing) in [lossy] {
            let to = self.cuts.join(format!("{n}-{name}"));
            copy(&self.root, &to);
            let mut all = Vec::new();
            files(&self.root, &mut all);
            for path in all {
                let Ok(file) = path.metadata() else { continue };
                let Ok(content) = fs::read(&path) else {
                    continue;
                };
                state.seed = state.seed.wrapping_mul(1_664_525).wrapping_add(12_345);
                let unlucky = (state.seed >> 16) % 100 < losing;
                if state.synced.get(&file.ino()) != Some(&content) && unlucky {
                    let copied = to.join(path.strip_prefix(&self.root).unwrap());
                    let synced = state.synced.get(&file.ino());
                    fs::write(copied, synced.map_or(&[][..], Vec::as_slice)).unwrap();
                }
            }
        }
    }

    fn remember(&self, path: &Path) {
        let mut all = Vec::new();
        files(path, &mut all);
        let mut state = self.state.lock().unwrap();
        for path in all {
            if let (Ok(file), Ok(content)) = (path.metadata(), fs::read(&path)) {
                state.synced.insert(file.ino(), content);
            }
        }
    }
}

impl Durability for Disk {
    fn file(&self, file: &File, path: &Path) -> io::Result<()> {
        self.cut(false);
        Kernel.file(file, path)?;
        let content = fs::read(path)?;
        let inode = file.metadata()?.ino();
        self.state.lock().unwrap().synced.insert(inode, content);
        self.cut(true);
        Ok(())
    }

    /// Its names are certain now. Of what they stand for, only what was synced is.
    fn directory(&self, path: &Path) -> io::Result<()> {
        self.cut(false);
        Kernel.directory(path)?;
        let there = self.certain.join(path.strip_prefix(&self.root).unwrap());
        for entry in fs::read_dir(&there)?.flatten() {
            if !path.join(entry.file_name()).exists() && entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
            }
        }
        let state = self.state.lock().unwrap();
        for entry in fs::read_dir(path)?.flatten() {
            let to = there.join(entry.file_name());
            let file = entry.metadata()?;
            if file.is_dir() {
                fs::create_dir_all(to)?;
            } else {
                let synced = state.synced.get(&file.ino());
                fs::write(to, synced.map_or(&[][..], Vec::as_slice))?;
            }
        }
        drop(state);
        self.cut(true);
        Ok(())
    }

    fn filesystem(&self, path: &Path) -> io::Result<()> {
        self.cut(false);
        Kernel.filesystem(path)?;
        self.remember(&self.root);
        fs::remove_dir_all(&self.certain)?;
        copy(&self.root, &self.certain);
        self.cut(true);
        Ok(())
    }
}

fn layer(mark: &str) -> Vec<u8> {
    (0..6)
        .fold(LayerBuilder::new(), |layer, n| {
            layer.file(&format!("{mark}/{n}"), mark.as_bytes())
        })
        .finish()
}

fn image(marks: &[&str], compression: Compression) -> TestImage {
    let layers = marks.iter().map(|mark| layer(mark)).collect();
    TestImage::new(&json!({ "Env": marks }), layers, compression)
}

/// Every image that is listed is whole: its blobs, its files, and it can be run.
async fn check(dir: &Path, cut: &str) -> usize {
    // Where the store stands after the cut, in another boot.
    fs::write(dir.join("store/boot"), "another boot").unwrap();
    let store = Store::open(config(dir)).await.unwrap();
    let images = store.list().await.unwrap();
    for found in &images {
        let rootfs = store.prepare(&found.id, "c").await.unwrap();
        for mark in &found.config.env {
            for n in 0..6 {
                let content = fs::read_to_string(inside(&rootfs, &format!("{mark}/{n}")));
                assert_eq!(content.unwrap(), *mark, "{cut}: {mark}/{n}");
            }
        }
        drop(rootfs);
        store.release("c").await.unwrap();
        for tag in &found.repo_tags {
            let named = store.status(tag).await.unwrap().unwrap();
            assert_eq!(named.id, found.id, "{cut}: {tag}");
        }
    }
    let blobs = dir.join("store/blobs/sha256");
    for entry in fs::read_dir(blobs).unwrap().flatten() {
        let hash = Sha256::digest(fs::read(entry.path()).unwrap());
        let hex = hash
            .iter()
            .fold(String::new(), |t, b| format!("{t}{b:02x}"));
        assert_eq!(hex, entry.file_name().to_str().unwrap(), "{cut}: a blob");
    }
    images.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_power_cut_leaves_is_whole() {
    let world = StoreWorld::new().await;
    let first = image(&["base", "first"], Compression::Gzip);
    let second = image(&["base", "second"], Compression::Zstd);
    let (tag, other) = (world.at("r/a:1"), world.at("r/b:1"));
    let base = tempfile::tempdir().unwrap();
    let disk = Disk::new(base.path());
    let durability: Arc<dyn Durability> = Arc::clone(&disk) as _;
    let store = Store::open(StoreConfig {
        durability,
        ..config(base.path())
    })
    .await
    .unwrap();
    world.put(&tag, &first);
    let id = pull(&store, &tag).await.unwrap();
    // Blobs that are there already are put in place once more.
    let archive = first.oci_archive(&["h.io/again:1"]);
    store.load(io::Cursor::new(archive), None).await.unwrap();
    world.put(&other, &second);
    pull(&store, &other).await.unwrap();
    // A tag moves, and the image that had it goes.
    world.put(&tag, &second);
    pull(&store, &tag).await.unwrap();
    store.remove(&id.0).await.unwrap();
    drop(store);
    let cuts = disk.state.lock().unwrap().cuts;
    assert!(cuts > 20, "only {cuts}");
    let mut listed = 0;
    for n in 0..cuts {
        for kind in ["least", "all", "some"] {
            let cut = format!("{n}-{kind}");
            if !disk.cuts.join(&cut).exists() {
                continue;
            }
            let dir = tempfile::tempdir_in(&disk.cuts).unwrap();
            fs::rename(disk.cuts.join(&cut), dir.path().join("store")).unwrap();
            listed += check(dir.path(), &cut).await;
        }
    }
    assert!(
        listed > cuts,
        "hardly any image survived: {listed} of {cuts} cuts"
    );
}
