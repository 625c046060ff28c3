//! Logs: a container that can write where they lie chooses neither which file grows
//! nor that the daemon waits.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use carpel_conformance::image::Layer;
use carpel_conformance::{Node, parse_log, spec};
use tonic::Code;

use crate::site::{
    Growth, Outcome, Pod, Target, armed, assert_refused, bind, busybox, daemon, end, node, pull,
};

/// A call that must come back soon, whatever it says.
async fn soon<T>(what: &str, call: impl Future<Output = T>) -> anyhow::Result<T> {
    let answer = tokio::time::timeout(Duration::from_secs(10), call).await;
    answer.with_context(|| format!("{what} hangs"))
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2025_0750_log_paths_do_not_leave_their_folder() -> Outcome {
    let node = node().await?;
    let target = Target::new(&node)?;
    let logs = node.folder("logs")?;
    let pod = Pod::run(&node, spec::logging_pod("paths", &logs)).await?;
    let up = format!("../outside/{}", "victim");
    for path in [&up, "..", "a/../../b", "/etc/x", "a\nb", "a\0b", "a/"] {
        let mut config = spec::sleeper("c");
        path.clone_into(&mut config.log_path);
        let result = pod.start(&node, &config).await;
        assert_refused(result, &[Code::InvalidArgument], &["log_path"]);
    }
    for directory in ["relative", "/var/log/../../etc", "/var/log/x\ny", "/a\0b"] {
        let mut config = spec::pod("directory");
        directory.clone_into(&mut config.log_directory);
        let result = node.cri().run_pod(&config).await;
        assert_refused(result, &[Code::InvalidArgument], &["log_directory"]);
    }
    // A container makes links where logs of others are to be.
    let mut config = spec::shell(
        "links",
        &format!(
            "ln -s {0}/victim /logs/b.log; ln -s {0} /logs/sub; ln -s {0}/new /logs/new.log; \
             ln -s /etc /logs/up; exec sleep 1000",
            target.text()
        ),
    );
    config.mounts = vec![bind(&logs, "/logs")];
    pod.start(&node, &config).await?;
    crate::site::wait_for(&logs.join("up")).await?;
    for path in [
        "b.log",
        "new.log",
        "sub/victim",
        "sub/x.log",
        "sub/deep/x.log",
        "up/passwd",
    ] {
        let mut config = spec::sleeper("c");
        path.clone_into(&mut config.log_path);
        let result = soon(path, pod.start(&node, &config)).await?;
        assert_refused(
            result,
            &[Code::Internal, Code::FailedPrecondition],
            &["log"],
        );
        target.unharmed()?;
    }
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fifo_or_device_in_the_place_of_a_log_is_not_waited_for() -> Outcome {
    let node = node().await?;
    let logs = node.folder("logs")?;
    let pod = Pod::run(&node, spec::logging_pod("special", &logs)).await?;
    let victim = pod.start(&node, &spec::sleeper("victim")).await?;
    let script = "cd /logs; mkfifo a.log b.log; mknod c.log c 1 5; rm victim.log; \
                  mkfifo victim.log; mkdir d.log; touch made; exec 3<>b.log; exec sleep 1000";
    let mut config = spec::shell("attacker", script);
    config.mounts = vec![bind(&logs, "/logs")];
    pod.start(&node, &config).await?;
    crate::site::wait_for(&logs.join("made")).await?;
    for name in ["a", "b", "c", "d"] {
        let result = soon(name, pod.start(&node, &spec::sleeper(name))).await?;
        assert_refused(
            result,
            &[Code::Internal, Code::FailedPrecondition],
            &["log"],
        );
    }
    let reopened = soon("reopen", node.cri().reopen_log(&victim)).await?;
    assert!(reopened.is_err());
    // It goes on, and so does its log when the place is free again.
    node.cri().output(&victim, &["true"]).await?;
    std::fs::remove_file(logs.join("victim.log"))?;
    node.cri().reopen_log(&victim).await?;
    assert!(logs.join("victim.log").is_file());
    end(node).await
}

/// Ids of the processes that hold pods.
fn holders(node: &Node) -> anyhow::Result<Vec<u32>> {
    let processes = node.snapshot()?.processes;
    let ours = processes
        .iter()
        .filter(|line| line.contains("carpel-holder"));
    Ok(ours
        .filter_map(|line| line.split(' ').next()?.parse().ok())
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2019_14891_a_flood_without_newline_fills_no_memory() -> Outcome {
    let node = node().await?;
    let image = pull(&node, "flood", busybox()?.layer(armed()?)).await?;
    let logs = node.folder("logs")?;
    let pod = Pod::run(&node, spec::logging_pod("flood", &logs)).await?;
    let growth = Growth::of(daemon(&node)?)?;
    let holders: Vec<Growth> = holders(&node)?
        .into_iter()
        .map(Growth::of)
        .collect::<Result<_, _>>()?;
    assert!(!holders.is_empty());
    let bytes = 48 << 20;
    let mut config = spec::container("flood", &image, &["/attack", "flood", &bytes.to_string()]);
    // Who supervises it is not among those that its limit is for.
    spec::resources(&mut config).memory_limit_in_bytes = 16 << 20;
    let id = pod.start(&node, &config).await?;
    let status = node.cri().wait_exit(&id).await?;
    assert_eq!(status.exit_code, 0, "{status:?}");
    let log = std::fs::read_to_string(logs.join("flood.log"))?;
    let lines = parse_log(&log)?;
    assert!(lines.iter().all(|line| line.text.len() <= 16 << 10));
    assert_eq!(
        lines.iter().map(|line| line.text.len()).sum::<usize>(),
        bytes
    );
    for (what, growth) in
        std::iter::once(("daemon", &growth)).chain(holders.iter().map(|growth| ("holder", growth)))
    {
        let grown = growth.kib()?;
        assert!(grown < 16 << 10, "{what} grew by {grown} KiB");
    }
    // Killed for its memory, it is still supervised.
    let mut config = spec::container("eater", &image, &["sh", "-c", "tail /dev/zero"]);
    spec::resources(&mut config).memory_limit_in_bytes = 16 << 20;
    let id = pod.start(&node, &config).await?;
    assert_eq!(node.cri().wait_exit(&id).await?.exit_code, 137);
    let id = pod.start(&node, &spec::sleeper("beside")).await?;
    node.cri().output(&id, &["true"]).await?;
    end(node).await
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_a_layer_stay_one_line_in_the_daemons_log() -> Outcome {
    let node = node().await?;
    let fake = "x\n2026-01-01T00:00:00Z ERROR carpeld: all is lost";
    for layer in [
        Layer::new()
            .pax(&[("path", fake.as_bytes())])
            .entry(b'3', "x", "", 0o644, &[]),
        Layer::new().entry(b'1', "y", &format!("../{fake}"), 0o644, &[]),
    ] {
        let result = pull(&node, "lines", busybox()?.layer(layer)).await;
        assert!(result.is_err());
    }
    let log = node.log()?;
    assert!(
        !log.lines()
            .any(|line| line.starts_with("2026-01-01T00:00:00Z"))
    );
    assert!(Path::new("/etc/passwd").exists());
    end(node).await
}
