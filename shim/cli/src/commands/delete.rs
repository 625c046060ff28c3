//! `carpel delete`

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use carpel_proto::cri;
use tokio::task::JoinSet;

use super::{create, stop};
use crate::args::Delete;
use crate::client::Session;
use crate::error::{CliError, Doing, Result};
use crate::state::PodDir;
use crate::{out, resolve};

pub(super) async fn run(session: &Session, state: &Path, args: &Delete) -> Result<()> {
    let all = resolve::all_pods(session).await?;
    let mut errors = Vec::new();
    let mut deletions = JoinSet::new();
    for pod in chosen(&all, args, &mut errors)? {
        let (session, state, pod, grace) =
            (session.clone(), state.to_owned(), pod.clone(), args.grace);
        deletions.spawn(async move {
            let deleted = delete(&session, &state, &pod, grace).await;
            deleted.map(|()| resolve::name(&pod).to_owned())
        });
    }
    while let Some(deleted) = deletions.join_next().await {
        match deleted {
            Ok(Ok(name)) => out::line(format!("pod/{name} deleted"))?,
            Ok(Err(error)) => errors.push(error),
            Err(error) => errors.push(CliError::refused(error.to_string())),
        }
    }
    stop::first(errors)
}

fn chosen<'a>(
    all: &'a [cri::PodSandbox],
    args: &Delete,
    errors: &mut Vec<CliError>,
) -> Result<Vec<&'a cri::PodSandbox>> {
    let scope = args.scope.namespace.as_deref();
    if args.all {
        let namespace = scope.unwrap_or("default");
        let within = |pod: &&cri::PodSandbox| {
            args.scope.all_namespaces || resolve::namespace(pod) == namespace
        };
        return Ok(all.iter().filter(within).collect());
    }
    let names = if args.files.is_empty() {
        args.pods.clone()
    } else {
        of_files(&args.files)?
    };
    let mut ids = HashSet::new();
    for wanted in names {
        match resolve::find_pod(all, &wanted, scope) {
            // A pod's earlier sandboxes go with it.
            Ok(pod) => ids.extend(
                all.iter()
                    .filter(|other| same_pod(other, pod))
                    .map(|other| other.id.as_str()),
            ),
            Err(error) if args.ignore_not_found && error.is_not_found() => {}
            Err(error) => errors.push(error),
        }
    }
    Ok(all
        .iter()
        .filter(|pod| ids.contains(pod.id.as_str()))
        .collect())
}

fn same_pod(one: &cri::PodSandbox, other: &cri::PodSandbox) -> bool {
    one.id == other.id || one.metadata.is_some() && resolve::key(one) == resolve::key(other)
}

fn of_files(files: &[PathBuf]) -> Result<Vec<String>> {
    let pods = create::read(files)?;
    Ok(pods
        .iter()
        .map(|pod| format!("{}/{}", pod.namespace, pod.name.value))
        .collect())
}

/// Stops and removes a pod and what we keep of it.
pub(super) async fn delete(
    session: &Session,
    state: &Path,
    pod: &cri::PodSandbox,
    grace: Option<u32>,
) -> Result<()> {
    // Removing stops by force whatever did not stop in time.
    let stopped = stop::stop(session, pod, grace).await;
    let message = cri::RemovePodSandboxRequest {
        pod_sandbox_id: pod.id.clone(),
    };
    let reply = session
        .runtime()
        .remove_pod_sandbox(session.request(message))
        .await;
    reply.doing(format_args!("remove pod {}", resolve::name(pod)))?;
    if let Some(dir) = pod.metadata.as_ref().and_then(|m| PodDir::of(state, m)) {
        dir.remove()?;
    }
    if let Err(error) = stopped {
        out::note(format!(
            "pod {} did not stop cleanly: {error}",
            resolve::name(pod)
        ));
    }
    Ok(())
}
