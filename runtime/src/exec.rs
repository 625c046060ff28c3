//! Commands run in a container beside its first process.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use carpel_native as native;
use carpel_proto::holder::event::What;
use carpel_proto::holder::reply::Result as Answer;
use carpel_proto::holder::{Exec as ExecCall, ExecExited, ExecStarted};
use carpel_sys::pidfd;

use crate::cgroup::{KILL, Members};
use crate::connection::Origin;
use crate::container::Phase;
use crate::error::{Context, Error, Result};
use crate::exit::take_exit;
use crate::holder::Holder;
use crate::oci;
use crate::poll::Kind;
use crate::request::{Fds, Handled, check_id, check_signal, done};
use crate::stdio;
use crate::worker::{ExecJob, Job, Purpose};

/// Commands of one pod at the same time.
const EXECS: usize = 128;
/// Between two looks at processes that have been killed.
const AGAIN: Duration = Duration::from_millis(5);
/// Longest wait for them to be gone.
const LATE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Exec {
    id: String,
    /// Key of its container.
    container: u32,
    origin: Origin,
    pub(crate) pid: i32,
    /// Of its first process: none before it is there, and none after it has ended.
    pidfd: Option<OwnedFd>,
    /// Of this command alone, if it has one.
    cgroup: Members,
    pub(crate) kill_on_disconnect: bool,
    /// For the process that a worker is still making.
    early: Option<i32>,
    ended: Option<(i32, Instant)>,
}

impl Exec {
    /// Its first process has not been waited for.
    pub(crate) fn runs(&self) -> bool {
        self.pidfd.is_some()
    }

    /// Signals all its processes, or the one that is known.
    pub(crate) fn signal(&mut self, signal: i32) {
        let Some(process) = &self.pidfd else {
            if self.ended.is_none() {
                self.early = Some(signal);
            }
            return;
        };
        // It may have ended by now, which is no error for anybody.
        if signal == KILL || !self.cgroup.is_known() {
            drop(pidfd::signal(process, signal));
        }
        if signal == KILL {
            self.cgroup.kill();
        } else {
            self.cgroup.signal(signal);
        }
    }
}

impl Holder {
    pub(crate) fn exec(&mut self, origin: Origin, call: ExecCall, fds: &mut Fds) -> Handled {
        check_id("exec", &call.exec_id)?;
        let container = self.find(&call.container_id)?;
        if self.execs.values().any(|exec| exec.id == call.exec_id) {
            let what = format!("exec {:?} is there already", call.exec_id);
            return Err(Error::AlreadyExists(what));
        }
        if self.execs.len() >= EXECS {
            let what = format!("the pod runs {EXECS} commands, which is the limit");
            return Err(Error::Exhausted(what));
        }
        let cgroup = fds.members(
            &call.cgroup_procs_fd,
            call.cgroup_dir_fd,
            call.cgroup_kill_fd,
        )?;
        let job = self.exec_job(&call, container, &cgroup, fds)?;
        let key = self.next_key();
        self.work(Job::Exec(job), Purpose::Exec(key))?;
        let exec = Exec {
            id: call.exec_id,
            container,
            origin,
            pid: 0,
            pidfd: None,
            cgroup,
            kill_on_disconnect: call.kill_on_disconnect,
            early: None,
            ended: None,
        };
        self.execs.insert(key, exec);
        Ok(None)
    }

