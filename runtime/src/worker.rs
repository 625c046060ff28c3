//! One create, start or exec, in a process of its own.
//!
//! The holder goes on meanwhile. What the job allocates goes with the worker, and
//! what it makes, a container's first process, becomes the holder's child when the
//! worker has ended: only then is the result read.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use carpel_native as native;
use carpel_oci_cli as oci_cli;
use carpel_proto::holder::reply::Result as Answer;
use carpel_proto::holder::{self as wire, Reply};
use carpel_sys::clone::{self, SingleThreaded};
use carpel_sys::namespace::Kinds;
use carpel_sys::{descriptors, memfd, pidfd, signal};
use oci_spec::runtime::{Process, Spec};
use prost::Message;

use crate::connection::Origin;
use crate::error::{Context, Error, Result};
use crate::oci::{OciExec, OciStart};
use crate::stdio;

/// Longest OCI configuration.
const SPEC: usize = 4 << 20;
/// As many instructions as the kernel takes, 8 bytes each.
const SECCOMP: usize = 4096 * 8;
/// A pipe takes this much in one piece.
const MESSAGE: usize = 4096;

/// What a worker is for, so that its end finds who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Create(u32),
    Start(u32, Origin),
    Exec(u32),
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) purpose: Purpose,
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    result: OwnedFd,
}

#[derive(Debug)]
pub(crate) enum Job {
    Create(CreateJob),
    Start(OciStart),
    Exec(ExecJob),
}

#[derive(Debug)]
pub(crate) struct CreateJob {
    pub(crate) spec: OwnedFd,
    pub(crate) seccomp: Option<OwnedFd>,
    pub(crate) rootfs: OwnedFd,
    pub(crate) mounts: Vec<(usize, OwnedFd)>,
    pub(crate) stdio: native::Stdio,
    pub(crate) cgroup: native::Cgroup,
    pub(crate) start: OwnedFd,
    pub(crate) outcome: OwnedFd,
    pub(crate) oom_score_adj: Option<i32>,
    /// Who makes it, if not the native executor.
    pub(crate) oci: Option<(String, oci_cli::Place)>,
}

#[derive(Debug)]
pub(crate) struct ExecJob {
    pub(crate) process: OwnedFd,
    pub(crate) seccomp: Option<OwnedFd>,
    pub(crate) init: OwnedFd,
    pub(crate) stdio: native::Stdio,
    pub(crate) cgroup: native::Cgroup,
    pub(crate) oci: Option<OciExec>,
}

impl Worker {
    /// Starts a worker; the job's descriptors are only its own from here on.
    pub(crate) fn spawn(job: Job, purpose: Purpose) -> io::Result<Self> {
        let (result, answer) = stdio::pipe()?;
        let single = SingleThreaded::verify()?;
        let pid = clone::spawn(single, Kinds::NONE, None, || work(job, &answer))?;
        let pidfd = match pidfd::open(pid) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                // Nobody would hear its end: it must not go on. It is our child and
                // not waited for, so the number is still its own.
                let own = rustix::process::Pid::from_raw(pid);
                own.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
                return Err(error);
            }
        };
        Ok(Self {
            purpose,
            pid,
            pidfd,
            result,
        })
    }

    /// Whether it is starting that container.
    pub(crate) fn starts(&self, container: u32) -> bool {
        matches!(self.purpose, Purpose::Start(key, _) if key == container)
    }

    /// What it said, once it has ended.
    pub(crate) fn result(&self) -> Result<Answer> {
        let mut bytes = vec![0; MESSAGE];
        // It has ended and only it had the other end: this does not block.
        let len = rustix::io::read(&self.result, &mut bytes).during("read a worker's result")?;
        match Reply::decode(&bytes[..len]).map(|reply| reply.result) {
            Ok(Some(Answer::Error(error))) => Err(Error::Told(error)),
            Ok(Some(answer)) => Ok(answer),
            _ => {
                let source = io::Error::other("it ended without a result");
                Err(source).during("run a worker")
            }
        }
    }
}

fn work(job: Job, answer: &OwnedFd) -> i32 {
    let answered = match job.run(answer.as_fd()) {
        Ok(answer) => answer,
        Err(error) => Answer::Error(error.to_wire()),
    };
    let reply = Reply {
        id: 0,
        result: Some(answered),
    };
    i32::from(rustix::io::write(answer, &reply.encode_to_vec()).is_err())
}

