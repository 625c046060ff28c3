//! `carpel events`

use std::pin::pin;

use carpel_proto::cri;
use serde::Serialize;
use tokio::time::sleep;

use crate::args::{Events, Listing};
use crate::client::Session;
use crate::error::{CliError, Doing, Result};
use crate::resolve::short;
use crate::{out, time};

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    time: String,
    kind: &'static str,
    namespace: String,
    pod: String,
    pod_id: String,
    /// Empty when the event is about the pod.
    #[serde(skip_serializing_if = "String::is_empty")]
    container: String,
    container_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
}

/// Prints what happens until Ctrl-C, or as much as was asked for.
pub(super) async fn run(session: &Session, args: &Events) -> Result<()> {
    // Without a time limit: the stream is meant to last.
    let mut runtime = session.runtime();
    let stream = runtime.get_container_events(cri::GetEventsRequest {}).await;
    let mut stream = stream.doing("follow events")?;
    let mut end = pin!(async {
        match args.duration {
            Some(duration) => sleep(duration).await,
            None => std::future::pending().await,
        }
    });
    let mut left = args.count.unwrap_or(u64::MAX);
    if args.output == Listing::Table {
        out::line(line(
            ["TIME", "EVENT", "POD", "CONTAINER", "ID", "EXIT CODE"].map(str::to_owned),
        ))?;
    }
    while left > 0 {
        let message = tokio::select! {
            message = stream.message() => message,
            () = &mut end => return Ok(()),
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let message = message.map(tonic::Response::new).doing("follow events")?;
        let Some(message) = message else {
            return Err(CliError::refused("the runtime ended the stream of events"));
        };
        let event = event(&message);
        if wanted(args, &event) {
            print(args, &event)?;
            left -= 1;
        }
    }
    Ok(())
}

fn print(args: &Events, event: &Event) -> Result<()> {
    match args.output {
        Listing::Json => {
            let text = serde_json::to_string(event);
            out::line(text.map_err(|error| CliError::refused(format!("write JSON: {error}")))?)
        }
        Listing::Table => out::line(line([
            event.time.clone(),
            event.kind.to_owned(),
            format!("{}/{}", event.namespace, event.pod),
            if event.container.is_empty() {
                "-".to_owned()
            } else {
                event.container.clone()
            },
            short(&event.container_id).to_owned(),
            event
                .exit_code
                .map_or_else(|| "-".to_owned(), |code| code.to_string()),
        ])),
    }
}

/// Columns of a fixed width, for lines come one by one.
fn line(cells: [String; 6]) -> String {
    let widths = [30, 9, 32, 20, 15, 0];
    let mut text = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let shown: String = cell
            .chars()
            .map(|c| if c.is_control() { '\u{fffd}' } else { c })
            .collect();
        text.push_str(&format!("{shown:width$} "));
    }
    text.trim_end().to_owned()
}

fn event(message: &cri::ContainerEventResponse) -> Event {
    let pod = message.pod_sandbox_status.clone().unwrap_or_default();
    let metadata = pod.metadata.unwrap_or_default();
    let about = message
        .containers_statuses
        .iter()
        .find(|one| one.id == message.container_id);
    let kind = message.container_event_type();
    let stopped = kind == cri::ContainerEventType::ContainerStoppedEvent;
    Event {
        time: time::rfc3339(message.created_at),
        kind: match kind {
            cri::ContainerEventType::ContainerCreatedEvent => "created",
            cri::ContainerEventType::ContainerStartedEvent => "started",
            cri::ContainerEventType::ContainerStoppedEvent => "stopped",
            cri::ContainerEventType::ContainerDeletedEvent => "deleted",
        },
        namespace: metadata.namespace,
        pod: metadata.name,
        pod_id: pod.id,
        container: about
            .and_then(|one| Some(one.metadata.clone()?.name))
            .unwrap_or_default(),
        container_id: message.container_id.clone(),
        exit_code: about.filter(|_| stopped).map(|one| one.exit_code),
    }
}

/// Whether every filter lets it through.
fn wanted(args: &Events, event: &Event) -> bool {
    let pod = |name: &String| {
        *name == event.pod
            || *name == format!("{}/{}", event.namespace, event.pod)
            || (name.len() >= 3 && event.pod_id.starts_with(name.as_str()))
    };
    let namespace = args
        .namespace
        .as_ref()
        .is_none_or(|name| *name == event.namespace);
    let kind = args.kinds.is_empty() || args.kinds.iter().any(|kind| kind.word() == event.kind);
    let container = args.container.as_ref().is_none_or(|name| {
        *name == event.container || (name.len() >= 3 && event.container_id.starts_with(name))
    });
    namespace && kind && container && (args.pods.is_empty() || args.pods.iter().any(pod))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::EventKind;

    fn message() -> cri::ContainerEventResponse {
        cri::ContainerEventResponse {
            container_id: "c0ffee".into(),
            container_event_type: cri::ContainerEventType::ContainerStoppedEvent.into(),
            created_at: 1_500_000_000,
            pod_sandbox_status: Some(cri::PodSandboxStatus {
                id: "deadbeef".into(),
                metadata: Some(cri::PodSandboxMetadata {
                    name: "web".into(),
                    namespace: "shop".into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            containers_statuses: vec![cri::ContainerStatus {
                id: "c0ffee".into(),
                metadata: Some(cri::ContainerMetadata {
                    name: "nginx".into(),
                    attempt: 0,
                }),
                exit_code: 3,
                ..Default::default()
            }],
        }
    }

    #[test]
    fn an_event_tells_who_and_how_it_ended() {
        let event = event(&message());
        assert_eq!(
            (event.kind, event.pod.as_str(), event.container.as_str()),
            ("stopped", "web", "nginx")
        );
        assert_eq!(
            (event.exit_code, event.time.as_str()),
            (Some(3), "1970-01-01T00:00:01.5Z")
        );
        let mut of_pod = message();
        of_pod.container_id = "deadbeef".into();
        let event = super::event(&of_pod);
        assert_eq!((event.container.as_str(), event.exit_code), ("", None));
    }

    #[test]
    fn filters_must_all_let_it_through() {
        let event = event(&message());
        let all = || Events {
            pods: Vec::new(),
            namespace: None,
            container: None,
            kinds: Vec::new(),
            count: None,
            duration: None,
            output: Listing::Table,
        };
        assert!(wanted(&all(), &event));
        for pod in ["web", "shop/web", "dead"] {
            assert!(
                wanted(
                    &Events {
                        pods: vec![pod.into()],
                        ..all()
                    },
                    &event
                ),
                "{pod}"
            );
        }
        for pod in ["we", "de", "other/web"] {
            assert!(
                !wanted(
                    &Events {
                        pods: vec![pod.into()],
                        ..all()
                    },
                    &event
                ),
                "{pod}"
            );
        }
        let by = |kind| Events {
            kinds: vec![kind],
            ..all()
        };
        assert!(
            wanted(&by(EventKind::Stopped), &event) && !wanted(&by(EventKind::Created), &event)
        );
        let by = |name: &str| Events {
            container: Some(name.into()),
            ..all()
        };
        assert!(
            wanted(&by("nginx"), &event)
                && wanted(&by("c0f"), &event)
                && !wanted(&by("db"), &event)
        );
        let by = |name: &str| Events {
            namespace: Some(name.into()),
            ..all()
        };
        assert!(wanted(&by("shop"), &event) && !wanted(&by("default"), &event));
    }
}
