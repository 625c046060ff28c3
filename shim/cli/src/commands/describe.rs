//! `carpel describe`

use std::collections::HashMap;

use carpel_proto::cri;

use super::{get, images};
use crate::args::{Describe, Kind};
use crate::client::Session;
use crate::error::{CliError, Doing, Result};
use crate::output::pairs;
use crate::view::State;
use crate::{out, resolve, time, view};

pub(super) async fn run(session: &Session, args: &Describe) -> Result<()> {
    for (index, wanted) in args.names.iter().enumerate() {
        let text = match args.kind {
            Kind::Pods => pod(session, args, wanted).await?,
            Kind::Containers => container(session, args, wanted).await?,
            Kind::Images => image(&images::require(session, wanted).await?),
        };
        let gap = if index == 0 { "" } else { "\n" };
        out::text(&format!("{gap}{text}"))?;
    }
    Ok(())
}

async fn pod(session: &Session, args: &Describe, wanted: &str) -> Result<String> {
    let listed = resolve::pod(session, wanted, &args.scope).await?;
    let Some(pod) = get::pod_view(session, &listed).await? else {
        return Err(CliError::Absent {
            kind: "pod",
            wanted: wanted.to_owned(),
        });
    };
    let ips: Vec<String> = pod.status.pod_ips.iter().map(|ip| ip.ip.clone()).collect();
    let mut text = pairs(
        0,
        &[
            ("Name", pod.metadata.name.clone()),
            ("Namespace", pod.metadata.namespace.clone()),
            ("Uid", pod.metadata.uid.clone()),
            (
                "Sandbox",
                format!("{} ({})", pod.status.sandbox_id, pod.status.sandbox_state),
            ),
            ("Status", pod.word()),
            ("Ready", pod.ready()),
            ("IP", ips.join(", ")),
            ("Created", created(listed.created_at)),
            ("Handler", pod.status.runtime_handler.clone()),
            ("Labels", map(&listed.labels)),
            ("Annotations", map(&listed.annotations)),
        ],
    );
    let all = resolve::containers(session, Some(&listed.id)).await?;
    for (title, init) in [("Init Containers", true), ("Containers", false)] {
        let mut part = String::new();
        for container in resolve::latest(&all) {
            let Some(status) = get::container_status(session, container).await? else {
                continue;
            };
            if view::container(&status).init == init {
                part += &format!(
                    "  {}:\n{}",
                    resolve::container_name(container),
                    details(4, &status)
                );
            }
        }
        if !part.is_empty() {
            text += &format!("{title}:\n{part}");
        }
    }
    Ok(text)
}

async fn container(session: &Session, args: &Describe, wanted: &str) -> Result<String> {
    let pods = resolve::all_pods(session).await?;
    let all = resolve::containers(session, None).await?;
    let scope = args.scope.namespace.as_deref();
    let found = resolve::find_container(&pods, &all, wanted, scope)?;
    let message = cri::ContainerStatusRequest {
        container_id: found.id.clone(),
        verbose: false,
    };
    let reply = session
        .runtime()
        .container_status(session.request(message))
        .await;
    let status = reply
        .doing(format_args!("look at container {wanted}"))?
        .status
        .unwrap_or_default();
    let pod = pods.iter().find(|pod| pod.id == found.pod_sandbox_id);
    let pod = pod.map(|pod| format!("{}/{}", resolve::namespace(pod), resolve::name(pod)));
    let name = resolve::container_name(found).to_owned();
    let head = pairs(0, &[("Name", name), ("Pod", pod.unwrap_or_default())]);
    let tail = pairs(
        0,
        &[
            ("Labels", map(&status.labels)),
            ("Annotations", map(&status.annotations)),
        ],
    );
    Ok(head + &details(0, &status) + &tail)
}

fn details(indent: usize, status: &cri::ContainerStatus) -> String {
    let container = view::container(status);
    let mut rows = vec![
        ("Id", container.container_id.clone()),
        ("Image", container.image.clone()),
        ("Image Id", container.image_id.clone()),
        ("State", container.state.word()),
    ];
    match &container.state {
        State::Waiting { .. } => {}
        State::Running { started_at } => rows.push(("Started", started_at.clone())),
        State::Terminated {
            exit_code,
            message,
            started_at,
            finished_at,
            ..
        } => {
            rows.push(("Exit Code", exit_code.to_string()));
            rows.push(("Started", started_at.clone()));
            rows.push(("Finished", finished_at.clone()));
            if !message.is_empty() {
                rows.push(("Message", message.clone()));
            }
        }
    }
    rows.push(("Created", created(container.created_at)));
    rows.push(("Restarts", container.restart_count.to_string()));
    rows.push(("Log", status.log_path.clone()));
    let mounts = status.mounts.iter().map(|mount| {
        let mode = if mount.readonly { "ro" } else { "rw" };
        format!("{} from {} ({mode})", mount.container_path, mount.host_path)
    });
    rows.push(("Mounts", mounts.collect::<Vec<_>>().join("\n")));
    if let Some(user) = status.user.as_ref().and_then(|user| user.linux.as_ref()) {
        let groups: Vec<String> = user
            .supplemental_groups
            .iter()
            .map(i64::to_string)
            .collect();
        rows.push((
            "User",
            format!("{}:{} groups {}", user.uid, user.gid, groups.join(",")),
        ));
    }
    pairs(indent, &rows)
}

fn image(image: &cri::Image) -> String {
    let view = view::image(image);
    let user = match view.uid {
        Some(uid) => uid.to_string(),
        None => view.username.clone(),
    };
    pairs(
        0,
        &[
            ("Id", view.id.clone()),
            ("Tags", view.repo_tags.join("\n")),
            ("Digests", view.repo_digests.join("\n")),
            (
                "Size",
                format!("{} ({} bytes)", view::size(view.size), view.size),
            ),
            ("User", user),
            ("Pinned", view.pinned.to_string()),
        ],
    )
}

fn created(at: i64) -> String {
    format!("{} ({} ago)", time::rfc3339(at), time::age(at, time::now()))
}

fn map(map: &HashMap<String, String>) -> String {
    let mut lines: Vec<String> = map
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    lines.sort();
    lines.join("\n")
}
