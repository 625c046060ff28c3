//! Output of commands, and commands that will not end.

use carpel_conformance::spec;
use tonic::Code;

use crate::site::{Growth, Outcome, Pod, assert_refused, daemon, end, memory, node};

/// What a stream may keep, and as much again for its growth.
const MOST: u64 = 32 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn cve_2022_1708_and_31030_endless_output_of_a_command_is_cut() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("endless")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    let growth = Growth::of(daemon(&node)?)?;
    let result = node.cri().exec(&id, &["sh", "-c", "yes"], 4).await;
    assert_refused(result, &[Code::DeadlineExceeded], &[]);
    let grown = growth.kib()?;
    assert!(grown < MOST, "{grown} KiB for one stream");

    let reply = node
        .cri()
        .exec(&id, &["sh", "-c", "yes | head -c 100000000"], 60)
        .await?;
    assert!(reply.stdout.len() <= 16 << 20, "{}", reply.stdout.len());
    assert_eq!(reply.exit_code, 0);
    drop(reply);
    // What it took is given back, soon after.
    let before = memory(daemon(&node)?, "VmRSS")?;
    for _ in 0..6 {
        let script = "yes | head -c 20000000; yes | head -c 20000000 >&2";
        node.cri().exec(&id, &["sh", "-c", script], 60).await?;
    }
    let mut after = u64::MAX;
    for _ in 0..50 {
        after = memory(daemon(&node)?, "VmRSS")?;
        if after < before + 2 * MOST {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert!(after < before + 2 * MOST, "{before} KiB, then {after} KiB");
    let left = node.cri().exec(&id, &["pgrep", "yes"], 10).await?;
    assert!(left.stdout.is_empty(), "{left:?}");
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_leaves_behind_ends_with_it_or_with_its_container() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("left")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    // Both streams stay open in another session, so that nobody would ever see an end.
    let script = "setsid sh -c 'while :; do echo x; sleep 1; done' & echo begun";
    let reply = node.cri().exec(&id, &["sh", "-c", script], 10).await?;
    assert!(
        reply.stdout.starts_with(b"begun") || reply.stdout.starts_with(b"x"),
        "{reply:?}"
    );
    node.cri().stop(&id, 1).await?;
    node.cri().remove(&id).await?;
    end(node).await
}