impl Job {
    fn run(self, answer: BorrowedFd<'_>) -> Result<Answer> {
        let mut keep = vec![answer];
        match &self {
            Self::Create(job) => job.descriptors(&mut keep),
            Self::Start(job) => keep.push(job.place.mount_namespace.as_fd()),
            Self::Exec(job) => job.descriptors(&mut keep),
        }
        descriptors::close_all_but(&keep).during("close the holder's descriptors")?;
        drop(keep);
        signal::unblock_all().during("unblock signals")?;
        match self {
            Self::Create(job) => job.run(),
            Self::Start(job) => job.run(),
            Self::Exec(job) => job.run(),
        }
    }
}

impl CreateJob {
    fn descriptors<'a>(&'a self, keep: &mut Vec<BorrowedFd<'a>>) {
        keep.extend([&self.spec, &self.rootfs, &self.start, &self.outcome].map(AsFd::as_fd));
        keep.extend(self.seccomp.iter().map(AsFd::as_fd));
        keep.extend(self.mounts.iter().map(|(_, fd)| fd.as_fd()));
        let place = self.oci.iter().map(|(_, place)| place);
        keep.extend(place.map(|place| place.mount_namespace.as_fd()));
        keep_both(keep, &self.stdio, &self.cgroup);
    }

    fn run(self) -> Result<Answer> {
        let spec: Spec = parse(&self.spec, "the container's configuration")?;
        if let Some((id, place)) = self.oci {
            let created = oci_cli::create(oci_cli::Create {
                place,
                id,
                spec,
                rootfs: self.rootfs,
                mounts: self.mounts,
                stdio: for_runtime(self.stdio),
                oom_score_adj: self.oom_score_adj,
            })?;
            return Ok(Answer::Created(wire::Created {
                pid: created.pid,
                oom_score_adj_refused: created.oom_score_adj_refused,
            }));
        }
        let created = native::create(native::Create {
            spec,
            rootfs: self.rootfs,
            mounts: self.mounts,
            stdio: self.stdio,
            seccomp: read_seccomp(self.seccomp.as_ref())?,
            cgroup: self.cgroup,
            start: self.start,
            outcome: self.outcome,
            oom_score_adj: self.oom_score_adj,
        })?;
        Ok(Answer::Created(wire::Created {
            pid: created.pid,
            oom_score_adj_refused: created.oom_score_adj_refused,
        }))
    }
}

impl ExecJob {
    fn descriptors<'a>(&'a self, keep: &mut Vec<BorrowedFd<'a>>) {
        keep.extend([&self.process, &self.init].map(AsFd::as_fd));
        keep.extend(self.seccomp.iter().map(AsFd::as_fd));
        let place = self.oci.iter().map(|oci| &oci.place);
        keep.extend(place.map(|place| place.mount_namespace.as_fd()));
        keep_both(keep, &self.stdio, &self.cgroup);
    }

    fn run(self) -> Result<Answer> {
        let process: Process = parse(&self.process, "the command's configuration")?;
        if let Some(oci) = self.oci {
            let pid = oci_cli::exec(oci_cli::Exec {
                place: oci.place,
                id: oci.container_id,
                init: oci.init,
                process,
                stdio: for_runtime(self.stdio),
                cgroup: oci.cgroup,
            })?;
            return Ok(Answer::Exec(wire::ExecStarted { pid }));
        }
        let pid = native::exec(native::Exec {
            init: self.init.as_fd(),
            process,
            stdio: self.stdio,
            seccomp: read_seccomp(self.seccomp.as_ref())?,
            cgroup: self.cgroup,
        })?;
        Ok(Answer::Exec(wire::ExecStarted { pid }))
    }
}

fn for_runtime(stdio: native::Stdio) -> oci_cli::Stdio {
    oci_cli::Stdio {
        stdin: stdio.stdin,
        stdout: stdio.stdout,
        stderr: stdio.stderr,
    }
}

fn keep_both<'a>(
    keep: &mut Vec<BorrowedFd<'a>>,
    stdio: &'a native::Stdio,
    cgroup: &'a native::Cgroup,
) {
    keep.extend([&stdio.stdin, &stdio.stdout, &stdio.stderr].map(AsFd::as_fd));
    keep.extend(cgroup.procs.iter().chain(&cgroup.dir).map(AsFd::as_fd));
}

fn parse<T: for<'a> serde::Deserialize<'a>>(fd: &OwnedFd, what: &str) -> Result<T> {
    let bytes = read(fd, SPEC, what)?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Invalid(format!("{what}: {error}")))
}

fn read_seccomp(fd: Option<&OwnedFd>) -> Result<Option<Vec<u8>>> {
    fd.map(|fd| read(fd, SECCOMP, "the seccomp program"))
        .transpose()
}

fn read(fd: &OwnedFd, limit: usize, what: &str) -> Result<Vec<u8>> {
    match memfd::read(fd, limit) {
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            Err(Error::Invalid(format!("{what}: {error}")))
        }
        read => read.during(format!("read {what}")),
    }
}
