//! Want of memory: who is killed first, and who was killed.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::sync::{Arc, Once};

use carpel_cgroup::{Cgroup, Hierarchies};
use rustix::io::Errno;

use super::container::Container;
use super::recorded::blocking;
use crate::error::Error;

static CLAMPED: Once = Once::new();

/// Whether the kernel killed a process of the container for want of memory since it
/// was started.
pub(super) async fn oom_killed(cgroups: &Arc<Hierarchies>, container: &Container) -> bool {
    kills(cgroups, container).await > container.record.read(|r| r.oom_kills_before)
}

/// Processes that were killed in the container's cgroup so far.
pub(super) async fn kills(cgroups: &Arc<Hierarchies>, container: &Container) -> u64 {
    let (cgroups, path) = (Arc::clone(cgroups), container.cgroup());
    let kills = blocking(move || Ok(cgroups.open(&path)?.oom_kills()?)).await;
    kills.unwrap_or_else(|error| {
        tracing::debug!(container = %container.id, %error, "no count of OOM kills");
        0
    })
}

/// For a further process of the container.
pub(super) fn adjustment(container: &Container) -> Option<i32> {
    i32::try_from(container.resources().oom_score_adj).ok()
}

/// Gives every process of a group this oom_score_adj. Where it may not be lowered so
/// far it is as low as our own, which is said once.
pub(super) fn adjust(cgroup: &Cgroup, value: i64) -> Result<(), Error> {
    for pid in cgroup.pids()? {
        let path = format!("/proc/{pid}/oom_score_adj");
        // Opened first: the number cannot become another process's any more.
        let Ok(mut file) = OpenOptions::new().write(true).open(&path) else {
            continue;
        };
        if !cgroup.pids()?.contains(&pid) {
            continue;
        }
        match set(&mut file, value) {
            Err(error) if !is_gone(&error) => {
                return Err(Error::io(format!("write {path}"))(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn set(file: &mut std::fs::File, value: i64) -> io::Result<()> {
    match file.write_all(value.to_string().as_bytes()) {
        Err(error) if is_denied(&error) => {}
        done => return done,
    }
    say_clamped();
    let own = std::fs::read_to_string("/proc/self/oom_score_adj")?;
    match file.write_all(own.trim().as_bytes()) {
        Err(error) if is_denied(&error) => Ok(()),
        done => done,
    }
}

/// Once for the daemon: on such a host it is so for every container that asks.
pub(super) fn say_clamped() {
    CLAMPED.call_once(|| {
        tracing::warn!(
            "oom_score_adj cannot be lowered so far here (CAP_SYS_RESOURCE); it is as low as ours"
        );
    });
}

fn is_denied(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::ACCESS | Errno::PERM))
}

fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error().map(Errno::from_raw_os_error) == Some(Errno::SRCH)
}
