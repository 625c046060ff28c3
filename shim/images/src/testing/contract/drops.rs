//! Calls that nobody waits for any more leave nothing half done.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::testing::TestImage;

use super::{Bench, World, pull};

/// Points at which a call is dropped.
const STEPS: usize = 24;
const PAUSE: Duration = Duration::from_millis(3);

pub(super) async fn run<W: World, F: Future<Output = W>>(make: &impl Fn() -> F) {
    dropped_pulls_leave_all_or_nothing(Bench::new(make).await).await;
    dropped_preparations_can_be_released(Bench::new(make).await).await;
    dropped_removals_end(Bench::new(make).await).await;
}

/// Polls a call some times, with a pause between, and drops it. Whether it ended.
async fn some_polls<T>(call: impl Future<Output = T>, times: usize) -> bool {
    let mut call = pin!(call);
    for _ in 0..times {
        let polled = std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
        if polled.is_ready() {
            return true;
        }
        tokio::time::sleep(PAUSE).await;
    }
    false
}

async fn dropped_pulls_leave_all_or_nothing<W: World>(bench: Bench<W>) {
    let (image, name) = (TestImage::small("dropped"), bench.at("r/dropped:1"));
    bench.publish(&name, &image).await;
    for step in 0..STEPS {
        let ended = some_polls(pull(bench.engine.as_ref(), &name), step).await;
        match bench.status(&name).await {
            Some(status) => assert_eq!(status.repo_tags, std::slice::from_ref(&name)),
            None => assert!(!ended, "a pull that ended left nothing"),
        }
        bench.remove(&name).await;
        if ended {
            break;
        }
    }
    let id = bench.pull(&name).await;
    let rootfs = bench
        .engine
        .prepare(&id, "k")
        .await
        .unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(
        super::rootfs::read(&rootfs, "dropped").as_deref(),
        Some("dropped")
    );
    bench
        .engine
        .release("k")
        .await
        .unwrap_or_else(|e| panic!("{e:?}"));
}

async fn dropped_preparations_can_be_released<W: World>(bench: Bench<W>) {
    let id = bench
        .published(&bench.at("r/p:1"), &TestImage::small("p"))
        .await;
    for step in 0..STEPS {
        let ended = some_polls(bench.engine.prepare(&id, "k"), step).await;
        bench
            .engine
            .release("k")
            .await
            .unwrap_or_else(|e| panic!("{e:?}"));
        assert!(
            bench
                .engine
                .prepared()
                .await
                .is_ok_and(|keys| keys.is_empty())
        );
        let rootfs = bench
            .engine
            .prepare(&id, "k")
            .await
            .unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!(super::rootfs::read(&rootfs, "p").as_deref(), Some("p"));
        drop(rootfs);
        bench
            .engine
            .release("k")
            .await
            .unwrap_or_else(|e| panic!("{e:?}"));
        if ended {
            break;
        }
    }
}

async fn dropped_removals_end<W: World>(bench: Bench<W>) {
    let (image, name) = (TestImage::small("r"), bench.at("r/r:1"));
    for step in 0..STEPS {
        let id = bench.published(&name, &image).await;
        let ended = some_polls(bench.engine.remove(&id.0), step).await;
        bench.remove(&id.0).await;
        assert!(bench.status(&name).await.is_none());
        if ended {
            break;
        }
    }
}
