//! Making a container: what it needs of us, and what becomes of it.

use std::os::fd::OwnedFd;
use std::time::Duration;

use carpel_logs::Writer;
use carpel_native as native;
use carpel_proto::holder::reply::Result as Answer;
use carpel_proto::holder::{CreateContainer, Created};
use carpel_sys::pidfd;

use crate::connection::Origin;
use crate::container::{Container, Phase};
use crate::error::{Context, Error, Result};
use crate::holder::Holder;
use crate::oci;
use crate::poll::Kind;
use crate::request::{Fds, Handled, check_id, done};
use crate::stdio::{self, Output};
use crate::worker::{CreateJob, Job, Purpose, Worker};

/// Containers of one pod, so that the greeting that names them all is one packet.
const CONTAINERS: usize = 256;
/// Longest time for one job; a daemon waits a little longer.
const WORK: Duration = Duration::from_secs(25);

impl Holder {
    pub(crate) fn create(
        &mut self,
        origin: Origin,
        call: CreateContainer,
        fds: &mut Fds,
    ) -> Handled {
        check_id("container", &call.container_id)?;
        if self.find(&call.container_id).is_ok() {
            let what = format!("container {:?} is there already", call.container_id);
            return Err(Error::AlreadyExists(what));
        }
        if self.containers.len() >= CONTAINERS {
            let what = format!("the pod has {CONTAINERS} containers, which is the limit");
            return Err(Error::Exhausted(what));
        }
        let (container, job) = prepare(origin, call, fds)?;
        let key = self.next_key();
        self.work(Job::Create(job), Purpose::Create(key))?;
        self.containers.insert(key, container);
        Ok(None)
    }

    /// Starts a worker and watches it.
    pub(crate) fn work(&mut self, job: Job, purpose: Purpose) -> Result<()> {
        let worker = Worker::spawn(job, purpose).during("start a worker")?;
        let key = self.next_key();
        // If it cannot be watched its deadline, now, ends it.
        let watched = self.poll.add(&worker.pidfd, Kind::Worker, key);
        let limit = watched.map_or(Duration::ZERO, |()| WORK);
        self.poll.arm(limit, Kind::WorkerDeadline, key);
        self.workers.insert(key, worker);
        Ok(())
    }

    /// Goes on where a worker has ended.
    pub(crate) fn created(&mut self, key: u32, result: Result<Answer>) {
        let Some(container) = self.containers.get(&key) else {
            return;
        };
        let Phase::Creating(origin) = container.phase else {
            return;
        };
        let created = match result {
            Ok(Answer::Created(created)) => self.adopt_container(key, created),
            Ok(_) => Err(Error::Invalid("a worker did another job".to_owned())),
            Err(error) => Err(error),
        };
        match created {
            Ok(created) => self.announce(key, origin, created),
            Err(error) => {
                let gone = self.forget(key);
                self.refuse(origin, &error);
                if let Some(deleting) = gone.and_then(|gone| gone.deleting) {
                    self.reply(deleting, Answer::Done(carpel_proto::holder::Done {}));
                }
            }
        }
    }

    fn adopt_container(&mut self, key: u32, created: Created) -> Result<Created> {
        let what = || format!("watch process {}", created.pid);
        let Some(container) = self.containers.get_mut(&key) else {
            return Err(Error::NotFound("the container has gone".to_owned()));
        };
        let process = pidfd::open(created.pid).during(what())?;
        let process = container.pidfd.insert(process);
        container.pid = created.pid;
        self.poll
            .add(process, Kind::ContainerExit, key)
            .during(what())?;
        let pipes = [
            (&container.output.stdout, Kind::Stdout),
            (&container.output.stderr, Kind::Stderr),
        ];
        for (pipe, kind) in pipes {
            if let Some(pipe) = pipe {
                self.poll
                    .add(pipe, kind, key)
                    .during("watch a container's output")?;
            }
        }
        Ok(created)
    }

    fn announce(&mut self, key: u32, origin: Origin, created: Created) {
        let wanted = self.is_connected(origin.connection);
        let Some(container) = self.containers.get_mut(&key) else {
            return;
        };
        container.phase = Phase::Created;
        container.announced = wanted;
        if !wanted {
            // Whoever asked has gone without an answer and knows nothing of it. The
            // next daemon may have asked to delete it, and waits for that answer.
            container.deleting.get_or_insert(origin);
        }
        if container.deleting.is_some() {
            container.kill();
        }
        self.reply(origin, Answer::Created(created));
    }

