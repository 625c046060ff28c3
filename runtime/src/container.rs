//! One container as the holder knows it.

use std::os::fd::OwnedFd;
use std::time::Instant;

use carpel_proto::holder::container_state::Status;
use carpel_proto::holder::{ContainerState, LogState};
use carpel_sys::pidfd;

use crate::cgroup::{KILL, Members};
use crate::connection::Origin;
use crate::stdio::Output;

/// How far a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A worker is at it; nobody has been told of it.
    Creating(Origin),
    Created,
    /// Told to start; what came of it is not known yet.
    Starting(Origin),
    Running,
    /// Its first process has ended; its output or other processes have not.
    Ending {
        since: Instant,
    },
    Exited,
}

#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) phase: Phase,
    /// The daemon has been told that it is made.
    pub(crate) announced: bool,
    pub(crate) pid: i32,
    /// Of the first process, until it has ended.
    pub(crate) pidfd: Option<OwnedFd>,
    /// Takes the byte that lets the program start.
    pub(crate) start: Option<OwnedFd>,
    /// Tells what came of it.
    pub(crate) outcome: Option<OwnedFd>,
    /// Kept open so that the program's standard input does not end.
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) output: Output,
    pub(crate) cgroup: Members,
    pub(crate) started_at_ns: i64,
    pub(crate) exited_at_ns: i64,
    pub(crate) exit_code: i32,
    /// The program was never run, whatever the process ended with.
    pub(crate) not_executed: bool,
    /// Who waits for it to be gone.
    pub(crate) deleting: Option<Origin>,
    /// Who waits for a line to end, so that the log can be changed.
    pub(crate) reopening: Option<Origin>,
}

impl Container {
    pub(crate) fn state(&self) -> ContainerState {
        let status = match self.phase {
            Phase::Creating(_) | Phase::Created => Status::Created,
            // Nothing holds a start back any more; one that fails is an exit.
            Phase::Starting(_) | Phase::Running | Phase::Ending { .. } => Status::Running,
            Phase::Exited => Status::Exited,
        };
        ContainerState {
            container_id: self.id.clone(),
            status: status.into(),
            pid: self.pid,
            started_at_ns: self.started_at_ns,
            exited_at_ns: self.exited_at_ns,
            exit_code: self.exit_code,
            log: Some(LogState {
                written_bytes: self.output.log.written(),
                dropped_bytes: self.output.log.dropped(),
            }),
        }
    }

    /// Kills its first process and, if it has a cgroup, all others.
    pub(crate) fn kill(&self) {
        if let Some(process) = &self.pidfd {
            // It may have ended, which is what is wanted.
            drop(pidfd::signal(process, KILL));
        }
        self.cgroup.kill();
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now_ns() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(i64::MAX)
}
