//! Looking. Nothing on the node is changed.

mod cgroups;
mod config;
mod daemon;
mod disks;
mod kernel;
mod network;
mod process;

use crate::args::{Doctor, Global};

use super::facts::{Facts, Leftovers};

/// Everything that can be seen from here.
pub(crate) async fn gather(global: &Global, args: &Doctor) -> Facts {
    let (daemon, mut admin) = daemon::look(global).await;
    let carpeld = config::carpeld(args);
    let in_force = match &mut admin {
        Some(admin) => daemon::config(admin).await,
        None => None,
    };
    let (config, table) = config::read(args, carpeld.as_deref(), in_force);
    let (pid, leftovers) = match &mut admin {
        Some(admin) => (
            daemon::pid(admin).await,
            Some(daemon::leftovers(admin).await),
        ),
        None if daemon.unreachable.is_none() => (None, None),
        None => (None, Some(offline(args, carpeld.as_deref()))),
    };
    let kernel = kernel::look();
    Facts {
        cgroups: cgroups::look(),
        disks: disks::look(&table, &config),
        network: network::look(),
        process: process::look(pid),
        kernel,
        config,
        daemon,
        leftovers,
    }
}

/// By the records on disk, for nobody can be asked.
fn offline(args: &Doctor, carpeld: Option<&std::path::Path>) -> Result<Leftovers, String> {
    let carpeld = carpeld.ok_or("carpeld does not run and is not found")?;
    let text = config::run(carpeld, args, "leftovers")?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| format!("carpeld leftovers: {error}"))?;
    let texts = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let list = |key: &str| value[key].as_array().cloned().unwrap_or_default();
    let all = list("leftovers");
    let found = all.iter().map(|one| carpel_proto::admin::Leftover {
        kind: texts(&one["kind"]),
        name: texts(&one["name"]),
        what: texts(&one["what"]),
    });
    Ok(Leftovers {
        found: found.collect(),
        failures: list("failures").iter().map(texts).collect(),
    })
}
