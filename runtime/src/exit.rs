//! Ends: of workers, of containers, and of processes nobody else waits for.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use carpel_logs::Stream;
use carpel_proto::holder::Done;
use carpel_proto::holder::event::What;
use carpel_proto::holder::reply::Result as Answer;
use carpel_sys::children::{self, Children};
use carpel_sys::pidfd::{self, Exit};

use crate::cgroup::KILL;
use crate::container::{Phase, now_ns};
use crate::holder::Holder;
use crate::poll::Kind;
use crate::worker::Purpose;

/// What a container ends with whose program could not be run.
const NOT_EXECUTED: i32 = 128;
/// What a process ended with that was somebody else's to wait for.
const UNKNOWN: i32 = 255;
/// Between two looks at processes and pipes that should be gone.
const AGAIN: Duration = Duration::from_millis(10);
/// Longest wait for them: a process elsewhere may hold a container's output.
const LATE: Duration = Duration::from_secs(2);
/// Orphans taken in one go.
const ORPHANS: usize = 256;

/// What a process has ended with, if it has. Where that cannot be known it is an
/// end too: the event that led here would come again and again.
pub(crate) fn take_exit(process: &OwnedFd) -> Option<Exit> {
    pidfd::try_wait(process).unwrap_or(Some(Exit::Code(UNKNOWN)))
}

impl Holder {
    pub(crate) fn on_worker(&mut self, key: u32) {
        let Some(worker) = self.workers.get(&key) else {
            return;
        };
        if take_exit(&worker.pidfd).is_none() {
            return;
        }
        let (purpose, result) = (worker.purpose, worker.result());
        self.poll.remove(&worker.pidfd);
        self.poll.disarm(Kind::WorkerDeadline, key);
        self.workers.remove(&key);
        match purpose {
            Purpose::Create(container) => self.created(container, result),
            Purpose::Start(container, origin) => self.started_by_runtime(container, origin, result),
            Purpose::Exec(exec) => self.executed(exec, result),
        }
        self.reap_orphans();
    }

    pub(crate) fn on_worker_deadline(&mut self, key: u32) {
        let Some(worker) = self.workers.get(&key) else {
            return;
        };
        drop(pidfd::signal(&worker.pidfd, KILL));
        // Its end is told by its pidfd; where that is not watched, by coming back.
        self.poll.arm(AGAIN, Kind::WorkerDeadline, key);
        self.on_worker(key);
    }

    pub(crate) fn on_output(&mut self, key: u32, stream: Stream) {
        let Some(container) = self.containers.get_mut(&key) else {
            return;
        };
        let ended = container.output.pump(stream, &mut self.buffer);
        if let Some(pipe) = &ended {
            self.poll.remove(pipe);
        }
        self.reopened(key);
        if ended.is_some() {
            self.settle_container(key);
        }
    }

    pub(crate) fn on_container_exit(&mut self, key: u32) {
        // What came of its start was written before it ended.
        self.on_outcome(key);
        let Some(container) = self.containers.get_mut(&key) else {
            return;
        };
        let Some(process) = &container.pidfd else {
            return;
        };
        let Some(exit) = take_exit(process) else {
            return;
        };
        self.poll.remove(process);
        container.pidfd = None;
        container.exited_at_ns = now_ns();
        container.exit_code = match container.not_executed {
            true => NOT_EXECUTED,
            false => exit.code(),
        };
        container.phase = Phase::Ending {
            since: Instant::now(),
        };
        self.kill_execs_of(key);
        // Take what it wrote last, which is mostly all there is.
        self.on_output(key, Stream::Stdout);
        self.on_output(key, Stream::Stderr);
        self.settle_container(key);
        self.reap_orphans();
    }

    /// Tells the end of a container when its processes are gone and its output is
    /// written, or neither will be.
    pub(crate) fn settle_container(&mut self, key: u32) {
        let Some(container) = self.containers.get_mut(&key) else {
            return;
        };
        let Phase::Ending { since } = container.phase else {
            return;
        };
        let busy = container.cgroup.kill();
        let late = since.elapsed() >= LATE;
        // Who asked for the start hears of that before the end is told.
        let starting = self.workers.values().any(|worker| worker.starts(key));
        if (busy || starting || !container.output.is_done()) && !late {
            return self.poll.arm(AGAIN, Kind::ContainerTimer, key);
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            if let Some(pipe) = container.output.close(stream, &mut self.buffer) {
                self.poll.remove(&pipe);
            }
        }
        container.output.log.reopen_now();
        container.phase = Phase::Exited;
        container.stdin = None;
        container.start = None;
        let outcome: Option<OwnedFd> = container.outcome.take();
        if let Some(outcome) = &outcome {
            self.poll.remove(outcome);
        }
        self.poll.disarm(Kind::ContainerTimer, key);
        let (announced, state) = (container.announced, container.state());
        let deleting = container.deleting;
        self.reopened(key);
        if announced {
            self.tell(What::ContainerExited(state));
        }
        if let Some(origin) = deleting {
            self.forget(key);
            self.reply(origin, Answer::Done(Done {}));
        }
    }

    /// Removes dead children that are not ours to report. One that is not known may
    /// be what a worker has just made, so this waits until there is no worker.
    pub(crate) fn reap_orphans(&mut self) {
        for _ in 0..ORPHANS {
            let Ok(Children::Ended(pid)) = children::peek() else {
                return;
            };
            // The event of one that is known is under way, and leads back here.
            if self.knows(pid) || !self.workers.is_empty() || children::bury(pid).is_err() {
                return;
            }
        }
    }

    fn knows(&self, pid: i32) -> bool {
        let init = self.pod.as_ref().and_then(|pod| pod.init.as_ref());
        let mut execs = self.execs.values().filter(|exec| exec.runs());
        let mut containers = self.containers.values().filter(|c| c.pidfd.is_some());
        self.workers.values().any(|worker| worker.pid == pid)
            || containers.any(|container| container.pid == pid)
            || execs.any(|exec| exec.pid == pid)
            || init.is_some_and(|init| init.pid == pid)
    }
}
