//! What crictl watches: events, statistics, metrics.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use carpel_conformance::{Node, paths};
use serde_json::Value;

use crate::checks::{Outcome, until};
use crate::crictl::{IMAGE, crictl, json, start};

/// A crictl that goes on until it is ended, writing to a file.
fn watch(node: &Node, arguments: &[&str], to: &std::path::Path) -> anyhow::Result<Child> {
    let endpoint = format!("unix://{}", node.socket().display());
    let mut command = Command::new(paths::tool("crictl")?);
    command
        .args(["--runtime-endpoint", &endpoint])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(File::create(to)?);
    Ok(node.inside(|| command.spawn())??)
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_told_as_they_happen() -> Outcome {
    let node = Node::with(&[IMAGE]).await?;
    let file = node.folder("events")?.join("out");
    let mut events = watch(&node, &["events"], &file)?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (pod, container) = start(&node, "web")?;
    crictl(&node, &["stop", &container])?;
    crictl(&node, &["rm", &container])?;
    crictl(&node, &["rmp", "-f", &pod])?;
    let told = until("all events are told", || async {
        let text = std::fs::read_to_string(&file)?;
        Ok(text.matches("CONTAINER_DELETED_EVENT").count() == 2)
    })
    .await;
    events.kill()?;
    events.wait()?;
    told?;
    let text = std::fs::read_to_string(&file)?;
    let events = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    let mut kinds = Vec::new();
    for event in events {
        let event = event?;
        if event["containerId"] == Value::String(container.clone()) {
            assert_eq!(
                event["podSandboxStatus"]["metadata"]["name"], "web",
                "{event}"
            );
            kinds.push(
                event["containerEventType"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
            );
        }
    }
    let expected = ["CREATED", "STARTED", "STOPPED", "DELETED"];
    assert_eq!(
        kinds,
        expected.map(|kind| format!("CONTAINER_{kind}_EVENT"))
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_of_containers_and_pods_are_shown() -> Outcome {
    let node = Node::with(&[IMAGE]).await?;
    let (web_pod, web) = start(&node, "web")?;
    let (db_pod, db) = start(&node, "db")?;
    for (command, ours, other, label) in [
        ("stats", &web, &db, "part=web"),
        ("statsp", &web_pod, &db_pod, "app=web"),
    ] {
        let all = crictl(&node, &[command])?;
        assert!(
            all.contains(&ours[..13]) && all.contains(&other[..13]),
            "{command}: {all}"
        );
        for filter in [&["--id", ours][..], &["--label", label], &[&ours[..13]]] {
            let some = crictl(&node, &[&[command], filter].concat())?;
            assert!(some.contains(&ours[..13]), "{command} {filter:?}: {some}");
            assert!(!some.contains(&other[..13]), "{command} {filter:?}: {some}");
        }
        let told = json(&node, &[command, "-o", "json", "--id", ours])?;
        let first = &told["stats"][0];
        assert_eq!(
            first["attributes"]["id"],
            Value::String(ours.clone()),
            "{told}"
        );
        let yaml = crictl(&node, &[command, "-o", "yaml", "--id", ours])?;
        assert!(yaml.contains(ours.as_str()), "{yaml}");
    }
    let of_pod = crictl(&node, &["stats", "--pod", &web_pod])?;
    assert!(
        of_pod.contains(&web[..13]) && !of_pod.contains(&db[..13]),
        "{of_pod}"
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_described_and_told() -> Outcome {
    let node = Node::with(&[IMAGE]).await?;
    let (pod, _) = start(&node, "web")?;
    let described = json(&node, &["metricdescs"])?;
    let described = described["descriptors"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    assert!(!described.is_empty());
    let told = json(&node, &["metricsp"])?;
    let of_pod = told["podMetrics"].as_array().cloned().unwrap_or_default();
    let of_pod = of_pod
        .iter()
        .find(|one| one["podSandboxId"] == Value::String(pod.clone()));
    assert!(of_pod.is_some(), "{told}");
    assert!(crictl(&node, &["metricsp", "-o", "yaml"])?.contains(&pod));
    node.finish().await
}
