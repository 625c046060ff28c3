//! The calls about a container that is there: start, signal, change its log.

use std::os::fd::OwnedFd;
use std::time::Duration;

use carpel_logs::Reopen;
use carpel_native as native;
use carpel_proto::holder::reply::Result as Answer;
use carpel_proto::holder::{Done, Started};
use carpel_sys::pidfd;
use rustix::io::Errno;

use crate::cgroup::KILL;
use crate::connection::Origin;
use crate::container::{Container, Phase, now_ns};
use crate::error::{Context, Error, Result};
use crate::holder::{Holder, missing};
use crate::poll::Kind;
use crate::request::{Handled, check_signal, done};

/// Longest wait for the end of a line that is being written in parts.
const LINE_END: Duration = Duration::from_secs(1);
/// The error of a failed start is no longer.
const OUTCOME: usize = 4096;

impl Holder {
    fn container_mut(&mut self, id: &str) -> Result<(u32, &mut Container)> {
        let key = self.find(id)?;
        let container = self.containers.get_mut(&key);
        let container = container.ok_or_else(|| missing(id))?;
        Ok((key, container))
    }

    pub(crate) fn start(&mut self, origin: Origin, id: &str) -> Handled {
        let (poll, key) = (&self.poll, self.find(id)?);
        let container = self.containers.get_mut(&key);
        let container = container.ok_or_else(|| missing(id))?;
        let (Phase::Created, Some(start), Some(outcome)) =
            (container.phase, &container.start, &container.outcome)
        else {
            let what = format!("container {id:?} has been started or is not ready to be");
            return Err(Error::FailedPrecondition(what));
        };
        rustix::io::write(start, b"1").during(format!("start container {id:?}"))?;
        container.phase = Phase::Starting(origin);
        container.started_at_ns = now_ns();
        container.start = None;
        poll.add(outcome, Kind::Outcome, key)
            .during("watch a container's start")?;
        Ok(None)
    }

    /// Hears what came of a start: nothing when the program runs, else an error.
    pub(crate) fn on_outcome(&mut self, key: u32) {
        let Some(container) = self.containers.get_mut(&key) else {
            return;
        };
        let (Phase::Starting(origin), Some(outcome)) = (container.phase, &container.outcome) else {
            return;
        };
        let mut bytes = vec![0; OUTCOME];
        let answer = match rustix::io::read(outcome, &mut bytes) {
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok(0) | Err(_) => {
                container.started_at_ns = now_ns();
                Answer::Started(Started {
                    started_at_ns: container.started_at_ns,
                })
            }
            Ok(len) => {
                container.not_executed = true;
                container.started_at_ns = 0;
                let error = Error::from(native::Error::decode(&bytes[..len]));
                Answer::Error(error.to_wire())
            }
        };
        self.poll.remove(outcome);
        container.outcome = None;
        container.phase = Phase::Running;
        self.reply(origin, answer);
    }

    pub(crate) fn signal(&mut self, id: &str, signal: i32, all: bool) -> Handled {
        check_signal(signal)?;
        let (_, container) = self.container_mut(id)?;
        let Some(process) = &container.pidfd else {
            let what = format!("container {id:?} is not running");
            return Err(Error::FailedPrecondition(what));
        };
        if all && signal == KILL {
            container.kill();
        } else if all && container.cgroup.is_known() {
            container.cgroup.signal(signal);
        } else {
            let what = format!("send signal {signal} to container {id:?}");
            pidfd::signal(process, signal).during(what)?;
        }
        done()
    }

    /// Changes to a new log file between two lines.
    pub(crate) fn reopen_log(&mut self, origin: Origin, id: &str, file: OwnedFd) -> Handled {
        let (key, container) = self.container_mut(id)?;
        if container.output.log.reopen(file) == Reopen::Done {
            if let Some(before) = container.reopening.take() {
                self.reply(before, Answer::Done(Done {}));
            }
            return done();
        }
        let before = container.reopening.replace(origin);
        if let Some(before) = before {
            self.reply(before, Answer::Done(Done {}));
        } else {
            self.poll.arm(LINE_END, Kind::ReopenDeadline, key);
        }
        Ok(None)
    }

    pub(crate) fn on_reopen_deadline(&mut self, key: u32) {
        if let Some(container) = self.containers.get_mut(&key) {
            container.output.log.reopen_now();
        }
        self.reopened(key);
    }

    /// Replies to whoever waits for a new log file, if it is in use by now.
    pub(crate) fn reopened(&mut self, key: u32) {
        let Some(container) = self.containers.get_mut(&key) else {
            return;
        };
        if container.output.log.is_waiting() {
            return;
        }
        if let Some(origin) = container.reopening.take() {
            self.poll.disarm(Kind::ReopenDeadline, key);
            self.reply(origin, Answer::Done(Done {}));
        }
    }
}
