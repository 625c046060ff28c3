//! What systemd is told, where it started us (`Type=notify-reload`).

use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

/// The sockets answer.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// A reload has begun; `ready` ends it.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "cannot read the monotonic clock"),
    }
}

pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Shows that the daemon's threads still turn, as often as the unit wants it.
pub(crate) async fn watchdog(stop: CancellationToken) {
    let Some(period) = sd_notify::watchdog_enabled().and_then(period) else {
        return;
    };
    let mut tick = tokio::time::interval(period);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        tell(&[NotifyState::Watchdog]);
    }
}

/// Twice in the time that is allowed.
fn period(limit: Duration) -> Option<Duration> {
    let half = limit / 2;
    (!half.is_zero()).then_some(half)
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::period;

    #[test]
    fn a_watchdog_is_fed_twice_in_its_time() {
        assert_eq!(
            period(Duration::from_secs(10)),
            Some(Duration::from_secs(5))
        );
        assert_eq!(period(Duration::ZERO), None);
    }
}
