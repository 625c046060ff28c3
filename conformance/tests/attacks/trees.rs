//! Trees so deep that walking them naively costs the node its memory or its time.

use std::time::Instant;

use carpel_conformance::image::Layer;
use carpel_conformance::{Node, spec};

use crate::site::{Growth, Outcome, Pod, busybox, daemon, end, node, pull};

/// Directories in each other, each way to the next part through a link to the one
/// before: deeper than any path can be.
fn deep(parts: usize) -> Layer {
    let steps = "d/".repeat(1990);
    let mut layer = Layer::new().long_directory(&steps);
    let mut way = steps;
    for part in 0..parts {
        let link = format!("l{part}");
        layer = layer.long_symlink(&link, way.trim_end_matches('/'));
        way = format!("{link}/{}", "d/".repeat(1990));
        layer = layer.long_directory(&way);
    }
    layer
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_directories_of_an_image_come_and_go_in_flat_memory() -> Outcome {
    let node = node().await?;
    let growth = Growth::of(daemon(&node)?)?;
    let begin = Instant::now();
    let image = pull(&node, "deep", busybox()?.layer(deep(3))).await?;
    let unpacked = begin.elapsed();
    let pod = Pod::run(&node, spec::pod("deep")).await?;
    let mut config = spec::sleeper("c");
    config.image = Some(spec::image(&image));
    let id = pod.start(&node, &config).await?;
    let depth = node
        .cri()
        .output(&id, &["sh", "-c", "cd -P /l2 && pwd -P | wc -c"])
        .await;
    // Too deep for a path, or a path of tens of thousands of characters.
    if let Ok(text) = depth {
        assert!(text.trim().parse::<usize>()? > 4096, "{text}");
    }
    node.cri().stats(&id).await?;
    node.cri().remove(&id).await?;
    node.cri().remove_image(&image).await?;
    gone(&node).await?;
    let grown = growth.kib()?;
    assert!(grown < 64 << 10, "{grown} KiB; unpacked in {unpacked:?}");
    end(node).await
}

/// Waits until what was removed is off the disk, for a bounded time.
async fn gone(node: &Node) -> Outcome {
    let tmp = node.root().join("images/tmp");
    for _ in 0..1200 {
        if std::fs::read_dir(&tmp)?.next().is_none() {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    anyhow::bail!("{} is not empty after a minute", tmp.display())
}
