//! `carpel get`

use std::collections::HashSet;

use carpel_proto::cri;
use serde::Serialize;

use super::images;
use crate::args::{Format, Get, Kind, Scope};
use crate::client::Session;
use crate::error::{CliError, Doing, Result};
use crate::output::{self, Table};
use crate::resolve::{self, short};
use crate::select::Selector;
use crate::{out, time, view};

const DEFAULT_NAMESPACE: &str = "default";

pub(super) async fn run(session: &Session, args: &Get) -> Result<()> {
    let selector = args.selector.as_deref().unwrap_or_default();
    let selector = Selector::parse(selector).map_err(CliError::Usage)?;
    match args.kind {
        Kind::Pods => pods(session, args, &selector).await,
        Kind::Containers => containers(session, args, &selector).await,
        Kind::Images if args.selector.is_some() => Err(CliError::Usage(
            "images have no labels to select by".to_owned(),
        )),
        Kind::Images => images::run(session, &args.names, args.output).await,
    }
}

async fn pods(session: &Session, args: &Get, selector: &Selector) -> Result<()> {
    let all = resolve::all_pods(session).await?;
    let mut chosen: Vec<&cri::PodSandbox> = Vec::new();
    for wanted in &args.names {
        chosen.push(resolve::find_pod(
            &all,
            wanted,
            args.scope.namespace.as_deref(),
        )?);
    }
    if args.names.is_empty() {
        chosen = all
            .iter()
            .filter(|pod| in_scope(pod, &args.scope))
            .collect();
        chosen.retain(|pod| selector.matches(&pod.labels));
        if !args.all {
            // The list is newest first.
            let mut seen = HashSet::new();
            chosen.retain(|pod| seen.insert(resolve::key(pod)));
        }
        chosen.sort_by_key(|pod| (resolve::namespace(pod), resolve::name(pod)));
    }
    let mut shown = Vec::new();
    for pod in chosen {
        if let Some(view) = pod_view(session, pod).await? {
            shown.push((pod, view));
        }
    }
    let views: Vec<view::Pod> = shown.iter().map(|(_, view)| view.clone()).collect();
    match args.output.unwrap_or_default() {
        Format::Json | Format::Yaml => objects(args, views),
        Format::Name => views
            .iter()
            .try_for_each(|pod| out::line(format!("pod/{}", pod.metadata.name))),
        Format::Table | Format::Wide if shown.is_empty() => {
            none("pods", args, all.len());
            Ok(())
        }
        Format::Table | Format::Wide => out::text(&pod_table(args, &shown).render()),
    }
}

fn pod_table(args: &Get, shown: &[(&cri::PodSandbox, view::Pod)]) -> Table {
    let wide = args.output == Some(Format::Wide);
    let mut heading = vec!["NAME", "READY", "STATUS", "AGE"];
    if args.scope.all_namespaces {
        heading.insert(0, "NAMESPACE");
    }
    if wide {
        heading.extend(["IP", "POD-ID"]);
        heading.extend((!args.scope.all_namespaces).then_some("NAMESPACE"));
    }
    let mut table = Table::new(&heading);
    let now = time::now();
    for (listed, pod) in shown {
        let namespace = pod.metadata.namespace.clone();
        let mut row = vec![
            pod.metadata.name.clone(),
            pod.ready(),
            pod.word(),
            time::age(listed.created_at, now),
        ];
        if args.scope.all_namespaces {
            row.insert(0, namespace.clone());
        }
        if wide {
            row.extend([pod.status.pod_ip.clone(), short(&listed.id).to_owned()]);
            row.extend((!args.scope.all_namespaces).then_some(namespace));
        }
        table.row(row);
    }
    table
}

/// `None` for a pod that went away while we looked.
pub(super) async fn pod_view(
    session: &Session,
    pod: &cri::PodSandbox,
) -> Result<Option<view::Pod>> {
    let message = cri::PodSandboxStatusRequest {
        pod_sandbox_id: pod.id.clone(),
        verbose: false,
    };
    let reply = session
        .runtime()
        .pod_sandbox_status(session.request(message))
        .await;
    let name = resolve::name(pod);
    let status = match reply.doing(format_args!("look at pod {name}")) {
        Err(error) if error.is_not_found() => return Ok(None),
        result => result?.status,
    };
    let listed = resolve::containers(session, Some(&pod.id)).await?;
    let mut statuses = Vec::new();
    for container in resolve::latest(&listed) {
        statuses.extend(container_status(session, container).await?);
    }
    Ok(Some(view::pod(pod, status.as_ref(), &statuses)))
}

