//! What the daemon tells systemd, by a socket that stands for it.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use carpel_conformance::{Node, Settings};
use nix::sys::signal::Signal;

use crate::checks::Outcome;

/// Messages until one has this line; those before it are given too.
fn until_said(socket: &UnixDatagram, line: &str) -> anyhow::Result<Vec<String>> {
    let end = Instant::now() + Duration::from_secs(20);
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    while Instant::now() < end {
        if let Ok(length) = socket.recv(&mut buffer) {
            said.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            if said
                .iter()
                .any(|message| message.lines().any(|one| one == line))
            {
                return Ok(said);
            }
        }
    }
    anyhow::bail!("{line} was not said, but {said:?}")
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_told_of_start_reload_life_and_end() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("notify.sock");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let settings = Settings::default()
        .environment("NOTIFY_SOCKET", &path.display().to_string())
        .environment("WATCHDOG_USEC", "400000");
    let node = Node::start(settings).await?;
    let said = until_said(&socket, "READY=1")?;
    assert!(
        said.iter().all(|message| !message.contains("STOPPING")),
        "{said:?}"
    );

    until_said(&socket, "WATCHDOG=1")?;
    until_said(&socket, "WATCHDOG=1")?;

    node.signal(Signal::SIGHUP)?;
    let said = until_said(&socket, "RELOADING=1")?;
    let reloading = said.last().map(String::as_str).unwrap_or_default();
    let stamp = reloading
        .lines()
        .find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    assert!(
        stamp.is_some_and(|stamp| stamp.parse::<u64>().is_ok_and(|time| time > 0)),
        "{said:?}"
    );
    until_said(&socket, "READY=1")?;

    node.finish().await?;
    until_said(&socket, "STOPPING=1")?;
    Ok(())
}
