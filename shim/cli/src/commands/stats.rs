//! `carpel stats`

use std::collections::HashMap;
use std::time::Duration;

use carpel_proto::cri;
use serde::Serialize;
use tokio::time::sleep;

use crate::args::{Listing, Stats};
use crate::client::Session;
use crate::error::{Doing, Result};
use crate::output::{self, Table};
use crate::resolve;
use crate::{out, view};

/// Between the two looks that a rate of CPU time needs.
const APART: Duration = Duration::from_millis(500);

/// One pod or container.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    #[serde(skip)]
    id: String,
    namespace: String,
    pod: String,
    /// Empty for the pod itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    container: String,
    #[serde(flatten)]
    usage: Usage,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Usage {
    #[serde(skip)]
    at: i64,
    cpu_nano_seconds: Option<u64>,
    cpu_nano_cores: Option<u64>,
    memory_bytes: Option<u64>,
    working_set_bytes: Option<u64>,
    received_bytes: Option<u64>,
    sent_bytes: Option<u64>,
    writable_bytes: Option<u64>,
}

pub(super) async fn run(session: &Session, args: &Stats) -> Result<()> {
    let mut before = look(session, args).await?;
    loop {
        sleep(args.watch.map_or(APART, |every| every.max(APART))).await;
        let mut now = look(session, args).await?;
        rates(&mut now, &before);
        match args.output {
            Listing::Table => out::text(&table(&now).render())?,
            Listing::Json if args.watch.is_some() => out::line(compact(&now)?)?,
            Listing::Json => out::text(&output::json(&now)?)?,
        }
        if args.watch.is_none() {
            return Ok(());
        }
        before = now;
    }
}

fn compact(rows: &[Row]) -> Result<String> {
    serde_json::to_string(rows)
        .map_err(|error| crate::error::CliError::refused(format!("write JSON: {error}")))
}

async fn look(session: &Session, args: &Stats) -> Result<Vec<Row>> {
    let pods = resolve::all_pods(session).await?;
    let mut wanted = Vec::new();
    for name in &args.pods {
        let pod = resolve::find_pod(&pods, name, args.scope.namespace.as_deref())?;
        wanted.push(pod.id.clone());
    }
    let request = session.request(cri::ListPodSandboxStatsRequest { filter: None });
    let reply = session.runtime().list_pod_sandbox_stats(request).await;
    let all = reply.doing("ask what pods use")?.stats;
    let scope = args.scope.namespace.as_deref().unwrap_or("default");
    let chosen = all.into_iter().filter(|stats| {
        let attributes = stats.attributes.clone().unwrap_or_default();
        let namespace = attributes.metadata.unwrap_or_default().namespace;
        match wanted.is_empty() {
            true => args.scope.all_namespaces || namespace == scope,
            false => wanted.contains(&attributes.id),
        }
    });
    let mut rows: Vec<Row> = chosen
        .flat_map(|stats| rows_of(&stats, args.pods_only))
        .collect();
    rows.sort_by(|a, b| key(a).cmp(&key(b)));
    Ok(rows)
}

fn key(row: &Row) -> (&str, &str, &str) {
    (&row.namespace, &row.pod, &row.container)
}

fn rows_of(stats: &cri::PodSandboxStats, pods_only: bool) -> Vec<Row> {
    let attributes = stats.attributes.clone().unwrap_or_default();
    let metadata = attributes.metadata.unwrap_or_default();
    let linux = stats.linux.clone().unwrap_or_default();
    let row = |id: &str, container: &str, usage| Row {
        id: id.to_owned(),
        namespace: metadata.namespace.clone(),
        pod: metadata.name.clone(),
        container: container.to_owned(),
        usage,
    };
    let mut usage = of(linux.cpu.as_ref(), linux.memory.as_ref());
    if let Some(link) = linux.network.and_then(|network| network.default_interface) {
        usage.received_bytes = link.rx_bytes.map(|bytes| bytes.value);
        usage.sent_bytes = link.tx_bytes.map(|bytes| bytes.value);
    }
    let mut rows = vec![row(&attributes.id, "", usage)];
    for container in linux.containers.iter().filter(|_| !pods_only) {
        let attributes = container.attributes.clone().unwrap_or_default();
        let name = attributes.metadata.unwrap_or_default().name;
        let mut usage = of(container.cpu.as_ref(), container.memory.as_ref());
        let layer = container.writable_layer.as_ref();
        usage.writable_bytes = layer.and_then(|layer| Some(layer.used_bytes.as_ref()?.value));
        rows.push(row(&attributes.id, &name, usage));
    }
    rows
}

