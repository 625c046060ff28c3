//! Root filesystems: prepared, used, released.

use std::future::Future;
use std::os::fd::AsRawFd;

use crate::engine::{Error, ImageId, Rootfs};
use crate::testing::TestImage;

use super::{Bench, World};

pub(super) async fn run<W: World, F: Future<Output = W>>(make: &impl Fn() -> F) {
    a_rootfs_has_the_image_and_takes_writes(Bench::new(make).await).await;
    the_same_key_gives_the_same_files(Bench::new(make).await).await;
    keys_do_not_see_each_other(Bench::new(make).await).await;
    a_removed_image_stays_for_its_containers(Bench::new(make).await).await;
    keys_are_listed_until_released(Bench::new(make).await).await;
    bad_requests_are_refused(Bench::new(make).await).await;
    usage_is_told(Bench::new(make).await).await;
}

fn path(rootfs: &Rootfs, name: &str) -> String {
    format!("/proc/self/fd/{}/{name}", rootfs.mount.as_raw_fd())
}

pub(super) fn read(rootfs: &Rootfs, name: &str) -> Option<String> {
    std::fs::read_to_string(path(rootfs, name)).ok()
}

fn write(rootfs: &Rootfs, name: &str, text: &str) {
    std::fs::write(path(rootfs, name), text).unwrap_or_else(|e| panic!("write {name}: {e}"));
}

impl<W: World> Bench<W> {
    async fn prepare(&self, image: &ImageId, key: &str) -> Rootfs {
        let rootfs = self.engine.prepare(image, key).await;
        rootfs.unwrap_or_else(|e| panic!("prepare {key}: {e:?}"))
    }

    async fn release(&self, key: &str) {
        self.engine
            .release(key)
            .await
            .unwrap_or_else(|e| panic!("release {key}: {e:?}"));
    }

    async fn small(&self, name: &str) -> ImageId {
        self.published(&self.at(&format!("r/{name}:1")), &TestImage::small(name))
            .await
    }
}

async fn a_rootfs_has_the_image_and_takes_writes<W: World>(bench: Bench<W>) {
    let id = bench.small("file").await;
    let rootfs = bench.prepare(&id, "c1").await;
    assert_eq!(rootfs.image, bench.image(&id.0).await);
    assert_eq!(read(&rootfs, "file").as_deref(), Some("file"));
    assert_eq!(read(&rootfs, "etc/base").as_deref(), Some("base"));
    write(&rootfs, "etc/base", "changed");
    write(&rootfs, "new", "new");
    assert_eq!(read(&rootfs, "etc/base").as_deref(), Some("changed"));
    assert_eq!(read(&rootfs, "new").as_deref(), Some("new"));
    bench.release("c1").await;
}

async fn the_same_key_gives_the_same_files<W: World>(bench: Bench<W>) {
    let id = bench.small("again").await;
    let first = bench.prepare(&id, "c1").await;
    write(&first, "written", "once");
    drop(first);
    let second = bench.prepare(&id, "c1").await;
    assert_eq!(read(&second, "written").as_deref(), Some("once"));
    drop(second);
    bench.release("c1").await;
    let third = bench.prepare(&id, "c1").await;
    assert_eq!(
        read(&third, "written"),
        None,
        "release deletes what was written"
    );
    bench.release("c1").await;
}

async fn keys_do_not_see_each_other<W: World>(bench: Bench<W>) {
    let id = bench.small("apart").await;
    let one = bench.prepare(&id, "one").await;
    let two = bench.prepare(&id, "two").await;
    write(&one, "etc/base", "one");
    assert_eq!(read(&two, "etc/base").as_deref(), Some("base"));
    for key in ["one", "two"] {
        bench.release(key).await;
    }
}

async fn a_removed_image_stays_for_its_containers<W: World>(bench: Bench<W>) {
    let id = bench.small("used").await;
    let rootfs = bench.prepare(&id, "user").await;
    bench.remove(&id.0).await;
    assert!(bench.status(&id.0).await.is_none());
    assert_eq!(read(&rootfs, "used").as_deref(), Some("used"));
    drop(rootfs);
    let again = bench.prepare(&id, "user").await;
    assert_eq!(read(&again, "used").as_deref(), Some("used"));
    assert_eq!(again.image.id, id);
    let other = bench.engine.prepare(&id, "other").await;
    assert!(matches!(other, Err(Error::NotFound(_))), "{other:?}");
    drop(again);
    bench.release("user").await;
    let gone = bench.engine.prepare(&id, "user").await;
    assert!(matches!(gone, Err(Error::NotFound(_))), "{gone:?}");
}

async fn keys_are_listed_until_released<W: World>(bench: Bench<W>) {
    let id = bench.small("listed").await;
    for key in ["b", "a"] {
        drop(bench.prepare(&id, key).await);
    }
    let mut keys = bench.engine.prepared().await.unwrap_or_default();
    keys.sort();
    assert_eq!(keys, ["a", "b"]);
    for key in ["a", "a", "b", "never"] {
        bench.release(key).await;
    }
    assert!(
        bench
            .engine
            .prepared()
            .await
            .is_ok_and(|keys| keys.is_empty())
    );
}

async fn bad_requests_are_refused<W: World>(bench: Bench<W>) {
    let (id, other) = (bench.small("good").await, bench.small("other").await);
    for key in ["", "..", "a/b", ".a", "a\0b"] {
        let prepared = bench.engine.prepare(&id, key).await;
        assert!(
            matches!(prepared, Err(Error::Invalid { .. })),
            "{key:?}: {prepared:?}"
        );
        let released = bench.engine.release(key).await;
        assert!(
            matches!(released, Err(Error::Invalid { .. })),
            "{key:?}: {released:?}"
        );
    }
    for (image, kind) in [
        ("good", false),
        ("sha256:../x", false),
        (&"0".repeat(64), false),
    ] {
        let prepared = bench.engine.prepare(&ImageId(image.to_owned()), "k").await;
        assert!(
            matches!(prepared, Err(Error::Invalid { .. })) != kind,
            "{image}: {prepared:?}"
        );
    }
    let unknown = ImageId(format!("sha256:{}", "0".repeat(64)));
    let prepared = bench.engine.prepare(&unknown, "k").await;
    assert!(matches!(prepared, Err(Error::NotFound(_))), "{prepared:?}");
    drop(bench.prepare(&id, "k").await);
    let taken = bench.engine.prepare(&other, "k").await;
    assert!(matches!(taken, Err(Error::Invalid { .. })), "{taken:?}");
    bench.release("k").await;
}

async fn usage_is_told<W: World>(bench: Bench<W>) {
    let id = bench.small("sized").await;
    let key = bench.engine.writable_usage("k").await;
    assert!(matches!(key, Err(Error::NotFound(_))), "{key:?}");
    let rootfs = bench.prepare(&id, "k").await;
    write(&rootfs, "some", "text");
    let written = bench.engine.writable_usage("k").await.unwrap_or_default();
    assert!(written.inodes > 0);
    let usage = bench.engine.usage().await.unwrap_or_default();
    for all in [&usage.images, &usage.containers] {
        assert!(
            !all.is_empty() && all.iter().all(|fs| fs.path.is_dir()),
            "{usage:?}"
        );
    }
    assert!(
        usage
            .images
            .iter()
            .any(|fs| fs.used.bytes > 0 && fs.used.inodes > 0)
    );
    bench.release("k").await;
}
