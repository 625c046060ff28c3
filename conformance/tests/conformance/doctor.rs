//! `carpel doctor` on a node that is well, on one that is not, and without a daemon.

use std::process::Command;

use anyhow::Context;
use carpel_conformance::{Node, paths, spec};
use serde_json::Value;

use crate::checks::{Outcome, Pod, node};
use crate::metrics_endpoint::Strays;

/// Exit code and report.
fn doctor(node: &Node) -> anyhow::Result<(i32, Value)> {
    let mut command = Command::new(paths::binary("carpel")?);
    command
        .arg("--socket")
        .arg(node.socket())
        .arg("--admin-socket")
        .arg(node.admin_socket())
        .args(["doctor", "-o", "json", "--config"])
        .arg(node.config())
        .arg("--carpeld")
        .arg(paths::binary("carpeld")?);
    let output = node.command(&mut command)?;
    let report = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((output.status.code().unwrap_or(-1), report))
}

/// Messages of a topic that are not well, with their level.
fn complaints(report: &Value, topic: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let lines = report["lines"].as_array().into_iter().flatten();
    lines
        .filter(|line| line["topic"] == topic && line["level"] != "ok")
        .map(|line| (text(&line["level"]), text(&line["message"])))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_well_has_no_leftovers_and_nothing_that_failed() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("well")).await?;
    pod.start(&node, &spec::sleeper("c")).await?;
    let (code, report) = doctor(&node)?;
    for topic in ["daemon", "leftovers", "network", "kernel"] {
        let failed = complaints(&report, topic);
        assert!(
            failed.iter().all(|(level, _)| level != "failed"),
            "{failed:?}"
        );
    }
    assert_eq!(complaints(&report, "leftovers"), []);
    assert_eq!(complaints(&report, "daemon"), []);
    // What the machine itself lacks decides between these.
    let expected = match (report["failed"].as_u64(), report["warnings"].as_u64()) {
        (Some(1..), _) => 2,
        (_, Some(1..)) => 1,
        _ => 0,
    };
    assert_eq!(code, expected);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_are_named_with_and_without_a_daemon() -> Outcome {
    let node = node().await?;
    let strays = Strays::make(&node)?;
    let names = ["strayrun", "strayroot", "straygroup", "cplstray00"];
    let told = |report: &Value| {
        let all = complaints(report, "leftovers");
        assert_eq!(all.len(), names.len(), "{all:?}");
        for name in names {
            assert!(
                all.iter().any(|(_, message)| message.contains(name)),
                "{name}: {all:?}"
            );
        }
    };
    let (code, report) = doctor(&node)?;
    told(&report);
    assert!(code > 0);
    node.stop()?;
    let (code, report) = doctor(&node)?;
    told(&report);
    assert_eq!(code, 2, "the daemon does not answer");
    let daemon = complaints(&report, "daemon");
    assert!(daemon[0].1.contains("nobody answers"), "{daemon:?}");
    drop(strays);
    node.restart().await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn holders_and_containers_whose_records_are_gone_are_found_and_cleared_away() -> Outcome {
    let node = node().await?;
    let pod = Pod::run(&node, spec::pod("forgotten")).await?;
    let id = pod.start(&node, &spec::sleeper("c")).await?;
    node.stop()?;
    let record = node.root().join("state/pods").join(&pod.id);
    std::fs::remove_dir_all(&record).with_context(|| record.display().to_string())?;
    let (_, report) = doctor(&node)?;
    let all = complaints(&report, "leftovers");
    for kind in [
        "process",
        "namespace",
        "cgroup",
        "address",
        "rootfs",
        "run dir",
    ] {
        let found = all.iter().any(|(_, message)| message.starts_with(kind));
        assert!(found, "no {kind} in {all:#?}");
    }
    assert!(
        all.iter().any(|(_, message)| message.contains(&id)),
        "{all:?}"
    );
    node.restart().await?;
    let (_, report) = doctor(&node)?;
    assert_eq!(complaints(&report, "leftovers"), []);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_the_configuration_is_told_with_its_place() -> Outcome {
    let node = node().await?;
    node.drop_in("50-wrong.toml", "[log]\n\nlevle = \"info\"\n")?;
    let (code, report) = doctor(&node)?;
    let all = complaints(&report, "config");
    let mistake = all
        .iter()
        .find(|(level, _)| level == "failed")
        .context("no failure")?;
    for part in ["50-wrong.toml", "line 3", "levle"] {
        assert!(mistake.1.contains(part), "{part}: {mistake:?}");
    }
    assert_eq!(code, 2);
    std::fs::remove_file(node.config().with_extension("d").join("50-wrong.toml"))?;
    node.finish().await
}
