//! `carpel exec`

use std::time::Duration;

use carpel_proto::cri::ExecSyncRequest;

use crate::args::Exec;
use crate::client::Session;
use crate::error::{CliError, Doing, Result};
use crate::{out, resolve};

/// Longer than any command is waited for when it has no limit of its own.
const UNLIMITED: Duration = Duration::from_secs(24 * 3600);

pub(super) async fn run(session: &Session, args: Exec) -> Result<()> {
    let pod = resolve::pod(session, &args.pod, &args.scope).await?;
    let containers = resolve::containers(session, Some(&pod.id)).await?;
    let (container, note) = resolve::pick(&pod, &containers, args.container.as_deref())?;
    if let Some(note) = note {
        out::note(note);
    }
    let timeout = args.limit.map_or(0, |limit| {
        // The runtime counts whole seconds, and zero is no limit at all.
        i64::try_from(limit.as_secs()).unwrap_or(i64::MAX).max(1)
    });
    let doing = format!("run {} in {}", args.command[0], args.pod);
    let message = ExecSyncRequest {
        container_id: container.id.clone(),
        cmd: args.command,
        timeout,
    };
    let request = session.request_within(message, args.limit.unwrap_or(UNLIMITED));
    let done = session.runtime().exec_sync(request).await.doing(doing)?;
    out::error_bytes(&done.stderr)?;
    out::bytes(&done.stdout)?;
    match done.exit_code {
        0 => Ok(()),
        code => Err(CliError::Exit(u8::try_from(code).unwrap_or(255))),
    }
}
