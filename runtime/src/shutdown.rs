//! The end of a pod.

use std::time::{Duration, Instant};

use carpel_proto::holder::Done;
use carpel_proto::holder::reply::Result as Answer;
use carpel_sys::children::{self, Children};
use carpel_sys::pidfd;
use rustix::process::{Pid, Signal};

use crate::cgroup::KILL;
use crate::connection::Origin;
use crate::container::Phase;
use crate::holder::Holder;
use crate::poll::Kind;
use crate::request::Handled;

/// Between two looks at what should be gone.
const AGAIN: Duration = Duration::from_millis(5);
/// Longest wait for it. What the kernel cannot end, a process that waits for a dead
/// disk, must not keep the pod.
const LATE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Shutdown {
    origin: Origin,
    deadline: Instant,
}

impl Holder {
    pub(crate) fn is_ending(&self) -> bool {
        self.shutdown.is_some()
    }

    /// Kills everything and lets the loop wait for it. Asked again, by a daemon that
    /// came later, it answers to that one.
    pub(crate) fn begin_shutdown(&mut self, origin: Origin) -> Handled {
        let before = self.shutdown.take();
        let deadline = before.map_or_else(|| Instant::now() + LATE, |before| before.deadline);
        self.shutdown = Some(Shutdown { origin, deadline });
        Ok(None)
    }

    /// Ends the holder when nothing is left, or nothing more will go.
    pub(crate) fn go_on_shutting_down(&mut self) {
        let Some(Shutdown { origin, deadline }) = &self.shutdown else {
            return;
        };
        let (origin, deadline) = (*origin, *deadline);
        self.kill_all();
        self.reap_orphans();
        if !self.is_all_gone() && Instant::now() < deadline {
            return self.poll.arm(AGAIN, Kind::ShutdownTimer, 0);
        }
        if self.end.is_none() {
            self.reply(origin, Answer::Done(Done {}));
            self.end = Some(Ok(()));
        }
    }

    fn kill_all(&mut self) {
        for container in self.containers.values() {
            container.kill();
        }
        for exec in self.execs.values_mut() {
            exec.signal(KILL);
        }
        for worker in self.workers.values() {
            drop(pidfd::signal(&worker.pidfd, KILL));
        }
        if let Some(init) = self.pod.as_ref().and_then(|pod| pod.init.as_ref()) {
            drop(pidfd::signal(&init.pidfd, KILL));
        }
        // Orphans that we inherited: a child that nobody has waited for keeps its
        // number, so that these are still the ones listed.
        for pid in own_children() {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }

    fn is_all_gone(&self) -> bool {
        let exited = |phase| phase == Phase::Exited;
        self.containers.values().all(|c| exited(c.phase))
            && self.execs.is_empty()
            && self.workers.is_empty()
            && matches!(children::peek(), Ok(Children::None))
    }
}

fn own_children() -> Vec<Pid> {
    let Ok(text) = std::fs::read_to_string("/proc/thread-self/children") else {
        return Vec::new();
    };
    text.split_whitespace()
        .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
        .collect()
}
