//! Removal, of all names at once.

use std::future::Future;

use futures_util::future::join_all;

use crate::engine::Error;
use crate::testing::TestImage;

use super::{Bench, World, pull};

pub(super) async fn run<W: World, F: Future<Output = W>>(make: &impl Fn() -> F) {
    removal_takes_all_names(Bench::new(make).await).await;
    removal_of_nothing_succeeds(Bench::new(make).await).await;
    removals_at_once_all_succeed(Bench::new(make).await).await;
    an_image_can_come_back(Bench::new(make).await).await;
    pulls_and_removals_do_not_hurt_each_other(Bench::new(make).await).await;
    shared_layers_stay_for_the_other(Bench::new(make).await).await;
}

async fn removal_takes_all_names<W: World>(bench: Bench<W>) {
    let image = TestImage::small("all");
    let [one, two] = bench.world.hosts();
    let names = [
        format!("{one}/n:1"),
        format!("{one}/n:2"),
        format!("{two}/n:3"),
    ];
    let digest = format!("{one}/n@{}", image.manifest_digest());
    let id = image.id().to_string();
    for by in [&id, &names[0], &digest, &id["sha256:".len()..].to_owned()] {
        for name in &names {
            bench.published(name, &image).await;
        }
        bench.remove(by).await;
        for query in names.iter().chain([&id, &digest]) {
            assert!(
                bench.status(query).await.is_none(),
                "{query} after removal by {by}"
            );
        }
        assert!(bench.ids().await.is_empty());
    }
}

async fn removal_of_nothing_succeeds<W: World>(bench: Bench<W>) {
    bench.remove("not-there").await;
    bench.remove(&format!("sha256:{}", "0".repeat(64))).await;
    let removed = bench.engine.remove("..").await;
    assert!(matches!(removed, Err(Error::Invalid { .. })), "{removed:?}");
}

async fn removals_at_once_all_succeed<W: World>(bench: Bench<W>) {
    let id = bench
        .published(&bench.at("r/once:1"), &TestImage::small("once"))
        .await
        .0;
    let engine = &bench.engine;
    let removals = (0..5).map(|_| async {
        engine.remove(&id).await.unwrap_or_else(|e| panic!("{e:?}"));
        engine.status(&id).await
    });
    for after in join_all(removals).await {
        assert!(matches!(after, Ok(None)), "{after:?}");
    }
}

async fn an_image_can_come_back<W: World>(bench: Bench<W>) {
    let (image, name) = (TestImage::small("back"), bench.at("r/back:1"));
    let id = bench.published(&name, &image).await;
    let before = bench.image(&name).await;
    bench.remove(&id.0).await;
    bench.pull(&name).await;
    assert_eq!(bench.image(&name).await, before);
}

async fn pulls_and_removals_do_not_hurt_each_other<W: World>(bench: Bench<W>) {
    let (image, name) = (TestImage::small("both"), bench.at("r/both:1"));
    let id = bench.published(&name, &image).await.0;
    let engine = &bench.engine;
    let work = (0..6).map(|n| {
        let (name, id) = (&name, &id);
        async move {
            match n % 2 {
                0 => pull(engine.as_ref(), name).await.map(drop),
                _ => engine.remove(id).await,
            }
        }
    });
    for done in join_all(work).await {
        done.unwrap_or_else(|e| panic!("{e:?}"));
    }
    bench.pull(&name).await;
    let rootfs = bench
        .engine
        .prepare(&bench.image(&name).await.id, "after")
        .await;
    drop(rootfs.unwrap_or_else(|e| panic!("{e:?}")));
    bench
        .engine
        .release("after")
        .await
        .unwrap_or_else(|e| panic!("{e:?}"));
}

async fn shared_layers_stay_for_the_other<W: World>(bench: Bench<W>) {
    let one = bench
        .published(&bench.at("r/one:1"), &TestImage::small("one"))
        .await;
    let two = bench
        .published(&bench.at("r/two:1"), &TestImage::small("two"))
        .await;
    bench.remove(&one.0).await;
    let rootfs = bench
        .engine
        .prepare(&two, "two")
        .await
        .unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(
        super::rootfs::read(&rootfs, "etc/base").as_deref(),
        Some("base")
    );
    bench
        .engine
        .release("two")
        .await
        .unwrap_or_else(|e| panic!("{e:?}"));
}
