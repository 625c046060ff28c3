//! `carpel stop`

use std::time::Duration;

use carpel_proto::cri;
use tokio::task::JoinSet;

use crate::args::Stop;
use crate::client::Session;
use crate::error::{CliError, Doing, Result};
use crate::{keys, out, resolve};

/// As Kubernetes has it when a pod says nothing.
const DEFAULT_GRACE: i64 = 30;

pub(super) async fn run(session: &Session, args: &Stop) -> Result<()> {
    let all = resolve::all_pods(session).await?;
    let scope = args.scope.namespace.as_deref();
    let pods: Vec<_> = args
        .pods
        .iter()
        .map(|wanted| resolve::find_pod(&all, wanted, scope))
        .collect::<Result<_>>()?;
    let mut errors = Vec::new();
    for pod in pods {
        match stop(session, pod, args.grace).await {
            Ok(()) => out::line(format!("pod/{} stopped", resolve::name(pod)))?,
            Err(error) => errors.push(error),
        }
    }
    first(errors)
}

/// Stops the containers, each with its grace, all at once, and then the sandbox.
pub(super) async fn stop(
    session: &Session,
    pod: &cri::PodSandbox,
    grace: Option<u32>,
) -> Result<()> {
    let containers = resolve::containers(session, Some(&pod.id)).await?;
    let mut stops = JoinSet::new();
    for container in containers {
        if container.state() != cri::ContainerState::ContainerRunning {
            continue;
        }
        let session = session.clone();
        let grace = grace.map_or_else(|| grace_of(&container), i64::from);
        stops.spawn(async move { stop_container(&session, &container, grace).await });
    }
    let mut errors = Vec::new();
    while let Some(stopped) = stops.join_next().await {
        match stopped {
            Ok(Ok(())) => {}
            Ok(Err(error)) => errors.push(error),
            Err(error) => errors.push(CliError::refused(error.to_string())),
        }
    }
    let message = cri::StopPodSandboxRequest {
        pod_sandbox_id: pod.id.clone(),
    };
    let reply = session
        .runtime()
        .stop_pod_sandbox(session.request(message))
        .await;
    if let Err(error) = reply.doing(format_args!("stop pod {}", resolve::name(pod))) {
        errors.push(error);
    }
    first(errors)
}

/// The kubelet writes it on every container; so do we.
fn grace_of(container: &cri::Container) -> i64 {
    let given = container
        .annotations
        .get(keys::GRACE)
        .and_then(|text| text.parse().ok());
    given
        .filter(|seconds| *seconds >= 0)
        .unwrap_or(DEFAULT_GRACE)
}

async fn stop_container(session: &Session, container: &cri::Container, grace: i64) -> Result<()> {
    let message = cri::StopContainerRequest {
        container_id: container.id.clone(),
        timeout: grace,
    };
    let extra = Duration::from_secs(u64::try_from(grace).unwrap_or_default());
    let request = session.request_within(message, extra);
    let name = resolve::container_name(container);
    match session
        .runtime()
        .stop_container(request)
        .await
        .doing(format_args!("stop {name}"))
    {
        Err(error) if error.is_not_found() => Ok(()),
        result => result.map(drop),
    }
}

/// Tells all errors but one, which ends the command.
pub(super) fn first(errors: Vec<CliError>) -> Result<()> {
    let mut errors = errors.into_iter();
    let Some(first) = errors.next() else {
        return Ok(());
    };
    errors.for_each(|error| out::note(error.to_string()));
    Err(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grace_is_the_pods_own() {
        let mut container = cri::Container::default();
        assert_eq!(grace_of(&container), 30);
        for (text, grace) in [("5", 5), ("0", 0), ("-1", 30), ("x", 30)] {
            container
                .annotations
                .insert(keys::GRACE.to_owned(), text.to_owned());
            assert_eq!(grace_of(&container), grace);
        }
    }
}
