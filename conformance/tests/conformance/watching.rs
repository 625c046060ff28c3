//! `carpel stats` and `carpel events` beside a daemon at work.

use std::process::{Command, Stdio};

use anyhow::Context;
use carpel_conformance::{Node, paths, spec, text_of};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::checks::{Outcome, Pod, node};

fn carpel(node: &Node, arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(paths::binary("carpel")?);
    command.arg("--socket").arg(node.socket()).args(arguments);
    Ok(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_show_pods_with_their_containers() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("busy")).await?;
    let config = spec::shell(
        "loop",
        "head -c 100000 /dev/zero > /root/f; while :; do :; done",
    );
    pod.start(&node, &config).await?;
    let told = text_of(&node.command(&mut carpel(&node, &["stats", "-A", "-o", "json"])?)?)?;
    let rows: Vec<Value> = serde_json::from_str(&told)?;
    assert_eq!(rows.len(), 2, "{told}");
    assert_eq!(
        (&rows[0]["pod"], &rows[1]["container"]),
        (&"busy".into(), &"loop".into())
    );
    for key in ["cpuNanoCores", "workingSetBytes"] {
        assert!(
            rows.iter()
                .all(|row| row[key].as_u64().is_some_and(|n| n > 0)),
            "{key}: {told}"
        );
    }
    assert!(rows[1]["writableBytes"].as_u64().is_some(), "{told}");
    let table = text_of(&node.command(&mut carpel(&node, &["stats", "busy", "--pods-only"])?)?)?;
    assert_eq!(table.lines().count(), 2, "{table}");
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_as_they_happen_until_they_are_no_longer_wanted() -> Outcome {
    let node = node().await?;
    let wanted = [
        "events", "-o", "json", "-c", "c", "-t", "started", "-t", "stopped", "--count", "2",
    ];
    let mut counted = carpel(&node, &wanted)?.stdout(Stdio::piped()).spawn()?;
    let until = carpel(&node, &["events"])?.stdout(Stdio::piped()).spawn()?;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let pod = Pod::run(&node, spec::pod("watched")).await?;
    let id = pod.start(&node, &spec::shell("c", "exit 3")).await?;
    node.cri().wait_exit(&id).await?;
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while counted.try_wait()?.is_none() {
        if std::time::Instant::now() > end {
            counted.kill()?;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let told = text_of(&counted.wait_with_output()?)?;
    let events: Vec<Value> = told
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let kinds: Vec<_> = events
        .iter()
        .filter_map(|event| event["kind"].as_str())
        .collect();
    assert_eq!(kinds, ["started", "stopped"], "{told}");
    assert_eq!(
        (&events[1]["exitCode"], &events[1]["pod"]),
        (&3.into(), &"watched".into())
    );

    kill(Pid::from_raw(i32::try_from(until.id())?), Signal::SIGINT).context("end it")?;
    let table = text_of(&until.wait_with_output()?).context("after Ctrl-C")?;
    assert!(
        table.starts_with("TIME") && table.contains("default/watched"),
        "{table}"
    );
    node.finish().await
}