fn of(cpu: Option<&cri::CpuUsage>, memory: Option<&cri::MemoryUsage>) -> Usage {
    let value = |value: Option<&cri::UInt64Value>| value.map(|value| value.value);
    Usage {
        at: cpu.map_or(0, |cpu| cpu.timestamp),
        cpu_nano_seconds: cpu.and_then(|cpu| value(cpu.usage_core_nano_seconds.as_ref())),
        cpu_nano_cores: cpu.and_then(|cpu| value(cpu.usage_nano_cores.as_ref())),
        memory_bytes: memory.and_then(|memory| value(memory.usage_bytes.as_ref())),
        working_set_bytes: memory.and_then(|memory| value(memory.working_set_bytes.as_ref())),
        ..Usage::default()
    }
}

/// CPU time per time since the look before, where both are known.
fn rates(now: &mut [Row], before: &[Row]) {
    let before: HashMap<&str, &Usage> = before
        .iter()
        .map(|row| (row.id.as_str(), &row.usage))
        .collect();
    for row in now {
        if let Some(old) = before.get(row.id.as_str())
            && let Some(rate) = rate(old, &row.usage)
        {
            row.usage.cpu_nano_cores = Some(rate);
        }
    }
}

fn rate(old: &Usage, new: &Usage) -> Option<u64> {
    let elapsed = u64::try_from(new.at - old.at)
        .ok()
        .filter(|time| *time > 0)?;
    let used = new.cpu_nano_seconds?.checked_sub(old.cpu_nano_seconds?)?;
    u64::try_from(u128::from(used) * 1_000_000_000 / u128::from(elapsed)).ok()
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "POD",
        "CONTAINER",
        "CPU",
        "MEMORY",
        "WORKING SET",
        "RECEIVED",
        "SENT",
        "WRITTEN",
    ]);
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), view::size);
    for row in rows {
        let usage = &row.usage;
        table.row([
            row.pod.clone(),
            if row.container.is_empty() {
                "-".to_owned()
            } else {
                row.container.clone()
            },
            usage
                .cpu_nano_cores
                .map_or_else(|| "-".to_owned(), millicores),
            size(usage.memory_bytes),
            size(usage.working_set_bytes),
            size(usage.received_bytes),
            size(usage.sent_bytes),
            size(usage.writable_bytes),
        ]);
    }
    table
}

/// Thousandths of a CPU, as Kubernetes writes them.
fn millicores(nano: u64) -> String {
    format!("{}m", nano.div_ceil(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(at: i64, used: u64) -> Usage {
        Usage {
            at,
            cpu_nano_seconds: Some(used),
            ..Usage::default()
        }
    }

    #[test]
    fn a_rate_is_cpu_time_over_time() {
        assert_eq!(
            rate(&usage(0, 0), &usage(2_000_000_000, 500_000_000)),
            Some(250_000_000)
        );
        assert_eq!(rate(&usage(5, 0), &usage(5, 1)), None, "no time has passed");
        assert_eq!(
            rate(&usage(0, 9), &usage(5, 1)),
            None,
            "the counter began anew"
        );
        assert_eq!(rate(&usage(0, 9), &Usage::default()), None);
        assert_eq!(
            (millicores(0), millicores(1), millicores(1_500_000_000)),
            ("0m".into(), "1m".into(), "1500m".into())
        );
    }

    #[test]
    fn a_pod_comes_with_its_containers() {
        let number = |value| Some(cri::UInt64Value { value });
        let container = cri::ContainerStats {
            attributes: Some(cri::ContainerAttributes {
                id: "c".into(),
                metadata: Some(cri::ContainerMetadata {
                    name: "web".into(),
                    attempt: 0,
                }),
                ..Default::default()
            }),
            writable_layer: Some(cri::FilesystemUsage {
                used_bytes: number(7),
                ..Default::default()
            }),
            ..Default::default()
        };
        let link = cri::NetworkInterfaceUsage {
            rx_bytes: number(5),
            ..Default::default()
        };
        let stats = cri::PodSandboxStats {
            linux: Some(cri::LinuxPodSandboxStats {
                network: Some(cri::NetworkUsage {
                    default_interface: Some(link),
                    ..Default::default()
                }),
                containers: vec![container],
                ..Default::default()
            }),
            ..Default::default()
        };
        let rows = rows_of(&stats, false);
        assert_eq!(rows[0].usage.received_bytes, Some(5));
        assert_eq!(
            (rows[1].container.as_str(), rows[1].usage.writable_bytes),
            ("web", Some(7))
        );
        assert_eq!(rows_of(&stats, true).len(), 1);
    }
}
