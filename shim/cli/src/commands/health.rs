//! `carpel health`

use std::time::Duration;

use carpel_proto::admin::HealthRequest;
use carpel_proto::cri::{RuntimeCondition, StatusRequest};
use tokio::time::{Instant, sleep};

use crate::args::{Global, Health};
use crate::client::Session;
use crate::error::{CliError, Doing, Result};
use crate::output::Table;
use crate::{out, time};

pub(super) async fn run(global: &Global, args: Health) -> Result<()> {
    let end = Instant::now() + args.wait.unwrap_or_default();
    let mut pause = Duration::from_millis(20);
    loop {
        let last = Instant::now() >= end;
        match check(global).await {
            Ok((session, conditions)) if last || conditions.iter().all(|c| c.status) => {
                return report(&session, &conditions).await;
            }
            Err(error) if last => return Err(error),
            _ => {}
        }
        sleep(pause.min(end.saturating_duration_since(Instant::now()))).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

async fn check(global: &Global) -> Result<(Session, Vec<RuntimeCondition>)> {
    let session = Session::open(global).await?;
    let request = session.request(StatusRequest { verbose: false });
    let status = session
        .runtime()
        .status(request)
        .await
        .doing("ask for the status")?;
    Ok((session, status.status.unwrap_or_default().conditions))
}

async fn report(session: &Session, conditions: &[RuntimeCondition]) -> Result<()> {
    let mut table = Table::new(&["CONDITION", "STATUS", "REASON", "MESSAGE"]);
    for condition in conditions {
        table.row([
            condition.r#type.clone(),
            condition.status.to_string(),
            condition.reason.clone(),
            condition.message.clone(),
        ]);
    }
    out::text(&table.render())?;
    if let Some(mut admin) = session.admin_if_there().await
        && let Ok(health) = admin.health(session.request(HealthRequest {})).await
    {
        let health = health.into_inner();
        out::line(format!(
            "carpeld {}, up for {}: {} pods, {} containers",
            health.version,
            time::age(health.started_at_ns, time::now()),
            health.pods,
            health.containers
        ))?;
    }
    match conditions.iter().find(|condition| !condition.status) {
        Some(not) => Err(CliError::refused(format!(
            "{} is false: {}",
            not.r#type, not.message
        ))),
        None => Ok(()),
    }
}
