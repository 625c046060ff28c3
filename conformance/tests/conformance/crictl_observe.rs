//! What crictl watches: events.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use carpel_conformance::{Node, paths};
use serde_json::Value;

use crate::checks::{Outcome, until};
use crate::crictl::{IMAGE, crictl, start};

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