    /// Drops a container with all that is watched of it.
    pub(crate) fn forget(&mut self, key: u32) -> Option<Container> {
        let container = self.containers.remove(&key)?;
        container.kill();
        let watched = [
            &container.output.stdout,
            &container.output.stderr,
            &container.outcome,
            &container.pidfd,
        ];
        for fd in watched.into_iter().flatten() {
            self.poll.remove(fd);
        }
        self.poll.disarm(Kind::ContainerTimer, key);
        self.poll.disarm(Kind::ReopenDeadline, key);
        Some(container)
    }

    /// Forgets an exited container; one that runs is killed, and forgotten when it
    /// has ended.
    pub(crate) fn delete(&mut self, origin: Origin, id: &str) -> Handled {
        let key = self.find(id)?;
        let Some(container) = self.containers.get_mut(&key) else {
            return done();
        };
        match container.phase {
            Phase::Exited => {
                self.forget(key);
                return done();
            }
            // The worker's end finds that it is not wanted any more.
            Phase::Creating(_) => {}
            _ => container.kill(),
        }
        if let Some(before) = container.deleting.replace(origin) {
            self.reply(before, Answer::Done(carpel_proto::holder::Done {}));
        }
        Ok(None)
    }
}

/// Makes the pipes: what stays here is the container's, the rest the worker's.
fn prepare(
    origin: Origin,
    mut call: CreateContainer,
    fds: &mut Fds,
) -> Result<(Container, CreateJob)> {
    let oci = call
        .oci
        .take()
        .map(|oci| oci::place(oci, fds))
        .transpose()?;
    let pipe = "make a pipe for the container";
    let (stdout, stdout_inside) = stdio::pipe_to_us().during(pipe)?;
    let (stderr, stderr_inside) = stdio::pipe_to_us().during(pipe)?;
    let (outcome, outcome_inside) = stdio::pipe_to_us().during(pipe)?;
    let (start_inside, start) = stdio::pipe().during(pipe)?;
    let (stdin_inside, stdin) = if call.stdin {
        let (inside, ours) = stdio::pipe().during(pipe)?;
        (inside, Some(ours))
    } else {
        (stdio::null().during("open /dev/null")?, None)
    };
    let cgroup = fds.members(
        &call.cgroup_procs_fd,
        call.cgroup_dir_fd,
        call.cgroup_kill_fd,
    )?;
    // A runtime's container has its own way to be started.
    let native = oci.is_none();
    let job = CreateJob {
        oci: oci.map(|place| (call.container_id.clone(), place)),
        spec: fds.take(call.spec_fd, "spec_fd")?,
        seccomp: fds.maybe(call.seccomp_fd, "seccomp_fd")?,
        rootfs: fds.take(call.rootfs_fd, "rootfs_fd")?,
        mounts: mounts(&call, fds)?,
        stdio: native::Stdio {
            stdin: stdin_inside,
            stdout: stdout_inside,
            stderr: stderr_inside,
        },
        cgroup: cgroup.place().during("copy the cgroup's descriptors")?,
        start: start_inside,
        outcome: outcome_inside,
        oom_score_adj: call.oom_score_adj,
    };
    let container = Container {
        phase: Phase::Creating(origin),
        announced: false,
        pid: 0,
        pidfd: None,
        start: native.then_some(start),
        outcome: native.then_some(outcome),
        stdin,
        output: Output {
            stdout: Some(stdout),
            stderr: Some(stderr),
            log: Writer::new(fds.maybe(call.log_fd, "log_fd")?),
        },
        cgroup,
        started_at_ns: 0,
        exited_at_ns: 0,
        exit_code: 0,
        not_executed: false,
        deleting: None,
        reopening: None,
        id: call.container_id,
    };
    Ok((container, job))
}

fn mounts(call: &CreateContainer, fds: &mut Fds) -> Result<Vec<(usize, OwnedFd)>> {
    call.mounts
        .iter()
        .map(|mount| {
            let index = usize::try_from(mount.mount)
                .map_err(|_| Error::Invalid(format!("mount {}", mount.mount)))?;
            Ok((index, fds.take(mount.fd, "mounts.fd")?))
        })
        .collect()
}
