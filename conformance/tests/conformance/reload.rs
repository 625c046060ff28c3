//! SIGHUP, and what a configuration file may change while the daemon runs.

use std::process::Command;

use carpel_conformance::{Node, paths, spec};
use nix::sys::signal::Signal;

use crate::checks::{Outcome, Pod, node, until};

async fn logged(node: &Node, text: &str, times: usize) -> Outcome {
    until(&format!("the log has {text:?}"), || async {
        Ok(node.log()?.matches(text).count() >= times)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_level_changes_without_a_restart() -> Outcome {
    let node = node().await?;
    let pid = node.daemon_pid();
    node.drop_in("10.toml", "[log]\nlevel = \"error\"\n")?;
    node.signal(Signal::SIGHUP)?;
    // The word of success comes under the old level or not at all: ask the daemon.
    until("the level is in force", || async {
        dump(&node).map(|toml| toml.contains("level = \"error\""))
    })
    .await?;
    let before = node.log()?.len();
    Pod::run(&node, spec::pod("quiet")).await?;
    assert!(!node.log()?[before..].contains("pod is ready"));
    node.drop_in("10.toml", "[log]\nlevel = \"info\"\n")?;
    node.signal(Signal::SIGHUP)?;
    until("the level is in force", || async {
        dump(&node).map(|toml| toml.contains("level = \"info\""))
    })
    .await?;
    Pod::run(&node, spec::pod("told")).await?;
    logged(&node, "pod is ready", 1).await?;
    assert_eq!(node.daemon_pid(), pid);
    node.finish().await
}

/// The configuration in force, by the command line.
fn dump(node: &Node) -> anyhow::Result<String> {
    let mut command = Command::new(paths::binary("carpel")?);
    command
        .arg("--admin-socket")
        .arg(node.admin_socket())
        .arg("config");
    carpel_conformance::text_of(&node.command(&mut command)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_can_be_added_and_taken_away() -> Outcome {
    let node = node().await?;
    let image = "later.example/busybox:latest";
    assert!(node.cri().pull(image).await.is_err());
    let name = spec::BUSYBOX
        .split_once('/')
        .map_or(spec::BUSYBOX, |(host, _)| host);
    let host = node.registry().host();
    let mirror = format!("[registries.\"later.example\"]\nmirrors = [\"http://{host}\"]\n");
    node.drop_in("20-later.toml", &mirror)?;
    node.signal(Signal::SIGHUP)?;
    logged(&node, "configuration reloaded", 1).await?;
    assert!(dump(&node)?.contains("later.example"), "{name}");
    let image = spec::BUSYBOX.replacen(name, "later.example", 1);
    node.cri().pull(&image).await?;
    node.drop_in("20-later.toml", "")?;
    node.signal(Signal::SIGHUP)?;
    logged(&node, "configuration reloaded", 2).await?;
    assert!(node.cri().pull(&image).await.is_err());
    node.rebase()?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_file_leaves_the_old_configuration_in_force() -> Outcome {
    let node = node().await?;
    let before = dump(&node)?;
    let wrong = node.drop_in(
        "30-wrong.toml",
        "[registries.\"x.example\"]\n\nmirors = []\n",
    )?;
    node.signal(Signal::SIGHUP)?;
    logged(&node, "the old configuration stays in force", 1).await?;
    let log = node.log()?;
    let line = log
        .lines()
        .find(|line| line.contains("stays in force"))
        .unwrap_or_default();
    for part in ["30-wrong.toml", "line 3", "mirors"] {
        assert!(log.contains(part), "no {part} in {line}");
    }
    assert_eq!(dump(&node)?, before);
    std::fs::remove_file(wrong)?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_need_a_restart_are_named_and_left() -> Outcome {
    let node = node().await?;
    let before = dump(&node)?;
    node.drop_in(
        "40.toml",
        "[network.bridge]\nmtu = 1300\n[images]\nparallel_layers = 7\n",
    )?;
    node.signal(Signal::SIGHUP)?;
    logged(&node, "these keys need a restart", 1).await?;
    let log = node.log()?;
    assert!(log.contains("network.bridge.mtu") && log.contains("images.parallel_layers"));
    assert_eq!(dump(&node)?, before);
    node.drop_in("40.toml", "")?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_reloads_ends_with_the_last_valid_file() -> Outcome {
    let node = node().await?;
    for round in 0..100 {
        let text = match round {
            50 => "[log\n".to_owned(),
            round => format!("[registries.\"r{round}.example\"]\ninsecure = true\n"),
        };
        node.drop_in("50-burst.toml", &text)?;
        node.signal(Signal::SIGHUP)?;
    }
    until("the last one is in force", || async {
        dump(&node).map(|toml| toml.contains("r99.example"))
    })
    .await?;
    assert!(!dump(&node)?.contains("r98.example"));
    node.drop_in("50-burst.toml", "[log\n")?;
    let told = node.log()?.matches("stays in force").count();
    node.signal(Signal::SIGHUP)?;
    logged(&node, "stays in force", told + 1).await?;
    assert!(dump(&node)?.contains("r99.example"));
    Pod::run(&node, spec::pod("after")).await?;
    node.drop_in("50-burst.toml", "")?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn check_config_reads_drop_ins_and_tells_where_keys_stand() -> Outcome {
    let node = node().await?;
    node.drop_in("60.toml", "[images]\nparallel_layers = 2\n")?;
    let daemon = paths::binary("carpeld")?;
    for how in ["check-config", "--check-config"] {
        let mut command = Command::new(&daemon);
        command.arg("--config").arg(node.config()).arg(how);
        let told = carpel_conformance::text_of(&node.command(&mut command)?)?;
        assert!(told.contains("configuration is valid"), "{told}");
        assert!(
            told.contains("images.parallel_layers = 2  # ") && told.contains("60.toml:2"),
            "{told}"
        );
    }
    node.drop_in("60.toml", "[network.bridge]\nmtu = 7\n")?;
    let mut command = Command::new(&daemon);
    command
        .arg("--config")
        .arg(node.config())
        .arg("--check-config");
    let output = node.command(&mut command)?;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        told.contains("60.toml:2") && told.contains("network.bridge.mtu"),
        "{told}"
    );
    node.drop_in("60.toml", "")?;
    node.finish().await
}