    fn exec_job(
        &self,
        call: &ExecCall,
        container: u32,
        cgroup: &Members,
        fds: &mut Fds,
    ) -> Result<ExecJob> {
        let id = &call.container_id;
        let running = self
            .containers
            .get(&container)
            .filter(|container| container.phase == Phase::Running);
        let Some((container, init)) = running.and_then(|c| Some((c, c.pidfd.as_ref()?))) else {
            let what = format!("container {id:?} is not running");
            return Err(Error::FailedPrecondition(what));
        };
        // Without a cgroup of its own it belongs to the container's.
        let place = if cgroup.is_known() || cgroup.dir.is_some() {
            cgroup.place()
        } else {
            container.cgroup.place()
        };
        let oci = oci::exec(call, container.pid, fds)?;
        let mut stdio = |index, what| match fds.maybe(index, what)? {
            Some(fd) => Ok(fd),
            None => stdio::null().during("open /dev/null"),
        };
        Ok(ExecJob {
            oci,
            stdio: native::Stdio {
                stdin: stdio(call.stdin_fd, "stdin_fd")?,
                stdout: stdio(call.stdout_fd, "stdout_fd")?,
                stderr: stdio(call.stderr_fd, "stderr_fd")?,
            },
            process: fds.take(call.process_fd, "process_fd")?,
            seccomp: fds.maybe(call.seccomp_fd, "seccomp_fd")?,
            init: init.try_clone().during("copy a process's descriptor")?,
            cgroup: place.during("copy the cgroup's descriptors")?,
        })
    }

    /// Goes on where a worker has ended.
    pub(crate) fn executed(&mut self, key: u32, result: Result<Answer>) {
        let Some(exec) = self.execs.get_mut(&key) else {
            return;
        };
        let origin = exec.origin;
        let started = match result {
            Ok(Answer::Exec(started)) => adopt(exec, started),
            Ok(_) => Err(Error::Invalid("a worker did another job".to_owned())),
            Err(error) => Err(error),
        };
        let watched = started.and_then(|started| {
            if let Some(process) = &exec.pidfd {
                let watched = self.poll.add(process, Kind::ExecExit, key);
                watched.during("watch a command")?;
            }
            Ok(started)
        });
        match watched {
            Ok(started) => {
                let orphan = exec.kill_on_disconnect && !self.is_connected(origin.connection);
                if let Some(exec) = self.execs.get_mut(&key) {
                    let early = exec.early.take().or(orphan.then_some(KILL));
                    if let Some(signal) = early {
                        exec.signal(signal);
                    }
                }
                self.reply(origin, Answer::Exec(started));
            }
            Err(error) => {
                if let Some(exec) = self.execs.remove(&key) {
                    exec.cgroup.kill();
                }
                self.refuse(origin, &error);
            }
        }
    }

    pub(crate) fn signal_exec(&mut self, id: &str, signal: i32) -> Handled {
        check_signal(signal)?;
        if let Some(exec) = self.execs.values_mut().find(|exec| exec.id == id) {
            exec.signal(signal);
        }
        done()
    }

    pub(crate) fn kill_execs_of(&mut self, container: u32) {
        let its = self.execs.values_mut();
        for exec in its.filter(|exec| exec.container == container) {
            exec.signal(KILL);
        }
    }

    pub(crate) fn on_exec_exit(&mut self, key: u32) {
        let Some(exec) = self.execs.get_mut(&key) else {
            return;
        };
        let Some(process) = &exec.pidfd else { return };
        let Some(exit) = take_exit(process) else {
            return;
        };
        self.poll.remove(process);
        exec.pidfd = None;
        exec.ended = Some((exit.code(), Instant::now()));
        self.settle_exec(key);
        self.reap_orphans();
    }

    /// Tells the end of a command when all its processes are gone, or will not go.
    pub(crate) fn settle_exec(&mut self, key: u32) {
        let Some(exec) = self.execs.get(&key) else {
            return;
        };
        let Some((exit_code, since)) = exec.ended else {
            return;
        };
        if exec.cgroup.is_known() && exec.cgroup.kill() && since.elapsed() < LATE {
            return self.poll.arm(AGAIN, Kind::ExecTimer, key);
        }
        let exec_id = exec.id.clone();
        self.execs.remove(&key);
        self.tell(What::ExecExited(ExecExited { exec_id, exit_code }));
    }
}

fn adopt(exec: &mut Exec, started: ExecStarted) -> Result<ExecStarted> {
    let process = pidfd::open(started.pid).during(format!("watch process {}", started.pid))?;
    exec.pid = started.pid;
    exec.pidfd = Some(process);
    Ok(started)
}
