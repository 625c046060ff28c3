//! What the daemon says, where it runs.

use carpel_proto::admin::{DumpConfigRequest, HealthRequest, LeftoversRequest};
use carpel_proto::cri;
use tonic::Request;

use crate::args::Global;
use crate::client::{self, Admin, Session};
use crate::doctor::facts::{Daemon, Leftovers};
use crate::error::CliError;
use crate::resolve;

pub(super) async fn look(global: &Global) -> (Daemon, Option<Admin>) {
    let mut daemon = Daemon {
        socket: global.socket.clone(),
        ..Daemon::default()
    };
    match Session::open(global).await {
        Ok(session) => ask(&mut daemon, &session).await,
        Err(CliError::Connect { reason, .. }) => daemon.unreachable = Some(reason),
        Err(error) => daemon.unreachable = Some(error.to_string()),
    }
    match client::admin(global, "doctor").await {
        Ok(admin) => (daemon, Some(admin)),
        Err(error) => {
            daemon.no_admin = Some(error.to_string());
            (daemon, None)
        }
    }
}

async fn ask(daemon: &mut Daemon, session: &Session) {
    let version = session.request(cri::VersionRequest::default());
    match session.runtime().version(version).await {
        Ok(version) => {
            let version = version.into_inner();
            daemon.version = format!("{} {}", version.runtime_name, version.runtime_version);
        }
        Err(status) => {
            daemon.unreachable = Some(status.message().to_owned());
            return;
        }
    }
    let status = session.request(cri::StatusRequest { verbose: false });
    match session.runtime().status(status).await {
        Ok(status) => {
            let conditions = status.into_inner().status.unwrap_or_default().conditions;
            let not = conditions.into_iter().filter(|condition| !condition.status);
            daemon.not_ready = not
                .map(|not| format!("{} is false: {} {}", not.r#type, not.reason, not.message))
                .collect();
        }
        Err(status) => daemon
            .not_ready
            .push(format!("no status: {}", status.message())),
    }
    let list = session.request(cri::ListImagesRequest { filter: None });
    daemon.images = Some(match session.images().list_images(list).await {
        Ok(images) => Ok(images.into_inner().images.len() as u64),
        Err(status) => Err(status.message().to_owned()),
    });
    if let Ok(pods) = resolve::all_pods(session).await {
        let names = pods
            .iter()
            .filter(|pod| resolve::name(pod).starts_with("quarantined-"));
        daemon.quarantined = names.map(|pod| pod.id.clone()).collect();
    }
}

/// The configuration in force.
pub(super) async fn config(admin: &mut Admin) -> Option<String> {
    let reply = admin.dump_config(Request::new(DumpConfigRequest {})).await;
    reply.ok().map(|reply| reply.into_inner().toml)
}

/// Its process, where it tells.
pub(super) async fn pid(admin: &mut Admin) -> Option<u32> {
    let health = admin.health(Request::new(HealthRequest {})).await.ok()?;
    Some(health.into_inner().pid).filter(|pid| *pid != 0)
}

pub(super) async fn leftovers(admin: &mut Admin) -> Result<Leftovers, String> {
    let reply = admin.leftovers(Request::new(LeftoversRequest {})).await;
    let reply = reply
        .map_err(|status| status.message().to_owned())?
        .into_inner();
    Ok(Leftovers {
        found: reply.leftovers,
        failures: reply.failures,
    })
}