/// `None` for a container that went away while we looked.
pub(super) async fn container_status(
    session: &Session,
    container: &cri::Container,
) -> Result<Option<cri::ContainerStatus>> {
    let message = cri::ContainerStatusRequest {
        container_id: container.id.clone(),
        verbose: false,
    };
    let reply = session
        .runtime()
        .container_status(session.request(message))
        .await;
    let name = resolve::container_name(container);
    match reply.doing(format_args!("look at container {name}")) {
        Err(error) if error.is_not_found() => Ok(None),
        result => Ok(result?.status),
    }
}

fn in_scope(pod: &cri::PodSandbox, scope: &Scope) -> bool {
    let wanted = scope.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    scope.all_namespaces || resolve::namespace(pod) == wanted
}

struct Row<'a> {
    listed: &'a cri::Container,
    pod: Option<&'a cri::PodSandbox>,
    view: view::Container,
}

async fn containers(session: &Session, args: &Get, selector: &Selector) -> Result<()> {
    let pods = resolve::all_pods(session).await?;
    let all = resolve::containers(session, None).await?;
    let scope = args.scope.namespace.as_deref();
    let mut chosen: Vec<&cri::Container> = Vec::new();
    for wanted in &args.names {
        chosen.push(resolve::find_container(&pods, &all, wanted, scope)?);
    }
    let pod_of =
        |container: &cri::Container| pods.iter().find(|pod| pod.id == container.pod_sandbox_id);
    if args.names.is_empty() {
        let ended = cri::ContainerState::ContainerExited;
        chosen = all
            .iter()
            .filter(|c| pod_of(c).is_none_or(|pod| in_scope(pod, &args.scope)))
            .filter(|c| args.all || c.state() != ended)
            .filter(|c| selector.matches(&c.labels))
            .collect();
    }
    let mut rows = Vec::new();
    for listed in chosen {
        if let Some(status) = container_status(session, listed).await? {
            rows.push(Row {
                listed,
                pod: pod_of(listed),
                view: view::container(&status),
            });
        }
    }
    match args.output.unwrap_or_default() {
        Format::Json | Format::Yaml => {
            objects(args, rows.into_iter().map(|row| row.view).collect())
        }
        Format::Name => rows.iter().try_for_each(|row| {
            let pod = row.pod.map_or("", resolve::name);
            out::line(format!("container/{pod}/{}", row.view.name))
        }),
        Format::Table | Format::Wide if rows.is_empty() => {
            none("containers", args, all.len());
            Ok(())
        }
        Format::Table | Format::Wide => {
            out::text(&container_table(args.output == Some(Format::Wide), &rows).render())
        }
    }
}

fn container_table(wide: bool, rows: &[Row<'_>]) -> Table {
    let mut heading = vec!["NAME", "POD", "STATE", "AGE", "IMAGE"];
    if wide {
        heading.extend(["CONTAINER-ID", "POD-ID", "NAMESPACE", "RESTARTS"]);
    }
    let mut table = Table::new(&heading);
    let now = time::now();
    for row in rows {
        let mut cells = vec![
            row.view.name.clone(),
            row.pod
                .map_or_else(String::new, |pod| resolve::name(pod).to_owned()),
            row.view.state.word(),
            time::age(row.listed.created_at, now),
            image_name(&row.view),
        ];
        if wide {
            cells.extend([
                short(&row.listed.id).to_owned(),
                short(&row.listed.pod_sandbox_id).to_owned(),
                row.pod
                    .map_or_else(String::new, |pod| resolve::namespace(pod).to_owned()),
                row.view.restart_count.to_string(),
            ]);
        }
        table.row(cells);
    }
    table
}

fn image_name(container: &view::Container) -> String {
    match container.image.strip_prefix("sha256:") {
        Some(_) => short(&container.image).to_owned(),
        None => container.image.clone(),
    }
}

/// One object when one was named, else a list, as kubectl prints them.
fn objects<T: Serialize>(args: &Get, mut items: Vec<T>) -> Result<()> {
    let json = args.output == Some(Format::Json);
    let one = if args.names.len() == 1 {
        items.pop()
    } else {
        None
    };
    out::text(&match (one, json) {
        (Some(one), true) => output::json(&one)?,
        (Some(one), false) => output::yaml(&one)?,
        (None, true) => output::json(&view::List::of(items))?,
        (None, false) => output::yaml(&view::List::of(items))?,
    })
}

fn none(what: &str, args: &Get, in_all: usize) {
    let such = if args.selector.is_some() { "such " } else { "" };
    let namespace = args.scope.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    out::note(match (args.scope.all_namespaces, in_all) {
        (true, _) | (_, 0) => format!("there are no {such}{what}"),
        (false, _) => format!("there are no {such}{what} in namespace {namespace}; -A shows all"),
    });
}
